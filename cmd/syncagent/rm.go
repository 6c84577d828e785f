package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"syncagent/agent"
	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore/record"
)

const rmHelp = `Delete a path, or with -r every path at and below a prefix.

rm -r asks first; where nobody can be asked it needs -y. It deletes what the agent
shows when it starts, in one atomic write per 1,000 paths. The values can still be
had from the versions that agents keep for seven days.`

// rmFlags are what the user said beside the path.
type rmFlags struct{ recursive, yes, dryRun, force bool }

func (c *cli) rmCmd() *cobra.Command {
	var f rmFlags
	var ifVersion string
	var wait waitFlags
	cmd := &cobra.Command{
		Use:               "rm PATH | rm -r PREFIX",
		Short:             "Delete a path, or everything below a prefix",
		Long:              rmHelp,
		Args:              args(1, "PATH"),
		ValidArgsFunction: c.completePaths(1),
		RunE: func(cmd *cobra.Command, words []string) error {
			waiter, err := wait.parse(c)
			if err != nil {
				return err
			}
			if f.recursive {
				return c.removeTree(cmd.Context(), words[0], waiter, f)
			}
			return c.removeOne(cmd.Context(), words[0], ifVersion, waiter, f)
		},
	}
	cmd.Flags().BoolVarP(&f.recursive, "recursive", "r", false, "delete every path at and below the prefix")
	cmd.Flags().BoolVarP(&f.yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVarP(&f.dryRun, "dry-run", "n", false, "print the paths that would be deleted, delete nothing")
	cmd.Flags().BoolVarP(&f.force, "force", "f", false, "it is no error if there is nothing to delete")
	cmd.Flags().StringVar(&ifVersion, "if-version", "", "delete only if this agent shows version `V`")
	c.addKeyFlag(cmd)
	wait.add(cmd)
	exclusive(cmd, "if-version", "recursive")
	return cmd
}

func (c *cli) removeOne(ctx context.Context, path, ifVersion string, waiter *waiter, f rmFlags) error {
	if err := record.CheckPath(path); err != nil {
		return err
	}
	client, err := c.dial()
	if err != nil {
		return err
	}
	whole := ctx
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	if f.dryRun {
		_, err := client.KV.Get(ctx, connect.NewRequest(&apiv1.GetRequest{Path: path, WithoutValue: true}))
		if err == nil {
			fmt.Fprintln(c.stdout, path)
		}
		return f.forgive(err)
	}
	if err := waiter.check(ctx, client); err != nil {
		return err
	}
	w, err := c.deleteOne(ctx, client, &apiv1.DeleteRequest{Path: path, IfVersion: ifVersion})
	if err != nil {
		return orBelow(ctx, client, path, f.forgive(err), "syncagent rm -r")
	}
	c.printWrite(w, path+" deleted")
	return waiter.await(whole, client, write{w.GetVersion(), []string{path}})
}

// deleteOne deletes a path that must be there. What a key of the user's signs has no conditions, so the agent is asked
// before; it may not be allowed to tell.
func (c *cli) deleteOne(ctx context.Context, client *agent.Client, r *apiv1.DeleteRequest) (*apiv1.WriteResponse, error) {
	if c.signKey == "" {
		w, err := client.KV.Delete(ctx, connect.NewRequest(r))
		if err != nil {
			return nil, err
		}
		return w.Msg, nil
	}
	_, err := client.KV.Get(ctx, connect.NewRequest(&apiv1.GetRequest{Path: r.GetPath(), WithoutValue: true}))
	if e := agent.ErrorOf(err); e != nil && e.Code != agent.CodeDenied {
		return nil, err
	}
	return c.writeBatch(ctx, client, []*apiv1.Op{{Op: &apiv1.Op_Delete{Delete: r}}})
}

// forgive drops the error that there is nothing to delete if the user does not mind.
func (f rmFlags) forgive(err error) error {
	if e := agent.ErrorOf(err); f.force && e != nil && e.Code == agent.CodeNotFound {
		return nil
	}
	return err
}

func (c *cli) removeTree(ctx context.Context, prefix string, waiter *waiter, f rmFlags) error {
	prefix, err := record.CleanPrefix(prefix)
	if err != nil {
		return err
	}
	client, err := c.dial()
	if err != nil {
		return err
	}
	if err := waiter.check(ctx, client); err != nil {
		return err
	}
	var paths []string
	_, err = listEntries(ctx, client, prefix, false, func(e *apiv1.Entry) error {
		paths = append(paths, e.GetPath())
		return nil
	})
	switch {
	case err != nil:
		return err
	case len(paths) == 0 && f.force:
		return nil
	case len(paths) == 0:
		return failf(exitNotFound, string(agent.CodeNotFound), "nothing at or below %s", prefix)
	case f.dryRun:
		for _, p := range paths {
			fmt.Fprintln(c.stdout, p)
		}
		return nil
	}
	if err := c.confirm(f.yes, fmt.Sprintf("delete %d paths at and below %s", len(paths), prefix)); err != nil {
		return err
	}
	return c.removeAll(ctx, client, paths, waiter)
}

// removeAll deletes paths. What somebody else deleted meanwhile is no error.
func (c *cli) removeAll(ctx context.Context, client *agent.Client, paths []string, waiter *waiter) error {
	batch := changer{cli: c, client: client, keep: waiter != nil}
	batch.sent = func(w *apiv1.WriteResponse) {
		c.printWrite(w, fmt.Sprintf("%d of %d paths deleted", batch.written, len(paths)))
	}
	var err error
	for _, p := range paths {
		if err = batch.add(ctx, p, 0, deleteOp(p)); err != nil {
			break
		}
	}
	if err == nil {
		err = batch.flush(ctx)
	}
	if err != nil {
		return batch.failure(err, "deleted")
	}
	return waiter.await(ctx, client, batch.writes...)
}

func deleteOp(path string) *apiv1.Op {
	return &apiv1.Op{Op: &apiv1.Op_Delete{Delete: &apiv1.DeleteRequest{Path: path, AllowMissing: true}}}
}

// confirm asks on a terminal. Elsewhere nobody can answer, so the user must have said yes before.
func (c *cli) confirm(yes bool, question string) error {
	if yes {
		return nil
	}
	if !c.stdin.terminal() {
		return usagef("will not %s without being asked", question).withHint("add -y; -n shows what would be deleted")
	}
	fmt.Fprintf(c.stderr, "%s? [y/N] ", question)
	answer, err := bufio.NewReader(c.stdin).ReadString('\n')
	if err != nil {
		return errors.Join(failf(exitError, "refused", "no answer"), err)
	}
	if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
		return failf(exitError, "refused", "not confirmed, nothing changed")
	}
	return nil
}

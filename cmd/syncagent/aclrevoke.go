package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"syncagent/acl"
	"syncagent/agent"
	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore/record"
)

const revokeHelp = `Revoke a key that is in wrong hands, for ever: it loses all rights, and everything it
ever wrote is void, on every agent and whoever passes it on. Paths fall back to what
others wrote before. Connections of the key are closed at once. The name is free for a
new key: ` + "`syncagent join`" + ` on the host after its identity.key is gone, then acl admit.

--since T lists what the key wrote since then and revokes nothing; T is a duration
such as 7d or a time such as 2026-11-01T00:00:00Z. Look at the values, keep the good
lines in a file, and give that file to --keep. Times are the key's own words: whoever
has it could date a write back.

On a terminal revoke asks first; elsewhere it revokes at once.`

func (c *cli) aclRevokeCmd() *cobra.Command {
	var f revokeFlags
	cmd := &cobra.Command{
		Use:   "revoke KEY|NAME",
		Short: "Revoke a key: all that it wrote is void, except versions to keep",
		Long:  revokeHelp,
		Args:  args(1, "KEY"),
		RunE: func(cmd *cobra.Command, words []string) error {
			if f.since != "" {
				return c.listWritten(cmd.Context(), words[0], f.since)
			}
			return c.revoke(cmd.Context(), words[0], f)
		},
	}
	cmd.Flags().StringVar(&f.since, "since", "", "list what the key wrote since `T`, and revoke nothing")
	cmd.Flags().StringVar(&f.keepFile, "keep", "", "keep the versions that `FILE` lists, one a line")
	cmd.Flags().BoolVarP(&f.yes, "yes", "y", false, "do not ask")
	cmd.Flags().StringVar(&f.keyFile, "admin-key", "", "sign with the key in `FILE`")
	exclusive(cmd, "since", "keep")
	return cmd
}

type revokeFlags struct {
	since, keepFile, keyFile string
	yes                      bool
}

func (c *cli) revoke(ctx context.Context, who string, f revokeFlags) error {
	var keeps []acl.Keep
	if f.keepFile != "" {
		list, err := readFile("list of versions", f.keepFile, maxKeepFile)
		if err != nil {
			return err
		}
		if keeps, err = acl.ParseKeeps(list); err != nil {
			return usagef("%s: %v", f.keepFile, err).withHint("`syncagent acl revoke KEY --since T` prints such a list")
		}
	}
	cfg, err := c.loadNetworkConfig()
	if err != nil {
		return err
	}
	if c.stdin.terminal() { // before any deadline runs
		if err := c.confirm(f.yes, fmt.Sprintf("revoke %s, and void everything it wrote but %d versions", who, len(keeps))); err != nil {
			return err
		}
	}
	// What a revocation takes away is meant.
	err = c.applyPolicy(ctx, f.keyFile, lossFlags{drop: true}, func(b base) ([]byte, error) {
		if b.now == nil {
			return nil, errNoPolicy()
		}
		key, err := b.now.File.Find(who)
		if err != nil {
			return nil, usagef("%v", err).withHint("`syncagent acl show` lists the identities; a peer ID does as well")
		}
		if slices.Contains(cfg.Admins, key.String()) && b.now.File.AliasOf(key) == "" {
			return nil, usagef("%s is an admin key: no policy takes it back", key).
				withHint("remove it from admins in the configuration of every host")
		}
		return c.revokeText(b, key, keeps)
	})
	if err == nil {
		c.note("%s is revoked; change the secrets that it could read, whoever has the key knows them", who)
	}
	return err
}

// maxKeepFile bounds a list of versions, in bytes: as many as a policy can keep, with long paths beside them.
const maxKeepFile = 16 << 20

// revokeText makes the text that revokes a key. Nil: the text in force says it all already.
func (c *cli) revokeText(b base, key record.PublicKey, keeps []acl.Keep) ([]byte, error) {
	text, err := acl.Revoke(b.now.Text, key, keeps)
	if errors.Is(err, acl.ErrTooManyKeeps) {
		return nil, tooManyKeeps(err)
	}
	if err != nil {
		return nil, err
	}
	if string(text) == string(b.now.Text) {
		return nil, nil
	}
	file, err := acl.Parse(text)
	if err != nil {
		return nil, err
	}
	// A revocation does not wait for tests to be put right.
	for _, f := range acl.CompileFile(b.network, file).RunTests() {
		c.note("warning: a test does not hold any more: %s", f)
	}
	return text, nil
}

// listWritten prints what a key wrote, in the form that --keep reads.
func (c *cli) listWritten(ctx context.Context, who, since string) error {
	after, err := parseSince(since, time.Now())
	if err != nil {
		return err
	}
	client, err := c.dial()
	if err != nil {
		return err
	}
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	now, err := mustShowPolicy(ctx, client)
	if err != nil {
		return err
	}
	key, err := now.File.Find(who)
	if err != nil {
		return usagef("%v", err)
	}
	entries, err := writtenBy(ctx, client, key, after)
	if err != nil {
		return err
	}
	for _, e := range entries {
		c.printWritten(e)
	}
	c.note("%d versions of %s; nothing is revoked yet", len(entries), key)
	return nil
}

// writtenBy gives what a key wrote, by path and then newest first.
func writtenBy(ctx context.Context, client *agent.Client, key record.PublicKey, since time.Time) ([]*apiv1.WrittenEntry, error) {
	stream, err := client.Policy.Written(ctx, connect.NewRequest(&apiv1.WrittenRequest{Author: key.String(), Since: timestamppb.New(since)}))
	if err != nil {
		return nil, err
	}
	defer stream.Close() //nolint:errcheck // its error is stream.Err
	var entries []*apiv1.WrittenEntry
	for stream.Receive() {
		entries = append(entries, stream.Msg().GetEntries()...)
	}
	slices.SortStableFunc(entries, func(a, b *apiv1.WrittenEntry) int {
		return cmp.Compare(a.GetEntry().GetPath(), b.GetEntry().GetPath())
	})
	return entries, stream.Err()
}

func (c *cli) printWritten(w *apiv1.WrittenEntry) {
	e := w.GetEntry()
	if c.json() {
		printJSON(c.stdout, struct {
			agent.EntryJSON
			Shown bool `json:"shown"`
		}{agent.NewEntryJSON(e), w.GetShown()})
		return
	}
	path, state := e.GetPath(), "superseded"
	if path == "" {
		path = "(hidden)"
	}
	switch {
	case e.GetDeleted():
		state = "delete"
	case w.GetShown():
		state = "shown"
	}
	fmt.Fprintf(c.stdout, "%s  %s  %s  %s\n", e.GetVersion(), timeOf(e.GetHlc()), state, path)
}

// parseSince reads a time, or a duration before now.
func parseSince(s string, now time.Time) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	d, err := agent.ParseDuration(s)
	if err != nil || d < 0 {
		return time.Time{}, usagef("--since %s: want a time such as 2026-11-01T00:00:00Z, or a duration such as 7d", s)
	}
	return now.Add(-d), nil
}

func (c *cli) aclRetireCmd() *cobra.Command {
	var keyFile, at string
	var loss lossFlags
	cmd := &cobra.Command{
		Use:   "retire KEY|NAME",
		Short: "Retire a key that is known to be destroyed: no rights any more, what it wrote stays",
		Long: "Retire a key that is known to be destroyed, such as that of a host that was wiped: it has\n" +
			"no rights any more, and what it wrote up to then stays as it is. If somebody may still\n" +
			"have the key, revoke it: whoever has it could date a write back.",
		Args: args(1, "KEY"),
		RunE: func(cmd *cobra.Command, words []string) error {
			until := time.Now()
			if at != "" {
				var err error
				if until, err = time.Parse(time.RFC3339, at); err != nil {
					return usagef("--at %s: want a time such as 2026-11-01T00:00:00Z", at)
				}
			}
			return c.applyPolicy(cmd.Context(), keyFile, loss, func(b base) ([]byte, error) {
				if b.now == nil {
					return nil, errNoPolicy()
				}
				key, err := b.now.File.Find(words[0])
				if err != nil {
					return nil, usagef("%v", err).withHint("`syncagent acl show` lists the identities; a peer ID does as well")
				}
				text, err := acl.Retire(b.now.Text, key, until.Add(time.Second)) // the text has whole seconds
				if err != nil {
					return nil, usagef("%v", err)
				}
				return text, nil
			})
		},
	}
	cmd.Flags().StringVar(&at, "at", "", "count what it wrote up to the time `T` (default: now)")
	cmd.Flags().StringVar(&keyFile, "admin-key", "", "sign with the key in `FILE`")
	loss.add(cmd)
	return cmd
}

func (c *cli) aclImportCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "import-replds FILE",
		Short: "Print a policy text made of an access list of replds, and say what it needs in addition",
		Args:  args(1, "FILE"),
		RunE: func(_ *cobra.Command, words []string) error {
			list, err := readFile("list", words[0], maxPolicyFile)
			if err != nil {
				return err
			}
			text, needs, err := acl.ImportReplds(list)
			if err != nil {
				return failf(exitUsage, string(agent.CodeBadPolicy), "%s: %w", words[0], err)
			}
			for _, n := range needs {
				c.note("it needs %s", n)
			}
			_, err = c.stdout.Write(text)
			return err
		},
	}
}

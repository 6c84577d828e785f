package main

import (
	"fmt"
	"strconv"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"syncagent/agent"
	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore/record"
)

const historyHelp = `Show the versions of a path that this agent knows, newest first: the one it shows,
those before it, and those that lost against another host's write.

Superseded values are held for seven days or what store.history says; older versions
are listed as "dropped". syncagent restore PATH VERSION writes an earlier value anew.`

const restoreHelp = `Write the value and mode of an earlier version again, as syncagent history lists it.

It is a write like any other: it gets a new version and needs the right to write. An
expiry is not taken over. With --if-version nothing is written when this agent shows
another version by now.`

// versionJSON is a line of history.
type versionJSON struct {
	agent.EntryJSON
	Dropped bool `json:"dropped,omitempty"`
}

func (c *cli) historyCmd() *cobra.Command {
	limit := 100
	var values bool
	cmd := &cobra.Command{
		Use:               "history PATH",
		Short:             "Show the known versions of a path",
		Long:              historyHelp,
		Args:              args(1, "PATH"),
		ValidArgsFunction: c.completePaths(1),
		RunE: func(cmd *cobra.Command, words []string) error {
			if err := record.CheckPath(words[0]); err != nil {
				return err
			}
			if limit < 1 || limit > 1000 {
				return usagef("--limit %d: want 1 to 1000", limit)
			}
			client, err := c.dial()
			if err != nil {
				return err
			}
			ctx, cancel := c.bounded(cmd.Context())
			defer cancel()
			r, err := client.KV.History(ctx, connect.NewRequest(&apiv1.HistoryRequest{Path: words[0], Limit: int32(limit), Values: values && c.json()}))
			if err != nil {
				return err
			}
			c.printHistory(r.Msg)
			return nil
		},
	}
	cmd.Flags().IntVarP(&limit, "limit", "n", limit, "at most `N` versions, up to 1000")
	cmd.Flags().BoolVar(&values, "values", false, "with -o json: values as well, in value_base64")
	return cmd
}

func (c *cli) printHistory(r *apiv1.HistoryResponse) {
	if c.json() {
		for _, e := range r.GetEntries() {
			printJSON(c.stdout, versionJSON{agent.NewEntryJSON(e), e.GetDropped()})
		}
	} else {
		var rows [][]string
		for _, e := range r.GetEntries() {
			rows = append(rows, []string{timeOf(e.GetHlc()), authorOf(e), contentOf(e), e.GetVersion()})
		}
		table(c.stdout, []string{"WRITTEN", "AUTHOR", "BYTES", "VERSION"}, rows)
	}
	if r.GetMore() {
		c.note("there are older versions: --limit shows more")
	}
}

// contentOf says in a word what a version is.
func contentOf(e *apiv1.Entry) string {
	switch {
	case e.GetDropped():
		return "dropped"
	case e.GetDeleted():
		return "deleted"
	}
	return strconv.FormatInt(e.GetSize(), 10)
}

func (c *cli) restoreCmd() *cobra.Command {
	var ifVersion string
	cmd := &cobra.Command{
		Use:               "restore PATH VERSION",
		Short:             "Write an earlier version of a path again",
		Long:              restoreHelp,
		Args:              args(2, "PATH", "VERSION"),
		ValidArgsFunction: c.completePaths(1),
		RunE: func(cmd *cobra.Command, words []string) error {
			if err := record.CheckPath(words[0]); err != nil {
				return err
			}
			if _, _, err := record.ParseVersion(words[1]); err != nil {
				return usagef("%v", err)
			}
			client, err := c.dial()
			if err != nil {
				return err
			}
			ctx, cancel := c.bounded(cmd.Context())
			defer cancel()
			w, err := client.KV.Restore(ctx, connect.NewRequest(&apiv1.RestoreRequest{Path: words[0], Version: words[1], IfVersion: ifVersion}))
			if err != nil {
				return err
			}
			c.printWrite(w.Msg, fmt.Sprintf("%s restored", words[0]))
			return nil
		},
	}
	cmd.Flags().StringVar(&ifVersion, "if-version", "", "write only if this agent shows version `V` now")
	return cmd
}

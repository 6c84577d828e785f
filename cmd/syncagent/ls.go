package main

import (
	"bufio"
	"fmt"
	"strconv"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"syncagent/agent"
	apiv1 "syncagent/agent/api/v1"
)

func (c *cli) lsCmd() *cobra.Command {
	var long, values bool
	var index string
	cmd := &cobra.Command{
		Use:   "ls [PREFIX]",
		Short: "List the paths at and below a prefix, sorted",
		Long: "List every path at and below PREFIX (default /), sorted, one a line. The list is one\nstate of the store: a write is in it as a whole or not at all.\n\n" +
			"--index lists what an index of this agent's configuration has under a value, such as\nthe services whose JSON says meta.owner: ann.",
		Example:           "  syncagent ls /services -l\n  syncagent ls --index owner=ann",
		Args:              args(1),
		ValidArgsFunction: c.completePaths(1),
		RunE: func(cmd *cobra.Command, words []string) error {
			prefix, err := prefixOf(words)
			if err != nil {
				return err
			}
			r := &apiv1.ListRequest{Prefix: prefix, Values: values}
			if cmd.Flags().Changed("index") {
				var ok bool
				if r.Index, r.IndexValue, ok = strings.Cut(index, "="); !ok || r.Index == "" {
					return usagef("--index %q: want NAME=VALUE", index).withHint("the agent's configuration names its indexes under indexes")
				}
			}
			client, err := c.dial()
			if err != nil {
				return err
			}
			ctx, cancel := c.streaming(cmd.Context())
			defer cancel()
			out := bufio.NewWriter(c.stdout)
			var rows [][]string
			_, err = listRequested(ctx, client, r, func(e *apiv1.Entry) error {
				switch {
				case c.json():
					printJSON(out, agent.NewEntryJSON(e))
				case long:
					rows = append(rows, longRow(e))
				default:
					fmt.Fprintln(out, e.GetPath())
				}
				return nil
			})
			if long && !c.json() && len(rows) > 0 {
				table(out, []string{"MODE", "SIZE", "MODIFIED", "WRITER", "PATH"}, rows)
			}
			_ = out.Flush() // stdout keeps its error
			return err
		},
	}
	cmd.Flags().BoolVarP(&long, "long", "l", false, "mode, size, time and writer as well")
	cmd.Flags().StringVar(&index, "index", "", "only what the agent's index has: `NAME=VALUE`")
	cmd.Flags().BoolVar(&values, "values", false, "with -o json: values as well, in value_base64")
	return cmd
}

func longRow(e *apiv1.Entry) []string {
	mode := "-"
	if e.Mode != nil {
		mode = fmt.Sprintf("%04o", e.GetMode())
	}
	return []string{mode, strconv.FormatInt(e.GetSize(), 10), timeOf(e.GetHlc()), authorOf(e), e.GetPath()}
}

func (c *cli) countCmd() *cobra.Command {
	return &cobra.Command{
		Use:               "count [PREFIX]",
		Short:             "Print the number of paths at and below a prefix",
		Args:              args(1),
		ValidArgsFunction: c.completePaths(1),
		RunE: func(cmd *cobra.Command, words []string) error {
			prefix, err := prefixOf(words)
			if err != nil {
				return err
			}
			client, err := c.dial()
			if err != nil {
				return err
			}
			ctx, cancel := c.bounded(cmd.Context())
			defer cancel()
			r, err := client.KV.Count(ctx, connect.NewRequest(&apiv1.CountRequest{Prefix: prefix}))
			if err != nil {
				return err
			}
			if c.json() {
				printJSON(c.stdout, map[string]any{"prefix": prefix, "count": r.Msg.GetCount()})
			} else {
				fmt.Fprintln(c.stdout, r.Msg.GetCount())
			}
			return nil
		},
	}
}

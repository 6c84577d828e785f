package main

import (
	"context"
	"io"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"syncagent/agent"
	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore/record"
)

func (c *cli) getCmd() *cobra.Command {
	return &cobra.Command{
		Use:               "get PATH",
		Short:             "Print the value of a path, byte for byte",
		Long:              "Print the value of a path, byte for byte, nothing added. With -o json: one line with\nall that is known of the entry, the value in value_base64.",
		Args:              args(1, "PATH"),
		Annotations:       map[string]string{"formats": "raw"},
		ValidArgsFunction: c.completePaths(1),
		RunE: func(cmd *cobra.Command, words []string) error {
			if err := record.CheckPath(words[0]); err != nil {
				return err
			}
			client, err := c.dial()
			if err != nil {
				return err
			}
			ctx, cancel := c.bounded(cmd.Context())
			defer cancel()
			r, err := client.KV.Get(ctx, connect.NewRequest(&apiv1.GetRequest{Path: words[0]}))
			if e := agent.ErrorOf(err); e != nil && e.Code == agent.CodeTooLarge {
				return c.getLarge(cmd.Context(), client, words[0])
			}
			if err != nil {
				return orBelow(ctx, client, words[0], err, "syncagent ls")
			}
			e := r.Msg.GetEntry()
			if c.json() {
				if e.Value == nil {
					e.Value = []byte{} // an empty value is a value too
				}
				printJSON(c.stdout, agent.NewEntryJSON(e))
				return nil
			}
			_, err = c.stdout.Write(e.GetValue())
			return err
		},
	}
}

// getLarge prints a value that is too large for one answer, as it comes.
func (c *cli) getLarge(ctx context.Context, client *agent.Client, path string) error {
	ctx, cancel := c.streaming(ctx)
	defer cancel()
	e, content, err := client.Download(ctx, path, "")
	if err != nil {
		return err
	}
	defer content.Close() //nolint:errcheck // read only
	if !c.json() {
		_, err = io.Copy(c.stdout, content)
		return err
	}
	if e.Value, err = io.ReadAll(content); err != nil {
		return err
	}
	e.Large = false // here it is
	printJSON(c.stdout, agent.NewEntryJSON(e))
	return nil
}

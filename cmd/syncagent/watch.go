package main

import (
	"context"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"syncagent/agent"
	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore/record"
)

const watchHelp = `Print the present state at and below the prefixes, then "synced", then every change as
it becomes visible on this agent. Ends when interrupted.

With -o json each line carries a cursor. watch --since CURSOR goes on after that line
and misses nothing; when the cursor is too old or of another agent, the first line is
"reset" and the present state follows. "more":true says that further lines of the same
write follow.

With several agents, --server A,B,..., it goes on with the next when one is lost: what
differs there is printed as one write, and nothing is missed.`

func (c *cli) watchCmd() *cobra.Command {
	var since string
	var values bool
	cmd := &cobra.Command{
		Use:               "watch PREFIX...",
		Short:             "Print changes as they happen",
		Long:              watchHelp,
		Args:              args(-1, "PREFIX"),
		ValidArgsFunction: c.completePaths(16),
		RunE: func(cmd *cobra.Command, words []string) error {
			r := &apiv1.WatchRequest{Since: since, Values: values}
			for _, w := range words {
				prefix, err := record.CleanPrefix(w)
				if err != nil {
					return err
				}
				r.Prefixes = append(r.Prefixes, prefix)
			}
			return c.watch(cmd.Context(), r)
		},
	}
	cmd.Flags().StringVar(&since, "since", "", "go on after the line with this `CURSOR`")
	cmd.Flags().BoolVar(&values, "values", false, "with -o json: values as well, in value_base64")
	return cmd
}

func (c *cli) watch(ctx context.Context, r *apiv1.WatchRequest) error {
	client, err := c.dial()
	if err != nil {
		return err
	}
	ctx, cancel := c.streaming(ctx)
	defer cancel()
	if client.Agents() > 1 {
		return client.Follow(ctx, r, func(e *apiv1.Event) error {
			c.printEvent(e)
			return c.stdout.err
		})
	}
	stream, err := client.KV.Watch(ctx, connect.NewRequest(r))
	if err != nil {
		return err
	}
	defer stream.Close() //nolint:errcheck // its error is stream.Err
	for stream.Receive() {
		for _, e := range stream.Msg().GetEvents() {
			c.printEvent(e)
		}
		if c.stdout.err != nil {
			return nil // run tells it
		}
	}
	if err := stream.Err(); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return failf(exitUnreachable, "unreachable", "the agent ended the watch").
		withHint("start it again with --since and the last cursor; nothing is missed")
}

func (c *cli) printEvent(e *apiv1.Event) {
	entry := e.GetEntry()
	if c.json() {
		printJSON(c.stdout, agent.NewEventJSON(e))
		return
	}
	when := time.Now().UTC().Format(time.RFC3339)
	if entry.GetHlc() != "" {
		when = timeOf(entry.GetHlc())
	}
	name := agent.EventName(e.GetType())
	switch e.GetType() {
	case apiv1.EventType_EVENT_TYPE_PUT:
		fmt.Fprintf(c.stdout, "%s %-6s %s  %d bytes  %s\n", when, name, entry.GetPath(), entry.GetSize(), authorOf(entry))
	case apiv1.EventType_EVENT_TYPE_DELETE:
		fmt.Fprintf(c.stdout, "%s %-6s %s  %s\n", when, name, entry.GetPath(), authorOf(entry))
	default:
		fmt.Fprintf(c.stdout, "%s %s\n", when, name)
	}
}

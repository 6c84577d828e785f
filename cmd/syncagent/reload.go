package main

import (
	"fmt"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	apiv1 "syncagent/agent/api/v1"
)

const reloadHelp = `Have the agent read its configuration again.

bootstrap, indexes, limits, local_rules, log.level, log.levels, log.requests, mirrors with
their trigger files, triggers, and the files of api.tls and api.token_file change at once;
what else changed is named and waits for a restart. A file with a fault changes nothing,
and stays an alarm until a reload works.`

func (c *cli) reloadCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "reload",
		Short: "Have the agent read its configuration again",
		Long:  reloadHelp,
		Args:  args(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := c.dial()
			if err != nil {
				return err
			}
			ctx, cancel := c.bounded(cmd.Context())
			defer cancel()
			r, err := client.Agent.Reload(ctx, connect.NewRequest(&apiv1.ReloadRequest{}))
			if err != nil {
				return err
			}
			applied, waiting := r.Msg.GetApplied(), r.Msg.GetWaiting()
			if c.json() {
				printJSON(c.stdout, map[string][]string{"applied": append([]string{}, applied...), "waiting": append([]string{}, waiting...)})
				return nil
			}
			for _, key := range applied {
				fmt.Fprintf(c.stdout, "%s: in force\n", key)
			}
			for _, key := range waiting {
				fmt.Fprintf(c.stdout, "%s: waits for a restart\n", key)
			}
			if len(applied)+len(waiting) == 0 {
				c.note("nothing has changed")
			}
			return nil
		},
	}
}

package main

import (
	"context"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"syncagent/agent"
	apiv1 "syncagent/agent/api/v1"
)

// waitAll stands for all members that may read the path.
const waitAll = -1

// waitTime is how long is waited when --timeout says nothing.
const waitTime = 10 * time.Second

func waitFlag(cmd *cobra.Command, replicas *string) {
	cmd.Flags().StringVar(replicas, "wait", "", "wait until `N|all` agents have it on disk, this one among them; exit code 7 if not within --timeout (10s)")
}

// parseReplicas reads what --wait was given; 0: do not wait.
func parseReplicas(s string) (int, error) {
	switch s {
	case "":
		return 0, nil
	case "all":
		return waitAll, nil
	}
	n, err := strconv.ParseInt(s, 10, 16)
	if err != nil || n < 1 {
		return 0, usagef("--wait %q: want a number of agents, this one among them, or all", s)
	}
	return int(n), nil
}

// await returns when as many agents have a write as until says.
func (c *cli) await(ctx context.Context, client *agent.Client, until int, path, version string) error {
	if until == 0 {
		return nil
	}
	timeout := c.timeout
	if timeout == 0 {
		timeout = waitTime
	}
	ctx, cancel := context.WithTimeout(ctx, timeout+5*time.Second) // the agent's answer says who lacks it
	defer cancel()
	r, err := client.KV.Wait(ctx, connect.NewRequest(&apiv1.WaitRequest{
		Path: path, Version: version, Agents: int32(max(until, 0)), Timeout: durationpb.New(timeout),
	}))
	if e := agent.ErrorOf(err); e != nil {
		if ctx.Err() != nil {
			return err
		}
		return failf(exitReplicas, "replicas", "stored on this agent; not known of others: %w", e).withHint("%s", e.Hint)
	}
	if r.Msg.GetDone() {
		return nil
	}
	return failf(exitReplicas, "replicas", "stored, but not by as many agents as asked for: %s have it, not known of %s",
		strings.Join(r.Msg.GetStored(), ", "), strings.Join(r.Msg.GetLacking(), ", ")).
		withHint("it reaches them by itself when they can be reached; syncagent peers shows who is away")
}

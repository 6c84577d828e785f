package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"syncagent/agent"
	apiv1 "syncagent/agent/api/v1"
)

const (
	waitTime  = 10 * time.Second // how long is waited when --timeout says nothing
	waitSlack = 5 * time.Second  // beyond it, for the agent's answer: it says who lacks the write
)

const waitHelp = `

--wait returns when N agents have the write, this one among them, or all members that may
read it, or the named hosts (by alias, name or the end of their ID, with commas between).
--for says what that means: stored on their disks (the default), mirrored into their
directories, or triggered: the commands after that have run without an error. Agents that
mirror none of the paths have nothing to do and do not count. Exit code 7, and a list of
who is how far, if it does not come about within --timeout (10s) or a command fails.`

// waitFlags are the flags of commands that can wait for other agents.
type waitFlags struct{ who, stage string }

func (f *waitFlags) add(cmd *cobra.Command) {
	cmd.Long += waitHelp
	cmd.Flags().StringVar(&f.who, "wait", "", "wait until `N|all|HOST,...` have it; exit code 7 if not within --timeout (10s)")
	cmd.Flags().StringVar(&f.stage, "for", "", "what to wait for: `stored`, mirrored or triggered")
	_ = cmd.RegisterFlagCompletionFunc("for", cobra.FixedCompletions([]string{"stored", "mirrored", "triggered"}, cobra.ShellCompDirectiveNoFileComp))
}

// waiter waits for other agents.
type waiter struct {
	cli    *cli
	agents int      // 0: all, or hosts
	hosts  []string // as the user called them, then peer IDs
	stage  apiv1.Stage
}

// parse reads the flags; nil: do not wait.
func (f *waitFlags) parse(c *cli) (*waiter, error) {
	w := &waiter{cli: c}
	switch f.stage {
	case "", "stored":
		w.stage = apiv1.Stage_STAGE_STORED
	case "mirrored":
		w.stage = apiv1.Stage_STAGE_MIRRORED
	case "triggered":
		w.stage = apiv1.Stage_STAGE_TRIGGERED
	default:
		return nil, usagef("--for %q: want stored, mirrored or triggered", f.stage)
	}
	n, err := strconv.ParseInt(f.who, 10, 16)
	switch {
	case f.who == "" && f.stage != "":
		return nil, usagef("--for goes with --wait").withHint("--wait all waits for all that may read it")
	case f.who == "":
		return nil, nil
	case f.who == "all":
	case err == nil && n >= 1:
		w.agents = int(n)
	case err == nil || strings.Trim(f.who, "-0123456789") == "":
		return nil, usagef("--wait %q: want a number of agents, this one among them, all, or names of hosts", f.who)
	default:
		w.hosts = strings.Split(f.who, ",")
		if slices.Contains(w.hosts, "") {
			return nil, usagef("--wait %q: the name of a host is missing", f.who)
		}
	}
	return w, nil
}

// check finds the hosts that the user named, before anything is written.
func (w *waiter) check(ctx context.Context, client *agent.Client) error {
	if w == nil || len(w.hosts) == 0 {
		return nil
	}
	ctx, cancel := w.cli.bounded(ctx)
	defer cancel()
	r, err := client.Agent.Status(ctx, connect.NewRequest(&apiv1.StatusRequest{}))
	if err != nil {
		return err
	}
	self := &apiv1.Peer{PeerId: r.Msg.GetPeerId(), Name: r.Msg.GetName()}
	for i, host := range w.hosts {
		p, err := findPeer(append(r.Msg.GetPeers(), self), host)
		if err != nil {
			f := classify(ctx, err)
			return usagef("--wait: %s; nothing was written", f.message).withHint("%s", f.hint)
		}
		w.hosts[i] = p.GetPeerId()
	}
	return nil
}

// write is what one atomic write changed.
type write struct {
	version string
	paths   []string
}

// writeOf gives the write that ops became.
func writeOf(w *apiv1.WriteResponse, ops []*apiv1.Op) write {
	out := write{version: w.GetVersion()}
	for _, op := range ops {
		if d := op.GetDelete(); d != nil {
			out.paths = append(out.paths, d.GetPath())
		} else {
			out.paths = append(out.paths, op.GetPut().GetPath())
		}
	}
	return out
}

// await returns when the agents have what was asked for, of all writes.
func (w *waiter) await(ctx context.Context, client *agent.Client, writes ...write) error {
	if w == nil {
		return nil
	}
	timeout := w.cli.timeout
	if timeout == 0 {
		timeout = waitTime
	}
	deadline := time.Now().Add(timeout)
	for n, one := range writes {
		r, err := w.ask(ctx, client, one, max(time.Until(deadline), time.Millisecond))
		if err != nil {
			return err
		}
		if r.GetDone() {
			continue
		}
		what := ""
		if len(writes) > 1 {
			what = fmt.Sprintf("write %d of %d: ", n+1, len(writes))
		}
		return w.failure(r, what)
	}
	return nil
}

func (w *waiter) ask(ctx context.Context, client *agent.Client, one write, timeout time.Duration) (*apiv1.WaitResponse, error) {
	limited, cancel := context.WithTimeout(ctx, timeout+waitSlack)
	defer cancel()
	r, err := client.KV.Wait(limited, connect.NewRequest(&apiv1.WaitRequest{
		Paths: one.paths, Version: one.version, Agents: int32(w.agents), Hosts: w.hosts, Stage: w.stage, Timeout: durationpb.New(timeout),
	}))
	if e := agent.ErrorOf(err); e != nil {
		if ctx.Err() != nil {
			return nil, err // interrupted
		}
		return nil, failf(exitReplicas, "replicas", "stored on this agent; not known of others: %w", e).withHint("%s", e.Hint)
	}
	return r.Msg, nil
}

// failure tells who is how far.
func (w *waiter) failure(r *apiv1.WaitResponse, what string) error {
	if !w.cli.json() {
		printHosts(w.cli.stderr, r.GetHosts(), false)
	}
	var lacking, failed []string
	unmirrored := w.stage > apiv1.Stage_STAGE_STORED
	for _, h := range r.GetHosts() {
		switch {
		case h.GetStage() >= w.stage, h.GetUnmirrored() && h.GetStage() > 0:
		case h.GetStage() > 0 && h.GetError() != "":
			failed = append(failed, h.GetName())
		default:
			lacking = append(lacking, h.GetName())
		}
		unmirrored = unmirrored && h.GetUnmirrored()
	}
	word := "stored, but " + what + "not " + stageWord(w.stage)
	if w.stage == apiv1.Stage_STAGE_STORED {
		word = "stored here, but " + what + "not"
	}
	f := failf(exitReplicas, "replicas", "%s everywhere it was asked for", word).
		withHint("it reaches the others by itself when they can be reached; syncagent peers shows who is away, syncagent rollout PATH how it goes on")
	if len(failed) > 0 {
		f.message += ": failed on " + strings.Join(failed, ", ")
		f.hint = "syncagent status on the host shows what the command printed; syncagent rollout PATH how it goes on"
	}
	if len(lacking) > 0 {
		f.message += ": not known of " + strings.Join(lacking, ", ")
	}
	if unmirrored {
		f.message += ": none of the agents has a mirror for it"
		f.hint = "mirrors of the agents' configurations count, those of the mirror command do not"
	}
	f.hosts = hostsJSON(r.GetHosts())
	return f
}

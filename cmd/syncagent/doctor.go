package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"syncagent/agent"
	apiv1 "syncagent/agent/api/v1"
)

const doctorHelp = `Check what commonly goes wrong: the configuration, keys and their modes, the agent and
its alarms, the disk, each bootstrap address over TCP or UDP, clocks, the policy, mirrors
and triggers. Nothing is changed. Each finding that is not ok says what to do.

--reset-clock is the cure after this host's clock ran ahead and was mended: agent time,
which never goes back by itself, is set to the clock. What was written ahead of time is
hidden until it is due, so versions of such paths go back here.

--scrub has the next start of the agent rewrite its store, so that no byte is left on the
disk of what was deleted, or withdrawn from this host. It needs as much free disk again.

--bundle writes what somebody who helps you needs to FILE, a .tar.gz: settings, findings,
status, metrics and what the agent is doing. No value, key, policy text or command is in
it; names of hosts and paths are, and the last line that a failing command printed.

Exit code 1 if something failed; warnings alone are 0.`

func (c *cli) doctorCmd() *cobra.Command {
	var scrub, resetClock bool
	var bundle string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check configuration, agent, network and clocks",
		Long:  doctorHelp,
		Args:  args(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if scrub && resetClock {
				return usagef("--scrub and --reset-clock are two things; ask for one")
			}
			ctx, cancel := c.bounded(cmd.Context())
			defer cancel()
			cfg, err := c.loadConfig(c.overrides())
			if err != nil {
				f := classify(ctx, err)
				return c.report([]agent.Finding{{Check: "config", Severity: agent.SeverityFail, Message: f.message, Hint: f.hint}})
			}
			client, err := c.dial()
			if err != nil {
				return err
			}
			switch {
			case resetClock:
				return c.resetClock(ctx, client)
			case scrub:
				return c.scrub(ctx, client)
			case bundle != "":
				return c.bundle(ctx, bundle, cfg, client)
			}
			findings := agent.Diagnose(ctx, cfg, client, readBuildInfo().Version)
			if err := cmd.Context().Err(); err != nil {
				return err // interrupted: what was found says nothing
			}
			return c.report(findings)
		},
	}
	cmd.Flags().StringVar(&bundle, "bundle", "", "write all that is known of this agent to `FILE`, to be sent to who helps")
	cmd.Flags().BoolVar(&scrub, "scrub", false, "have the next start rewrite the store, to leave no deleted byte in it")
	cmd.Flags().BoolVar(&resetClock, "reset-clock", false, "set agent time back to this host's clock")
	return cmd
}

func (c *cli) resetClock(ctx context.Context, client *agent.Client) error {
	r, err := client.Agent.ResetClock(ctx, connect.NewRequest(&apiv1.ResetClockRequest{}))
	if err != nil {
		return err
	}
	back := time.Duration(r.Msg.GetBackS() * float64(time.Second))
	switch {
	case c.json():
		printJSON(c.stdout, map[string]any{"back_s": r.Msg.GetBackS()})
	case back == 0:
		fmt.Fprintln(c.stdout, "agent time is not ahead of this host's clock; nothing is changed")
	default:
		fmt.Fprintf(c.stdout, "agent time is set back by %s; what was written ahead of time is hidden until it is due\n", back.Round(time.Second))
	}
	return nil
}

func (c *cli) scrub(ctx context.Context, client *agent.Client) error {
	if _, err := client.Agent.Scrub(ctx, connect.NewRequest(&apiv1.ScrubRequest{})); err != nil {
		return err
	}
	if c.json() {
		printJSON(c.stdout, map[string]any{"scrub": "next start"})
		return nil
	}
	fmt.Fprintln(c.stdout, "the store will be rewritten when the agent starts the next time: restart it")
	return nil
}

// report prints findings, and fails if one of them is a failure.
func (c *cli) report(findings []agent.Finding) error {
	failed := 0
	for _, f := range findings {
		if f.Severity == agent.SeverityFail {
			failed++
		}
		if c.json() {
			printJSON(c.stdout, f)
			continue
		}
		if c.quiet && f.Severity == agent.SeverityOK {
			continue
		}
		word := string(f.Severity)
		if f.Severity == agent.SeverityFail {
			word = "FAIL"
		}
		fmt.Fprintf(c.stdout, "%-5s %-10s %s\n", word, f.Check, strings.ReplaceAll(f.Message, "\n", "\n                 "))
		if f.Hint != "" {
			fmt.Fprintf(c.stdout, "                 %s\n", f.Hint)
		}
	}
	if failed > 0 {
		return failf(exitError, "doctor", "%d of %d checks failed", failed, len(findings))
	}
	return nil
}

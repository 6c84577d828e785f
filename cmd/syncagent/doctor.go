package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"syncagent/agent"
)

const doctorHelp = `Check what commonly goes wrong: the configuration, keys and their modes, the agent and
its alarms, the disk, each bootstrap address over TCP or UDP, clocks, the policy, mirrors
and triggers. Nothing is changed. Each finding that is not ok says what to do.

Exit code 1 if something failed; warnings alone are 0.`

func (c *cli) doctorCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Check configuration, agent, network and clocks",
		Long:  doctorHelp,
		Args:  args(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
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
			findings := agent.Diagnose(ctx, cfg, client, readBuildInfo().Version)
			if err := cmd.Context().Err(); err != nil {
				return err // interrupted: what was found says nothing
			}
			return c.report(findings)
		},
	}
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

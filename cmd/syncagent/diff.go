package main

import (
	"context"
	"fmt"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	apiv1 "syncagent/agent/api/v1"
)

const diffHelp = `Compare this agent with a peer, named by its alias, its name or the end of its ID, by
what the two told each other: blocks, policy, clock, and what is missing here.

Equal blocks mean equal content, except for what one of the two may not read. Exit code
0 if nothing differs, 1 if something does or cannot be known.`

// diffJSON is what diff prints for programs.
type diffJSON struct {
	PeerID  string     `json:"peer_id"`
	Alias   string     `json:"alias"`
	Equal   bool       `json:"equal"`
	Reasons []diffLine `json:"reasons"`
}

type diffLine struct {
	Code    string `json:"code"` // stable
	Message string `json:"message"`
}

func (c *cli) diffCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "diff PEER",
		Short: "Tell whether a peer has the same, and why not",
		Long:  diffHelp,
		Args:  args(1, "PEER"),
		ValidArgsFunction: func(cmd *cobra.Command, words []string, _ string) ([]string, cobra.ShellCompDirective) {
			return c.completePeers(cmd, words), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, words []string) error {
			s, err := c.status(cmd.Context())
			if err != nil {
				return err
			}
			p, err := findPeer(s.GetPeers(), words[0])
			if err != nil {
				return err
			}
			return c.printDiff(s, p)
		},
	}
}

// status asks the agent how it is.
func (c *cli) status(ctx context.Context) (*apiv1.StatusResponse, error) {
	client, err := c.dial()
	if err != nil {
		return nil, err
	}
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	r, err := client.Agent.Status(ctx, connect.NewRequest(&apiv1.StatusRequest{}))
	if err != nil {
		return nil, err
	}
	return r.Msg, nil
}

func (c *cli) completePeers(cmd *cobra.Command, words []string) (names []string) {
	if len(words) > 0 || fromEnvironment(cmd) != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
	defer cancel()
	s, err := c.status(ctx)
	if err != nil {
		return nil
	}
	for _, p := range s.GetPeers() {
		if p.GetAlias() != "" {
			names = append(names, p.GetAlias())
		}
	}
	return names
}

// findPeer picks the peer that the user means: an alias wins over what a peer calls itself.
func findPeer(peers []*apiv1.Peer, word string) (*apiv1.Peer, error) {
	for _, matches := range []func(*apiv1.Peer) bool{
		func(p *apiv1.Peer) bool { return p.GetAlias() == word || p.GetPeerId() == word },
		func(p *apiv1.Peer) bool { return p.GetName() == word },
		func(p *apiv1.Peer) bool { return len(word) >= 4 && strings.HasSuffix(p.GetPeerId(), word) },
	} {
		var found []*apiv1.Peer
		for _, p := range peers {
			if matches(p) {
				found = append(found, p)
			}
		}
		switch len(found) {
		case 0:
			continue
		case 1:
			return found[0], nil
		}
		return nil, usagef("%d peers are called %s", len(found), word).withHint("name one by its ID: `syncagent peers`")
	}
	return nil, failf(exitNotFound, "not_found", "no peer %s", word).withHint("`syncagent peers` lists them")
}

// differences says why two agents do not have the same, as far as this one knows.
func differences(s *apiv1.StatusResponse, p *apiv1.Peer) (lines []diffLine) {
	add := func(code, format string, args ...any) {
		lines = append(lines, diffLine{code, fmt.Sprintf(format, args...)})
	}
	switch {
	case !p.GetConnected():
		add("away", "it is not connected: what it has is not known")
	case !p.GetEqual() && p.GetLagBlocks() > 0:
		add("behind", "it has %d blocks that are not here", p.GetLagBlocks())
	case !p.GetEqual():
		add("ahead", "it lacks blocks that are here, or has told nothing yet")
	}
	if p.GetConnected() && p.GetPolicySerial() != s.GetPolicySerial() {
		add("policy", "its policy has serial %d, the one here %d", p.GetPolicySerial(), s.GetPolicySerial())
	}
	if n := s.GetMissingEntries(); n > 0 {
		add("missing", "%d entries that this agent may read have not arrived", n)
	}
	if n := s.GetPending(); n > 0 {
		add("pending", "%d blocks wait here for blocks that they name", n)
	}
	if p.ClockSkewMs != nil && (p.GetClockSkewMs() > 300_000 || p.GetClockSkewMs() < -300_000) {
		add("clock", "its clock is %.0f s from the one here: fresh writes of the one ahead may not be shown yet", p.GetClockSkewMs()/1000)
	}
	return lines
}

func (c *cli) printDiff(s *apiv1.StatusResponse, p *apiv1.Peer) error {
	name := orDash(p.GetAlias())
	lines := differences(s, p)
	if c.json() {
		printJSON(c.stdout, diffJSON{p.GetPeerId(), p.GetAlias(), len(lines) == 0, append([]diffLine{}, lines...)})
	} else {
		for _, l := range lines {
			fmt.Fprintf(c.stdout, "%-8s %s\n", l.Code, l.Message)
		}
		if len(lines) == 0 && !c.quiet {
			fmt.Fprintf(c.stdout, "%s has the same blocks and policy\n", name)
		}
		if n := s.GetWithheldEntries(); n > 0 && !c.quiet {
			c.note("%d entries are not for this agent; %s may be entitled to them", n, name)
		}
	}
	if len(lines) > 0 {
		return failf(exitError, "differs", "this agent and %s differ", name)
	}
	return nil
}

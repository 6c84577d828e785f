package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"syncagent/agent"
	apiv1 "syncagent/agent/api/v1"
)

const diffHelp = `Compare this agent with a peer, named by its alias, its name or the end of its ID: what
the two told each other of blocks, policy and clock, and path by path what both show and
may read, without moving a value. Each path that differs is told with what the side that
is behind lacks: the write has not arrived there, or it has and is not shown, because the
policy there does not allow it or the clock there is behind.

At most 1,000 paths are printed. Exit code 0 if nothing differs, 1 if something does or
cannot be known.`

// diffJSON is what diff prints for programs.
type diffJSON struct {
	PeerID  string     `json:"peer_id"`
	Alias   string     `json:"alias"`
	Equal   bool       `json:"equal"`
	Reasons []diffLine `json:"reasons"`
	// What both may read, if the peer could be asked.
	Here        int64      `json:"here"`
	There       int64      `json:"there"`
	Withheld    int64      `json:"withheld"` // shown here, and not for the peer
	Differences int64      `json:"differences"`
	Paths       []diffPath `json:"paths"`
}

type diffPath struct {
	Path   string `json:"path"`
	Here   string `json:"here"` // version; empty: nothing is shown
	There  string `json:"there"`
	Kind   string `json:"kind"`   // missing_here, missing_there, newer_here, newer_there
	Reason string `json:"reason"` // not_arrived, not_shown, passed; empty: not known
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
			var paths *apiv1.CompareResponse
			var unknown []diffLine
			if p.GetConnected() {
				if paths, err = c.comparePaths(cmd.Context(), p); err != nil {
					unknown = append(unknown, diffLine{"unknown", agent.ErrorOf(err).Message + versionNote(s, p)})
				}
			}
			return c.printDiff(s, p, append(differences(s, p, paths), unknown...), paths)
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

// versionNote tells of another version, whose agent may not know a question.
func versionNote(s *apiv1.StatusResponse, p *apiv1.Peer) string {
	if p.GetVersion() == s.GetVersion() {
		return ""
	}
	return fmt.Sprintf("; it runs syncagent %s, this agent %s", p.GetVersion(), s.GetVersion())
}

// differences says why two agents do not have the same. What a comparison came to counts before what the peer told
// some time ago; nil: there was none.
func differences(s *apiv1.StatusResponse, p *apiv1.Peer, r *apiv1.CompareResponse) (lines []diffLine) {
	add := func(code, format string, args ...any) {
		lines = append(lines, diffLine{code, fmt.Sprintf(format, args...)})
	}
	sameBlocks, samePolicy := p.GetEqual(), p.GetPolicySerial() == s.GetPolicySerial()
	if r != nil {
		sameBlocks, samePolicy = r.GetSameBlocks(), r.GetSamePolicy()
	}
	switch {
	case s.GetPaused():
		add("away", "connections are paused here: what it has is not known")
	case !p.GetConnected():
		add("away", "it is not connected: what it has is not known")
	case !sameBlocks && p.GetLagBlocks() > 0:
		add("behind", "it has %d blocks that are not here", p.GetLagBlocks())
	case !sameBlocks:
		add("ahead", "it lacks blocks that are here, or has told nothing yet")
	}
	switch {
	case !p.GetConnected() || samePolicy:
	case p.GetPolicySerial() == s.GetPolicySerial():
		add("policy", "its policy has the same serial and is another text")
	default:
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

func (c *cli) comparePaths(ctx context.Context, p *apiv1.Peer) (*apiv1.CompareResponse, error) {
	client, err := c.dial()
	if err != nil {
		return nil, err
	}
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	r, err := client.Agent.Compare(ctx, connect.NewRequest(&apiv1.CompareRequest{PeerId: p.GetPeerId()}))
	if err != nil {
		return nil, err
	}
	return r.Msg, nil
}

func (c *cli) printDiff(s *apiv1.StatusResponse, p *apiv1.Peer, lines []diffLine, r *apiv1.CompareResponse) error {
	name := orDash(p.GetAlias())
	equal := len(lines) == 0 && r.GetDifferences() == 0
	if c.json() {
		out := diffJSON{p.GetPeerId(), p.GetAlias(), equal, append([]diffLine{}, lines...), r.GetHere(), r.GetThere(), r.GetWithheld(),
			r.GetDifferences(), []diffPath{}}
		for _, d := range r.GetPaths() {
			out.Paths = append(out.Paths, diffPath{d.GetPath(), d.GetHere(), d.GetThere(),
				enumWord(d.GetKind().String(), "DIFFERENCE_KIND_"), enumWord(d.GetReason().String(), "DIFFERENCE_REASON_")})
		}
		printJSON(c.stdout, out)
	} else {
		for _, l := range lines {
			fmt.Fprintf(c.stdout, "%-8s %s\n", l.Code, l.Message)
		}
		var rows [][]string
		for _, d := range r.GetPaths() {
			rows = append(rows, []string{d.GetPath(), kindWords[d.GetKind()], why(d)})
		}
		if len(rows) > 0 {
			table(c.stdout, []string{"PATH", "DIFFERENCE", "WHY"}, rows)
		}
		c.noteDiff(s, name, equal, r)
	}
	switch {
	case equal:
		return nil
	case r == nil && !slices.ContainsFunc(lines, func(l diffLine) bool { return l.Code != "away" && l.Code != "unknown" }):
		hint := "syncagent peers tells how the connection to it is"
		if s.GetPaused() {
			hint = "syncagent peers resume"
		}
		return failf(exitError, "differs", "whether %s has the same is not known", name).withHint("%s", hint)
	}
	return failf(exitError, "differs", "this agent and %s differ", name)
}

var kindWords = map[apiv1.DifferenceKind]string{
	apiv1.DifferenceKind_DIFFERENCE_KIND_MISSING_HERE:  "missing here",
	apiv1.DifferenceKind_DIFFERENCE_KIND_MISSING_THERE: "missing there",
	apiv1.DifferenceKind_DIFFERENCE_KIND_NEWER_HERE:    "newer here",
	apiv1.DifferenceKind_DIFFERENCE_KIND_NEWER_THERE:   "newer there",
}

// why says what the side that is behind lacks.
func why(d *apiv1.PathDifference) string {
	side := "there"
	if k := d.GetKind(); k == apiv1.DifferenceKind_DIFFERENCE_KIND_MISSING_HERE || k == apiv1.DifferenceKind_DIFFERENCE_KIND_NEWER_THERE {
		side = "here"
	}
	switch d.GetReason() {
	case apiv1.DifferenceReason_DIFFERENCE_REASON_NOT_ARRIVED:
		return "it has not arrived whole " + side
	case apiv1.DifferenceReason_DIFFERENCE_REASON_NOT_SHOWN:
		return "it is " + side + ", but the policy or the clock keeps it from being shown"
	case apiv1.DifferenceReason_DIFFERENCE_REASON_PASSED:
		return "it is shown " + side + " by now"
	}
	return "not known"
}

// enumWord gives MISSING_HERE of an enum as missing_here, and nothing for what is unspecified.
func enumWord(name, prefix string) string {
	word := strings.ToLower(strings.TrimPrefix(name, prefix))
	if word == "unspecified" {
		return ""
	}
	return word
}

// noteDiff tells a person what the comparison covers.
func (c *cli) noteDiff(s *apiv1.StatusResponse, name string, equal bool, r *apiv1.CompareResponse) {
	if more := r.GetDifferences() - int64(len(r.GetPaths())); more > 0 {
		c.note("%d more paths differ", more)
	}
	if equal && !c.quiet {
		fmt.Fprintf(c.stdout, "%s has the same blocks and policy, and shows the same at %d paths\n", name, r.GetHere())
	}
	if n := r.GetWithheld(); n > 0 {
		c.note("%d entries here are not for %s", n, name)
	}
	if n := s.GetWithheldEntries(); n > 0 {
		c.note("%d entries are not for this agent; %s may be entitled to them", n, name)
	}
}

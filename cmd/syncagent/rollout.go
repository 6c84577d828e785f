package main

import (
	"fmt"
	"io"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore/record"
)

const rolloutHelp = `Tell how far every agent is with what this one shows at and below a path: stored on its
disk, mirrored into the directories of its configuration, triggered (the commands after
that have run), and what holds it up. Only members that may read it are asked, and only
for what they may read. The agents that do not answer within --timeout (3s) are named.

Exit code 0 if all are as far as they can get, else 7.`

// hostJSON is one agent as rollout, and a wait that failed, print it for programs.
type hostJSON struct {
	Name       string `json:"name"`
	PeerID     string `json:"peer_id"`
	Stage      string `json:"stage"` // of the path that is least far: "", stored, mirrored, triggered
	Unmirrored bool   `json:"unmirrored"`
	Version    string `json:"version"`
	Paths      int64  `json:"paths"`
	Stored     int64  `json:"stored"`
	Mirrored   int64  `json:"mirrored"`
	Triggered  int64  `json:"triggered"`
	Error      string `json:"error"`
}

func hostsJSON(hosts []*apiv1.HostProgress) []hostJSON {
	out := []hostJSON{}
	for _, h := range hosts {
		out = append(out, hostJSON{
			Name: h.GetName(), PeerID: h.GetPeerId(), Stage: stageWord(h.GetStage()), Unmirrored: h.GetUnmirrored(), Version: h.GetVersion(),
			Paths: h.GetPaths(), Stored: h.GetStored(), Mirrored: h.GetMirrored(), Triggered: h.GetTriggered(), Error: h.GetError(),
		})
	}
	return out
}

func stageWord(s apiv1.Stage) string {
	if s == apiv1.Stage_STAGE_UNSPECIFIED {
		return ""
	}
	return strings.ToLower(strings.TrimPrefix(s.String(), "STAGE_"))
}

func (c *cli) rolloutCmd() *cobra.Command {
	return &cobra.Command{
		Use:               "rollout PATH|PREFIX",
		Short:             "Show how far every agent is with a path or prefix",
		Long:              rolloutHelp,
		Args:              args(1, "PATH"),
		ValidArgsFunction: c.completePaths(1),
		RunE: func(cmd *cobra.Command, words []string) error {
			prefix, err := record.CleanPrefix(words[0])
			if err != nil {
				return err
			}
			client, err := c.dial()
			if err != nil {
				return err
			}
			request := &apiv1.RolloutRequest{Path: prefix}
			if c.timeout > 0 {
				request.Timeout = durationpb.New(c.timeout)
			}
			r, err := client.KV.Rollout(cmd.Context(), connect.NewRequest(request))
			if err != nil {
				return err
			}
			return c.printRollout(r.Msg)
		},
	}
}

func (c *cli) printRollout(r *apiv1.RolloutResponse) error {
	if c.json() {
		for _, h := range hostsJSON(r.GetHosts()) {
			printJSON(c.stdout, h)
		}
	} else {
		printHosts(c.stdout, r.GetHosts(), true)
	}
	behind := 0
	for _, h := range r.GetHosts() {
		if !settled(h) {
			behind++
		}
	}
	if behind > 0 {
		return failf(exitReplicas, "replicas", "%d of %d agents are not as far as they can get", behind, len(r.GetHosts()))
	}
	return nil
}

// settled tells whether an agent has nothing left to do.
func settled(h *apiv1.HostProgress) bool {
	return h.GetError() == "" && h.GetStored() == h.GetPaths() && (h.GetUnmirrored() || h.GetStage() == apiv1.Stage_STAGE_TRIGGERED)
}

// printHosts writes a table for people: counts where there are several paths, one word where there is one.
func printHosts(w io.Writer, hosts []*apiv1.HostProgress, versions bool) {
	head, rows := []string{"HOST", "STORED", "MIRRORED", "TRIGGERED", "PROBLEM"}, [][]string{}
	if versions {
		head = []string{"HOST", "VERSION", "STORED", "MIRRORED", "TRIGGERED", "PROBLEM"}
	}
	for _, h := range hosts {
		known := h.GetStage() > 0 || h.GetVersion() != "" || h.GetError() == ""
		count := func(n int64) string {
			switch {
			case !known:
				return "?"
			case h.GetPaths() > 1:
				return fmt.Sprintf("%d of %d", n, h.GetPaths())
			case n > 0:
				return "yes"
			}
			return "no"
		}
		row := []string{h.GetName()}
		if versions {
			row = append(row, orDash(shortVersion(h.GetVersion())))
		}
		row = append(row, count(h.GetStored()))
		if h.GetUnmirrored() {
			row = append(row, "no mirror", "-")
		} else {
			row = append(row, count(h.GetMirrored()), count(h.GetTriggered()))
		}
		rows = append(rows, append(row, h.GetError()))
	}
	table(w, head, rows)
}

// shortVersion is enough of a version to tell two of a path apart by eye.
func shortVersion(v string) string { return v[:min(25, len(v))] }

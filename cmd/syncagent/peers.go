package main

import (
	"fmt"
	"strconv"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	apiv1 "syncagent/agent/api/v1"
)

func (c *cli) peersCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "peers", Short: "Show the other agents, or stop and resume talking to them"}
	group(cmd)
	cmd.Use = "peers [pause|resume]"
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		client, err := c.dial()
		if err != nil {
			return err
		}
		ctx, cancel := c.bounded(cmd.Context())
		defer cancel()
		r, err := client.Agent.Peers(ctx, connect.NewRequest(&apiv1.PeersRequest{}))
		if err != nil {
			return err
		}
		c.printPeers(r.Msg)
		return nil
	}
	cmd.AddCommand(&cobra.Command{
		Use:   "pause",
		Short: "Close all connections to other agents and refuse new ones until resume or a restart",
		Args:  args(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := c.dial()
			if err != nil {
				return err
			}
			ctx, cancel := c.bounded(cmd.Context())
			defer cancel()
			if _, err = client.Agent.PausePeers(ctx, connect.NewRequest(&apiv1.PausePeersRequest{})); err != nil {
				return err
			}
			c.note("no connections to other agents until `syncagent peers resume`")
			return nil
		},
	}, &cobra.Command{
		Use:   "resume",
		Short: "Connect to other agents again",
		Args:  args(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := c.dial()
			if err != nil {
				return err
			}
			ctx, cancel := c.bounded(cmd.Context())
			defer cancel()
			_, err = client.Agent.ResumePeers(ctx, connect.NewRequest(&apiv1.ResumePeersRequest{}))
			return err
		},
	})
	return cmd
}

func (c *cli) printPeers(r *apiv1.PeersResponse) {
	if c.json() {
		for _, p := range peersJSON(r.GetPeers()) {
			printJSON(c.stdout, p)
		}
		return
	}
	if r.GetPaused() {
		c.note("paused; `syncagent peers resume` connects again")
	}
	var rows [][]string
	for _, p := range r.GetPeers() {
		name := p.GetAlias()
		if name == "" {
			name = "-"
		}
		rows = append(rows, []string{
			name, p.GetPeerId(), orDash(p.GetAddr()), peerState(p),
			orNone(p.RttMs, func(ms float64) string { return fmt.Sprintf("%.1fms", ms) }),
			orNone(p.LastSyncS, func(s float64) string {
				return time.Duration(s*float64(time.Second)).Round(time.Second).String() + " ago"
			}),
			orNone(p.ClockSkewMs, skewText), strconv.FormatUint(p.GetPolicySerial(), 10), orDash(p.GetVersion()), p.GetError(),
		})
	}
	if len(rows) > 0 {
		table(c.stdout, []string{"NAME", "ID", "ADDRESS", "STATE", "RTT", "SYNC", "SKEW", "POLICY", "VERSION", "PROBLEM"}, rows)
	}
}

// skewText is how far a peer's clock is from ours.
func skewText(ms float64) string {
	d := time.Duration(ms * float64(time.Millisecond)).Round(time.Millisecond)
	if d.Abs() > 10*time.Second {
		d = d.Round(time.Second)
	}
	return d.String()
}

func peerState(p *apiv1.Peer) string {
	switch {
	case !p.GetConnected():
		return "away"
	case p.GetEqual():
		return "equal"
	case p.GetLagBlocks() > 0:
		return fmt.Sprintf("%d blocks behind", p.GetLagBlocks())
	}
	return "connected"
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func orNone[T any](v *T, show func(T) string) string {
	if v == nil {
		return "-"
	}
	return show(*v)
}

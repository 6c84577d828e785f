package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	apiv1 "syncagent/agent/api/v1"
)

// statusJSON is what status prints for programs.
type statusJSON struct {
	Name            string        `json:"name"`
	PeerID          string        `json:"peer_id"`
	Network         string        `json:"network"`
	Version         string        `json:"version"`
	UptimeS         float64       `json:"uptime_s"`
	Ready           bool          `json:"ready"`
	Paused          bool          `json:"paused"`
	Entries         int64         `json:"entries"`
	ViewDigest      string        `json:"view_digest"`
	BlockDigest     string        `json:"block_digest"`
	Blocks          int64         `json:"blocks"`
	Heads           int64         `json:"heads"`
	Pending         int64         `json:"pending"`
	MissingEntries  int64         `json:"missing_entries"`
	WithheldEntries int64         `json:"withheld_entries"`
	PolicySerial    uint64        `json:"policy_serial"`
	PolicyHash      string        `json:"policy_hash"`
	DiskFree        uint64        `json:"disk_free"`
	Alarms          []alarmJSON   `json:"alarms"`
	Peers           []peerJSON    `json:"peers"`
	Mirrors         []mirrorJSON  `json:"mirrors"`
	Triggers        []triggerJSON `json:"triggers"`
	Indexes         []indexJSON   `json:"indexes"`
}

type indexJSON struct {
	Name    string `json:"name"`
	Entries int64  `json:"entries"`
	Values  int64  `json:"values"`
	LeftOut int64  `json:"left_out"`
	Ready   bool   `json:"ready"`
}

type alarmJSON struct {
	Code    string `json:"code"`
	Since   string `json:"since"`
	Subject string `json:"subject"`
	Message string `json:"message"`
	Hint    string `json:"hint"`
}

type peerJSON struct {
	PeerID       string   `json:"peer_id"`
	Alias        string   `json:"alias"`
	Name         string   `json:"name"`
	Connected    bool     `json:"connected"`
	Addr         string   `json:"addr"`
	LagBlocks    int64    `json:"lag_blocks"`
	Equal        bool     `json:"equal"`
	LastSyncS    *float64 `json:"last_sync_s"` // seconds ago; null: never
	RTTMs        *float64 `json:"rtt_ms"`
	ClockSkewMs  *float64 `json:"clock_skew_ms"`
	PolicySerial uint64   `json:"policy_serial"`
	Version      string   `json:"version"`
	Error        string   `json:"error"` // why it could not be reached
}

type mirrorJSON struct {
	Name       string `json:"name"`
	Prefix     string `json:"prefix"`
	Dir        string `json:"dir"`
	Mode       string `json:"mode"`
	State      string `json:"state"`
	Files      int64  `json:"files"`
	Pending    int64  `json:"pending"`
	LastError  string `json:"last_error"`
	LastOutput string `json:"last_output"`
}

type triggerJSON struct {
	Path       string `json:"path"`
	Command    string `json:"command"`
	Runs       int64  `json:"runs"`
	LastExit   *int32 `json:"last_exit"` // null: it never ran
	Pending    bool   `json:"pending"`
	LastOutput string `json:"last_output"`
}

func (c *cli) statusCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show how the agent is doing",
		Args:  args(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := c.dial()
			if err != nil {
				return err
			}
			ctx, cancel := c.bounded(cmd.Context())
			defer cancel()
			r, err := client.Agent.Status(ctx, connect.NewRequest(&apiv1.StatusRequest{}))
			if err != nil {
				return err
			}
			if c.json() {
				printJSON(c.stdout, newStatusJSON(r.Msg))
			} else {
				c.printStatus(r.Msg)
			}
			return nil
		},
	}
}

func newStatusJSON(s *apiv1.StatusResponse) statusJSON {
	out := statusJSON{
		Name: s.GetName(), PeerID: s.GetPeerId(), Network: s.GetNetwork(), Version: s.GetVersion(),
		UptimeS: s.GetUptimeS(), Ready: s.GetReady(), Paused: s.GetPaused(), Entries: s.GetEntries(),
		ViewDigest: s.GetViewDigest(), BlockDigest: s.GetBlockDigest(), Blocks: s.GetBlocks(), Heads: s.GetHeads(),
		Pending: s.GetPending(), MissingEntries: s.GetMissingEntries(), WithheldEntries: s.GetWithheldEntries(),
		PolicySerial: s.GetPolicySerial(), PolicyHash: s.GetPolicyHash(), DiskFree: s.GetDiskFree(),
		Alarms: []alarmJSON{}, Peers: peersJSON(s.GetPeers()), Mirrors: []mirrorJSON{}, Triggers: []triggerJSON{},
		Indexes: []indexJSON{},
	}
	for _, a := range s.GetAlarms() {
		out.Alarms = append(out.Alarms, alarmJSON{
			Code: a.GetCode(), Since: a.GetSince().AsTime().Format(time.RFC3339), Subject: a.GetSubject(), Message: a.GetMessage(), Hint: a.GetHint(),
		})
	}
	for _, m := range s.GetMirrors() {
		out.Mirrors = append(out.Mirrors, mirrorJSON{
			Name: m.GetName(), Prefix: m.GetPrefix(), Dir: m.GetDir(), Mode: m.GetMode(), State: m.GetState(),
			Files: m.GetFiles(), Pending: m.GetPending(), LastError: m.GetLastError(), LastOutput: m.GetLastOutput(),
		})
	}
	for _, t := range s.GetTriggers() {
		out.Triggers = append(out.Triggers, triggerJSON{
			Path: t.GetPath(), Command: t.GetCommand(), Runs: t.GetRuns(), LastExit: t.LastExit,
			Pending: t.GetPending(), LastOutput: t.GetLastOutput(),
		})
	}
	for _, x := range s.GetIndexes() {
		out.Indexes = append(out.Indexes, indexJSON{
			Name: x.GetName(), Entries: x.GetEntries(), Values: x.GetValues(), LeftOut: x.GetLeftOut(), Ready: x.GetReady(),
		})
	}
	return out
}

func peersJSON(peers []*apiv1.Peer) []peerJSON {
	out := []peerJSON{}
	for _, p := range peers {
		out = append(out, peerJSON{
			PeerID: p.GetPeerId(), Alias: p.GetAlias(), Name: p.GetName(), Connected: p.GetConnected(), Addr: p.GetAddr(),
			LagBlocks: p.GetLagBlocks(), Equal: p.GetEqual(), LastSyncS: p.LastSyncS, RTTMs: p.RttMs,
			ClockSkewMs: p.ClockSkewMs, PolicySerial: p.GetPolicySerial(), Version: p.GetVersion(), Error: p.GetError(),
		})
	}
	return out
}

// printStatus is for people: what is wrong comes first.
func (c *cli) printStatus(s *apiv1.StatusResponse) {
	for _, a := range s.GetAlarms() {
		fmt.Fprintf(c.stdout, "ALARM     %s: %s\n", a.GetCode(), alarmText(a))
		if a.GetHint() != "" {
			fmt.Fprintf(c.stdout, "          %s\n", a.GetHint())
		}
	}
	fmt.Fprintf(c.stdout, "%s  %s  syncagent %s, up %s\n", s.GetName(), s.GetPeerId(), s.GetVersion(),
		time.Duration(s.GetUptimeS()*float64(time.Second)).Round(time.Second))
	connected, equal := 0, 0
	for _, p := range s.GetPeers() {
		if p.GetConnected() {
			connected++
			if p.GetEqual() {
				equal++
			}
		}
	}
	state := "starting"
	switch {
	case s.GetPaused():
		state = "paused: no connections to peers"
	case s.GetReady():
		state = "ready"
	}
	rows := [][]string{
		{"state", state},
		{"policy", policyLine(s)},
		{"peers", fmt.Sprintf("%d known, %d connected, %d of them with the same blocks", len(s.GetPeers()), connected, equal)},
		{"entries", entriesLine(s)},
		{"view", s.GetViewDigest()},
		{"blocks", fmt.Sprintf("%d, %d heads, digest %s", s.GetBlocks(), s.GetHeads(), s.GetBlockDigest())},
		{"disk", byteCount(s.GetDiskFree()) + " free"},
		{"network", s.GetNetwork()},
	}
	for _, m := range s.GetMirrors() {
		rows = append(rows, []string{"mirror", strings.TrimSpace(fmt.Sprintf("%s -> %s: %s, %d files, %d pending  %s",
			m.GetPrefix(), m.GetDir(), m.GetState(), m.GetFiles(), m.GetPending(), m.GetLastError()))})
		for line := range strings.Lines(m.GetLastOutput()) {
			rows = append(rows, []string{"", "  | " + visible(line)})
		}
	}
	for _, t := range s.GetTriggers() {
		rows = append(rows, []string{"trigger", triggerLine(t)})
	}
	for _, x := range s.GetIndexes() {
		rows = append(rows, []string{"index", indexLine(x)})
	}
	table(c.stdout, nil, rows)
}

// visible is a line of a command's output without what a terminal would act on.
func visible(line string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case unicode.IsPrint(r):
			return r
		}
		return -1
	}, line))
}

func indexLine(x *apiv1.Index) string {
	line := fmt.Sprintf("%s: %d entries, %d values", x.GetName(), x.GetEntries(), x.GetValues())
	if x.GetLeftOut() > 0 {
		line += fmt.Sprintf(", %d left out: no JSON", x.GetLeftOut())
	}
	if !x.GetReady() {
		line += ", being built"
	}
	return line
}

// alarmText says which one, what, and since when.
func alarmText(a *apiv1.Alarm) string {
	text := strings.TrimSpace(a.GetMessage()) + " (since " + a.GetSince().AsTime().Format(time.RFC3339) + ")"
	if a.GetSubject() != "" {
		text = a.GetSubject() + ": " + text
	}
	return text
}

func policyLine(s *apiv1.StatusResponse) string {
	if s.GetPolicySerial() == 0 {
		return "none yet: nothing can be read or written"
	}
	return fmt.Sprintf("serial %d", s.GetPolicySerial())
}

func entriesLine(s *apiv1.StatusResponse) string {
	line := strconv.FormatInt(s.GetEntries(), 10)
	for _, part := range []struct {
		n    int64
		what string
	}{
		{s.GetMissingEntries(), "still to be fetched"},
		{s.GetWithheldEntries(), "not for this agent"},
		{s.GetPending(), "blocks waiting"},
	} {
		if part.n > 0 {
			line += fmt.Sprintf(", %d %s", part.n, part.what)
		}
	}
	return line
}

func triggerLine(t *apiv1.Trigger) string {
	line := fmt.Sprintf("%s %q: ", t.GetPath(), t.GetCommand())
	if t.LastExit == nil {
		line += "has not run"
	} else {
		line += fmt.Sprintf("%d runs, last exit %d", t.GetRuns(), t.GetLastExit())
	}
	if t.GetPending() {
		line += ", pending"
	}
	return line
}

// byteCount writes a size for people.
func byteCount(n uint64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f, u := float64(n)/1024, 0
	for ; f >= 1024 && u < len(units)-1; u++ {
		f /= 1024
	}
	return fmt.Sprintf("%.1f %ciB", f, units[u])
}

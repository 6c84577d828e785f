package agent

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	apiv1 "syncagent/agent/api/v1"
)

// TestPolicyGuard holds when another policy of a peer is an alarm, and when that is over.
func TestPolicyGuard(t *testing.T) {
	own := uint64(5)
	web2 := &apiv1.Peer{PeerId: "id2", Alias: "web2", Connected: true, PolicySerial: 5}
	nameless := &apiv1.Peer{PeerId: "id3", Connected: true, PolicySerial: 5}
	g := policyGuard{
		peers: func() []*apiv1.Peer { return []*apiv1.Peer{web2, nameless} }, serial: func() uint64 { return own }, alarms: NewAlarms(quiet()),
	}
	now := time.Now()
	for i, step := range []struct {
		after  time.Duration
		change func()
		want   string
	}{
		{0, func() {}, ""},
		{time.Minute, func() { web2.PolicySerial = 4 }, ""},
		{29 * time.Second, func() {}, ""},
		{time.Second, func() {}, "web2: it goes by the policy with serial 4, this host by 5"},
		{0, func() { nameless.PolicySerial = 0 }, "web2: it goes by the policy with serial 4, this host by 5"},
		{time.Minute, func() { own = 4 }, ""},
		{time.Minute, func() { nameless.PolicySerial = 7 }, ""},
		{29 * time.Second, func() { nameless.PolicySerial = 8 }, ""},
		{29 * time.Second, func() { own = 3 }, ""},
		{30 * time.Second, func() {}, "id3: it goes by the policy with serial 8, this host by 3; web2: it goes by the policy with serial 4, this host by 3"},
		{0, func() { nameless.Connected = false }, "web2: it goes by the policy with serial 4, this host by 3"},
		{0, func() { nameless.Connected = true }, "web2: it goes by the policy with serial 4, this host by 3"},
		{0, func() { web2.Alias = "web9" }, "web9: it goes by the policy with serial 4, this host by 3"},
		{0, func() { own = 0 }, ""},
	} {
		step.change()
		now = now.Add(step.after)
		g.look(now)
		var list []string
		for _, a := range g.alarms.List() {
			list = append(list, fmt.Sprintf("%s: %s", a.Subject, a.Message))
		}
		slices.Sort(list)
		if got := strings.Join(list, "; "); got != step.want {
			t.Errorf("step %d: %q, want %q", i, got, step.want)
		}
	}
}

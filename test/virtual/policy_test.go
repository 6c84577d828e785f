package virtual

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"syncagent/acl"
)

// TestSerialsOfPeersAreKnownAtOnce puts a policy in force on one agent: a moment later it knows of every other one that
// has it too, and the others know it of each other. Whoever looks at the peers right after an apply sees no false lag.
func TestSerialsOfPeersAreKnownAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const latency = 10 * time.Millisecond
		f := newFleet(t, 3, latency, 1)
		defer f.close()
		for _, a := range f.agents {
			a.alarm = func(code, message string) {
				if message != "" {
					t.Errorf("a%d alarms: %s: %s", a.place, code, message)
				}
			}
			a.start()
		}
		behind := func(serial uint64) string {
			for _, a := range f.agents {
				peers := a.node.Peers()
				for _, p := range peers {
					if !p.Connected || p.Serial != serial {
						return fmt.Sprintf("to a%d %s has policy %d", a.place, p.Alias, p.Serial)
					}
				}
				if len(peers) != len(f.agents)-1 {
					return fmt.Sprintf("a%d knows %d peers", a.place, len(peers))
				}
			}
			return ""
		}
		if _, left := within(time.Minute, func() string { return behind(1) }); left != "" {
			t.Fatal(left)
		}
		time.Sleep(time.Minute)
		text := strings.Replace(string(acl.Unsigned(f.policy)), "serial 1\n", "serial 2\n", 1)
		if err := f.agents[0].Store.SetPolicy(context.Background(), acl.Sign([]byte(text), f.id, keyOf("admin"))); err != nil {
			t.Fatal(err)
		}
		const limit = 10 * latency
		took, left := within(limit, func() string { return behind(2) })
		if left != "" {
			t.Errorf("after %s: %s", took, left)
		}
	})
}

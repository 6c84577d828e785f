package virtual

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"syncagent/crdtstore"
	"syncagent/p2p"
)

// damage is a store with something wrong that no sync can mend, from a moment on.
type damage struct {
	*crdtstore.Store
	blocks, view atomic.Bool
}

func (d *damage) BlockDigest() (digest [32]byte) {
	digest = d.Store.BlockDigest()
	if d.blocks.Load() {
		digest[0] ^= 1
	}
	return digest
}

func (d *damage) View() (digest [32]byte, settled bool) {
	digest, settled = d.Store.View()
	if d.view.Load() {
		digest[0] ^= 1
	}
	return digest, settled
}

// TestDivergenceIsAnAlarmInTime lets one agent of some hold other blocks, or show something else. It and one that is
// sound have to raise the alarm within 30 virtual seconds, at every moment of their rounds, and to end it when the
// damage is gone.
func TestDivergenceIsAnAlarmInTime(t *testing.T) {
	const limit = 30 * time.Second
	sizes := []int{2}
	if *fleetSize > 0 {
		sizes = append(sizes, 5)
	}
	for _, n := range sizes {
		for kind, set := range map[string]func(*damage, bool){
			"blocks": func(d *damage, is bool) { d.blocks.Store(is) },
			"view":   func(d *damage, is bool) { d.view.Store(is) },
		} {
			t.Run(fmt.Sprintf("%d_agents,_other_%s", n, kind), func(t *testing.T) {
				var raised, ended []time.Duration
				for range 3 {
					synctest.Test(t, func(t *testing.T) {
						r, e := diverge(t, n, set)
						raised, ended = append(raised, r), append(ended, e)
					})
				}
				t.Logf("raised on both sides after %s at most, ended after %s", slices.Max(raised), slices.Max(ended))
				if longest := slices.Max(raised); longest > limit {
					t.Errorf("it takes %s", longest)
				}
			})
		}
	}
}

// diverge gives how long it took until both sides had the alarm, and until it ended on both.
func diverge(t *testing.T, n int, set func(*damage, bool)) (raised, ended time.Duration) {
	f := newFleet(t, n, 10*time.Millisecond, 1)
	defer f.close()
	alarms := make([]atomic.Bool, n)
	for i, a := range f.agents {
		a.alarm = func(code, message string) {
			if code != p2p.AlarmDiverged {
				t.Errorf("a%d alarms: %s: %s", i, code, message)
			}
			alarms[i].Store(message != "")
		}
	}
	bad := f.agents[0]
	bad.damage = new(damage)
	for i, a := range f.agents {
		a.start()
		op := crdtstore.Op{Path: fmt.Sprintf("/own/%d", i), Value: []byte("v")}
		if _, err := a.Store.Write(context.Background(), []crdtstore.Op{op}); err != nil {
			t.Fatal(err)
		}
	}
	if _, left := within(time.Minute, f.differ); left != "" {
		t.Fatal("not equal: ", left)
	}
	time.Sleep(time.Minute + rand.N(10*time.Second)) // some moment of the rounds
	alarmed := func() (n int) {
		for i := range alarms {
			if alarms[i].Load() {
				n++
			}
		}
		return n
	}
	if alarmed() > 0 {
		t.Error("an alarm though all is well")
	}
	set(bad.damage, true)
	raised, left := within(5*time.Minute, func() string {
		if !alarms[0].Load() || alarmed() < 2 {
			return fmt.Sprintf("%d of %d agents have the alarm, the damaged one: %t", alarmed(), n, alarms[0].Load())
		}
		return ""
	})
	if left != "" {
		t.Error(left)
	}
	set(bad.damage, false)
	ended, left = within(5*time.Minute, func() string {
		if alarmed() > 0 {
			return "the alarm does not end"
		}
		return ""
	})
	if left != "" {
		t.Error(left)
	}
	return raised, ended
}

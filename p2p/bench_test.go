package p2p

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"syncagent/crdtstore/record"
)

// TestFigures measures; it asserts only that everything arrives. The store of the tests is a map.
func TestFigures(t *testing.T) {
	if testing.Short() {
		t.Skip("measures")
	}
	for _, n := range []int{10000, 50000} {
		ka, kb := testKey(t), testKey(t)
		policy := &fakePolicy{Number: 1, Keys: []record.PublicKey{record.KeyOf(ka), record.KeyOf(kb)}}
		ra, rb := newFake(ka, policy), newFake(kb, policy)
		ra.mu.Lock()
		for i := range n {
			ra.putLocked([]byte("value of a hundred bytes or so"), fmt.Sprintf("/a/%d", i))
		}
		ra.mu.Unlock()
		a := start(t, "a", ra, Options{})
		b := start(t, "b", rb, Options{Bootstrap: a.node.Addrs()})
		began := time.Now()
		eventually(t, equal(a, b), "equal")
		t.Logf("catch-up of %d single puts: %v", n, time.Since(began).Round(time.Millisecond))
		a.stop()
		b.stop()
	}
	for _, nodes := range []int{2, 5} {
		hs := cluster(t, nodes)
		time.Sleep(1500 * time.Millisecond) // the mesh forms
		for _, rate := range []int{20, 500, 2000} {
			propagation(t, hs, rate)
		}
		for _, h := range hs {
			h.stop()
		}
	}
}

// propagation puts at a rate and logs how long each took to be on all other hosts.
func propagation(t *testing.T, hs []*agent, rate int) {
	t.Helper()
	puts := rate * 2
	began := make([]time.Time, puts)
	digests := make([]record.Digest, puts)
	arrived := make([]time.Duration, puts)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(time.Second / time.Duration(rate))
		defer tick.Stop()
		for i := range puts {
			<-tick.C
			h := hs[i%len(hs)]
			o := h.put([]byte("value"), fmt.Sprintf("/p/%d/%d", rate, i))
			h.mu.Lock()
			digests[i], began[i] = record.DigestOf(o.Block), time.Now()
			h.mu.Unlock()
			h.node.Publish(o)
		}
	}()
	held := func(d record.Digest) bool {
		for _, h := range hs {
			h.mu.Lock()
			_, ok := h.blocks[d]
			h.mu.Unlock()
			if !ok {
				return false
			}
		}
		return true
	}
	for i := range puts {
		eventuallyQuiet(t, func() bool {
			h := hs[i%len(hs)]
			h.mu.Lock()
			d := digests[i]
			h.mu.Unlock()
			return d != record.Digest{} && held(d)
		})
		arrived[i] = time.Since(began[i])
	}
	<-done
	slices.Sort(arrived)
	t.Logf("%d nodes, %d puts/s: p50 %v, p99 %v, max %v", len(hs), rate, arrived[puts/2], arrived[puts*99/100], arrived[puts-1])
}

func eventuallyQuiet(t *testing.T, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatal("a block did not arrive")
		}
		time.Sleep(100 * time.Microsecond)
	}
}

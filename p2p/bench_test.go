package p2p

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"syncagent/crdtstore/record"
)

// BenchmarkCatchUp measures how long an empty member takes to have what another holds. The store of the tests is a map.
func BenchmarkCatchUp(b *testing.B) {
	for _, n := range []int{10000, 50000} {
		b.Run(fmt.Sprintf("puts=%d", n), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				ka, kb := testKey(b), testKey(b)
				policy := &fakePolicy{Number: 1, Keys: []record.PublicKey{record.KeyOf(ka), record.KeyOf(kb)}}
				full := newFake(ka, policy)
				full.mu.Lock()
				for i := range n {
					full.putLocked([]byte("value of a hundred bytes or so"), fmt.Sprintf("/a/%d", i))
				}
				full.mu.Unlock()
				from := start(b, "from", full, Options{})
				b.StartTimer()
				to := start(b, "to", newFake(kb, policy), Options{Bootstrap: from.node.Addrs()})
				eventually(b, equal(from, to), "equal")
				b.StopTimer()
				from.stop()
				to.stop()
				b.StartTimer()
			}
		})
	}
}

// BenchmarkPropagation puts at a rate, and reports how long a put took to be on all other hosts.
func BenchmarkPropagation(b *testing.B) {
	for _, nodes := range []int{2, 5} {
		for _, rate := range []int{20, 500, 2000} {
			b.Run(fmt.Sprintf("nodes=%d/rate=%d", nodes, rate), func(b *testing.B) {
				hs := cluster(b, nodes)
				var took []time.Duration
				for b.Loop() {
					took = append(took, propagation(b, hs, rate)...)
				}
				slices.Sort(took)
				b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
				b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
				for _, h := range hs {
					h.stop()
				}
			})
		}
	}
}

// propagation puts for two seconds and gives how long each put took.
func propagation(b *testing.B, hs []*agent, rate int) []time.Duration {
	b.Helper()
	type published struct {
		digest record.Digest
		at     time.Time
	}
	puts := make(chan published, rate*2)
	go func() {
		defer close(puts)
		tick := time.NewTicker(time.Second / time.Duration(rate))
		defer tick.Stop()
		for i := range rate * 2 {
			<-tick.C
			h := hs[i%len(hs)]
			o := h.put([]byte("value"), fmt.Sprintf("/p/%d/%d", rate, i))
			puts <- published{record.DigestOf(o.Block), time.Now()}
			h.node.Publish(o)
		}
	}()
	var took []time.Duration
	for p := range puts {
		for deadline := time.Now().Add(20 * time.Second); !heldByAll(hs, p.digest); time.Sleep(100 * time.Microsecond) {
			if time.Now().After(deadline) {
				b.Fatal("a block did not arrive")
			}
		}
		took = append(took, time.Since(p.at))
	}
	return took
}

func heldByAll(hs []*agent, d record.Digest) bool {
	return !slices.ContainsFunc(hs, func(h *agent) bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		_, ok := h.blocks[d]
		return !ok
	})
}

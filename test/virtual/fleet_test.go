package virtual

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"syncagent/crdtstore"
)

var fleetSize = flag.Int("agents", 0, "of the large fleet; 0: it is left out")

// TestLargeFleet prints how long a put takes to all agents of a large fleet, and what that and idleness cost in bytes.
// Virtual time counts the network alone: all computing takes none.
func TestLargeFleet(t *testing.T) {
	if *fleetSize == 0 {
		t.Skip("it takes minutes: -agents=100 runs it")
	}
	synctest.Test(t, func(t *testing.T) { measureFleet(t, *fleetSize) })
}

func measureFleet(t *testing.T, n int) {
	const (
		latency = 20 * time.Millisecond
		puts    = 200
	)
	f := newFleet(t, n, latency, 1)
	defer f.close()
	for _, a := range f.agents {
		a.start()
	}
	all := min(n-1, 64)
	took, left := within(2*time.Minute, func() string {
		for _, a := range f.agents {
			if c := a.connected(); c < all {
				return fmt.Sprintf("a%d has %d peers", a.place, c)
			}
		}
		return f.differ()
	})
	if left != "" {
		t.Fatal("fleet does not come up: ", left)
	}
	t.Logf("%d agents, links of %s: all connected %s after the start", n, latency, took)
	time.Sleep(time.Minute)

	idle := f.bytesDuring(func() { time.Sleep(time.Minute) })
	t.Logf("idle: %d bytes/s for each agent", idle/60)

	w := watchAll(f)
	defer w.stop()
	made := map[string]time.Time{}
	sent := f.bytesDuring(func() {
		for i := range puts {
			path := fmt.Sprintf("/put/%d", i)
			made[path] = time.Now()
			op := crdtstore.Op{Path: path, Value: make([]byte, 100)}
			if _, err := f.agents[rand.IntN(n)].Store.Write(context.Background(), []crdtstore.Op{op}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(50 * time.Millisecond)
		}
		if _, left := within(patience, f.differ); left != "" {
			t.Fatal("not equal: ", left)
		}
	})
	w.stop()
	last := w.delays(made)
	if len(last) != puts {
		t.Errorf("%d of %d puts were seen by all", len(last), puts)
	}
	slices.Sort(last)
	t.Logf("put to the last of %d agents at 20/s: p50 %s, p99 %s, longest %s", n, last[len(last)/2], last[len(last)*99/100], last[len(last)-1])
	t.Logf("%d bytes sent by each agent for each put of 100 bytes anywhere", (sent-idle/6)/puts)
}

// bytesDuring gives the mean of what each agent sent meanwhile.
func (f *fleet) bytesDuring(do func()) int64 {
	total := func() (sum int64) {
		for i := range f.network.sent {
			sum += f.network.sent[i].Load()
		}
		return sum
	}
	before := total()
	do()
	return (total() - before) / int64(len(f.agents))
}

// watchers note when each agent shows a path first.
type watchers struct {
	cancel context.CancelFunc
	done   sync.WaitGroup
	mu     sync.Mutex
	seen   map[string][]time.Time
	agents int
}

func watchAll(f *fleet) *watchers {
	ctx, cancel := context.WithCancel(context.Background())
	w := &watchers{cancel: cancel, seen: map[string][]time.Time{}, agents: len(f.agents)}
	for _, a := range f.agents {
		w.done.Go(func() {
			err := a.Store.Watch(ctx, crdtstore.WatchOptions{Prefixes: []string{"/put"}}, func(e crdtstore.Event) error {
				if e.Type == crdtstore.EventPut {
					w.mu.Lock()
					w.seen[e.Item.Path] = append(w.seen[e.Item.Path], time.Now())
					w.mu.Unlock()
				}
				return nil
			})
			if !errors.Is(err, context.Canceled) {
				f.t.Errorf("a%d: watch: %v", a.place, err)
			}
		})
	}
	return w
}

func (w *watchers) stop() {
	w.cancel()
	w.done.Wait()
}

// delays gives how long each put took to the last agent, of those that all have seen.
func (w *watchers) delays(made map[string]time.Time) (delays []time.Duration) {
	for path, at := range made {
		if seen := w.seen[path]; len(seen) >= w.agents {
			delays = append(delays, slices.MaxFunc(seen, time.Time.Compare).Sub(at))
		}
	}
	return delays
}

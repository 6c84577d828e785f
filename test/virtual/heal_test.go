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
	"syncagent/crdtstore/record"
)

var (
	seed      = flag.Uint64("seed", 0, "of the first schedule; 0: another one each time")
	schedules = flag.Int("schedules", 12, "how many to run")
)

// TestG11_PartitionsHeal runs schedules of partitions, loss and restarts with writes all the while. After the heal all
// agents have to be equal within 10 virtual seconds, and show of every path the highest acknowledged version.
func TestG11_PartitionsHeal(t *testing.T) {
	first := *seed
	if first == 0 {
		first = rand.Uint64() >> 16
	}
	count := *schedules
	if testing.Short() {
		count = min(count, 6)
	}
	var mu sync.Mutex
	var heals []time.Duration
	writes := 0
	t.Cleanup(func() {
		if len(heals) > 0 {
			slices.Sort(heals)
			t.Logf("%d writes, %d heals: p50 %s, p99 %s, longest %s", writes, len(heals), heals[len(heals)/2], heals[len(heals)*99/100], heals[len(heals)-1])
		}
	})
	for i := range count {
		s := first + uint64(i)
		t.Run(fmt.Sprintf("seed=%d", s), func(t *testing.T) {
			t.Parallel() // one alone keeps little more than one core busy
			synctest.Test(t, func(t *testing.T) {
				h, w := runSchedule(t, s)
				mu.Lock()
				defer mu.Unlock()
				heals = append(heals, h...)
				writes += w
			})
			if t.Failed() {
				t.Logf("go test ./test/virtual -run TestG11_PartitionsHeal -seed=%d -schedules=1", s)
			}
		})
	}
}

// history is what the writers were told. One goroutine drives all of them.
type history struct {
	best   map[string]record.Version // acknowledged, by path
	value  map[string]string         // empty: deleted
	writes int
}

func (h *history) note(v record.Version, ops []crdtstore.Op) {
	h.writes++
	for i, op := range ops {
		v.Index = uint16(i)
		if v.Compare(h.best[op.Path]) > 0 {
			h.best[op.Path], h.value[op.Path] = v, string(op.Value)
		}
	}
}

// runSchedule gives how long each of its heals took, and how many writes there were.
func runSchedule(t *testing.T, seed uint64) (heals []time.Duration, writes int) {
	r := rand.New(rand.NewPCG(seed, 1))
	n := 3 + r.IntN(8)
	f := newFleet(t, n, time.Duration(1+r.IntN(40))*time.Millisecond, seed)
	defer f.close()
	for _, a := range f.agents {
		if r.IntN(3) == 0 {
			a.offset = rand.N(4*time.Minute) - 2*time.Minute
		}
		a.start()
	}
	h := &history{best: map[string]record.Version{}, value: map[string]string{}}
	for round := range 1 + r.IntN(3) {
		shape, cut := drawCut(r, n)
		loss := []float64{0, 0, 0.05, 0.2}[r.IntN(4)]
		f.network.set(cut, loss)
		lasts := time.Duration(1+r.IntN(40)) * time.Second
		restarts := disturb(f, r, h, lasts)
		for _, a := range f.agents {
			if !a.running() {
				a.start()
			}
		}
		f.network.set(nil, 0)
		took, left := within(patience, f.differ)
		t.Logf("round %d: %d agents, %s, loss %.2f, %s, %d restarts: equal after %s", round, n, shape, loss, lasts, restarts, took)
		if left != "" {
			t.Fatalf("not equal %s after the heal: %s", patience, left)
		}
		heals = append(heals, took)
		h.check(t, f)
	}
	return heals, h.writes
}

// check compares every agent with the history.
func (h *history) check(t *testing.T, f *fleet) {
	t.Helper()
	for _, a := range f.agents {
		tree := a.tree()
		for path, want := range h.value {
			if tree[path] != want {
				t.Errorf("a%d shows %q at %s, the highest acknowledged version is %q", a.place, tree[path], path, want)
			}
			delete(tree, path)
		}
		if len(tree) > 0 {
			t.Errorf("a%d shows %d paths that nobody wrote", a.place, len(tree))
		}
	}
}

// disturb lets agents write, stop and start for a while.
func disturb(f *fleet, r *rand.Rand, h *history, lasts time.Duration) (restarts int) {
	for began := time.Now(); time.Since(began) < lasts; {
		a := f.agents[r.IntN(len(f.agents))]
		switch {
		case r.IntN(40) == 0 && a.running():
			a.stop()
			restarts++
		case !a.running():
			a.start()
		default:
			a.write(r, h)
		}
		time.Sleep(time.Duration(r.IntN(300)) * time.Millisecond)
	}
	return restarts
}

// write makes one write of some kind: own and shared paths, puts, deletes and batches.
func (a *agent) write(r *rand.Rand, h *history) {
	shared := func() crdtstore.Op {
		return crdtstore.Op{Path: fmt.Sprintf("/shared/%d", r.IntN(10)), Value: fmt.Appendf(nil, "%d by a%d", h.writes, a.place)}
	}
	own := crdtstore.Op{Path: fmt.Sprintf("/own/a%d/%d", a.place, r.IntN(50)), Value: fmt.Appendf(nil, "%d", h.writes)}
	var ops []crdtstore.Op
	switch r.IntN(5) {
	case 0, 1:
		ops = []crdtstore.Op{own}
	case 2:
		ops = []crdtstore.Op{shared()}
	case 3:
		ops = []crdtstore.Op{own, shared()}
	case 4:
		op := shared()
		op.Delete, op.Value = true, nil
		ops = []crdtstore.Op{op}
	}
	v, err := a.Store.Write(context.Background(), ops)
	switch {
	case err == nil:
		h.note(v, ops)
	case errors.Is(err, crdtstore.ErrNotFound): // a delete of what is not there
	default:
		a.t.Errorf("a%d: write: %v", a.place, err)
	}
}

// drawCut draws which links are cut.
func drawCut(r *rand.Rand, n int) (shape string, cut map[link]bool) {
	cut = map[link]bool{}
	apart := func(side func(i int) int) {
		for i := range n {
			for j := range n {
				if side(i) != side(j) {
					cut[link{i, j}] = true
				}
			}
		}
	}
	switch r.IntN(7) {
	case 0:
		shape = "two halves"
		order := r.Perm(n)
		apart(func(i int) int { return order[i] * 2 / n })
	case 1:
		shape = "one alone"
		alone := r.IntN(n)
		apart(func(i int) int { return min(max(i-alone, alone-i), 1) })
	case 2:
		shape = "each alone"
		apart(func(i int) int { return i })
	case 3:
		shape = "no bootstrap peers"
		for i := range min(3, n) {
			for j := range n {
				cut[link{i, j}], cut[link{j, i}] = true, true
			}
		}
	case 4:
		shape = "one way"
		deaf := r.IntN(n)
		for i := range n {
			cut[link{i, deaf}] = true
		}
	case 5:
		shape = "a chain"
		for i := range n {
			for j := range n {
				if i-j > 1 || j-i > 1 {
					cut[link{i, j}] = true
				}
			}
		}
	case 6:
		shape = "random links, each way"
		for i := range n {
			for j := range n {
				if r.IntN(2) == 0 {
					cut[link{i, j}] = true
				}
			}
		}
	}
	return shape, cut
}

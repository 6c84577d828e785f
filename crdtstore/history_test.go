package crdtstore

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"strings"
	"testing"
	"time"

	"syncagent/crdtstore/record"
)

var (
	historySeed  = flag.Uint64("seed", 0, "run only this seed of the random histories")
	historySeeds = flag.Uint64("seeds", 40, "how many seeds of the random histories to run")
)

// history is a random run of stores with different rights, beside a plain model that knows everything.
type history struct {
	*testNet
	nodes   []*node
	paths   []string
	policy  []byte
	model   map[string][]modelSlot // per path everything ever written
	read    [][]bool               // node, path
	write   [][]bool
	out     []bool            // node: its key is revoked
	last    []map[string]Item // per node what it showed last, for G4
	policy0 []uint64          // per node the serial at that time
}

type modelSlot struct {
	version record.Version
	author  int
	path    int
	value   string
	deleted bool
}

func newHistory(t *testing.T, seed uint64) *history {
	h := &history{testNet: newTestNet(t, seed), model: map[string][]modelSlot{}, paths: []string{"/a", "/b", "/b/c", "/d/e/f"}}
	names := []string{"n0", "n1", "n2", "n3", "n4"}
	for i := range names {
		h.read, h.write = append(h.read, nil), append(h.write, nil)
		for range h.paths {
			h.read[i] = append(h.read[i], i == 0 || h.rand.IntN(10) < 6)
			h.write[i] = append(h.write[i], h.rand.IntN(10) < 7)
		}
		h.out = append(h.out, false)
		h.last, h.policy0 = append(h.last, map[string]Item{}), append(h.policy0, 0)
	}
	h.newPolicy(names)
	for _, name := range names {
		nd := h.start(name, nil)
		nd.apply(h.policy)
		h.nodes = append(h.nodes, nd)
	}
	return h
}

// newPolicy writes the present rights down. Rules are prefixes, so /b covers /b/c: the model reads rights through may.
func (h *history) newPolicy(names []string) {
	lines := []string{"group @all " + strings.Join(names, " "), "@all peer"}
	for i, name := range names {
		for p, path := range h.paths {
			if h.read[i][p] {
				lines = append(lines, name+" "+path+" read")
			}
			if h.write[i][p] {
				lines = append(lines, name+" "+path+" write")
			}
		}
		if h.out[i] {
			lines = append(lines, "revoke "+record.KeyOf(testKey(name)).String())
		}
	}
	h.policy = h.testNet.policy(names, lines...)
}

func (h *history) may(rights [][]bool, node, path int) bool {
	if h.out[node] {
		return false
	}
	for p := range h.paths {
		if rights[node][p] && record.Covers(h.paths[p], h.paths[path]) {
			return true
		}
	}
	return false
}

// put writes one to three paths at a node and notes it in the model.
func (h *history) put(i int) {
	var ops []Op
	var where []int
	for _, p := range h.rand.Perm(len(h.paths))[:1+h.rand.IntN(3)] {
		ops = append(ops, Op{Path: h.paths[p], Value: []byte(fmt.Sprintf("v%d", h.rand.IntN(1_000_000))), Delete: h.rand.IntN(5) == 0})
		where = append(where, p)
	}
	before := map[string]Item{}
	for _, op := range ops {
		if item, ok := h.show(i, op.Path); ok {
			before[op.Path] = item
		}
	}
	v, err := h.nodes[i].Write(context.Background(), ops)
	if errors.Is(err, ErrDenied) {
		return
	}
	if err != nil {
		h.t.Fatal(err)
	}
	for k, op := range ops {
		v.Index = uint16(k)
		if old, ok := before[op.Path]; ok && old.Version.Compare(v) >= 0 {
			h.t.Fatalf("G3: node %d showed %s, then wrote %s to %s", i, old.Version, v, op.Path)
		}
		h.model[op.Path] = append(h.model[op.Path], modelSlot{v, i, where[k], string(op.Value), op.Delete})
	}
}

func (h *history) show(i int, path string) (Item, bool) {
	n, err := h.nodes[i].Snapshot()
	if err != nil {
		h.t.Fatal(err)
	}
	defer n.Close()
	item, err := n.Get(path, true)
	if errors.Is(err, ErrNotFound) {
		return Item{}, false
	}
	if err != nil {
		h.t.Fatal(err)
	}
	return item, true
}

// exchange lets node i take from node j: all blocks, with only some of the entries, and only some of its wants.
func (h *history) exchange(i, j int, whole bool) {
	a, b := h.nodes[i], h.nodes[j]
	if whole {
		a.pull(b)
		return
	}
	ctx := context.Background()
	var parcels []record.Parcel
	err := b.Missing(ctx, a.Vector(), a.self, func(p record.Parcel) error {
		c := record.Parcel{Block: p.Block}
		for _, e := range p.Entries {
			if h.rand.IntN(2) == 0 {
				c.Entries = append(c.Entries, e)
			}
		}
		parcels = append(parcels, c)
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
	if len(parcels) > 0 {
		if _, err := a.Ingest(ctx, b.self, parcels[:1+h.rand.IntN(len(parcels))]); err != nil {
			h.t.Fatal(err)
		}
	}
}

// check holds G4 and G5 and that nothing forbidden is shown, on every node.
func (h *history) check() {
	for i, nd := range h.nodes {
		serial := nd.Policy().Serial()
		if serial != h.policy0[i] {
			h.policy0[i], h.last[i] = serial, map[string]Item{}
		}
		for _, path := range h.paths {
			item, ok := h.show(i, path)
			if !ok {
				continue
			}
			if old, had := h.last[i][path]; had && old.Version.Compare(item.Version) > 0 {
				h.t.Fatalf("G4: node %d went back at %s from %s to %s", i, path, old.Version, item.Version)
			}
			h.last[i][path] = item
			found := false
			for _, m := range h.model[path] {
				found = found || m.version == item.Version && m.value == string(item.Value) && !m.deleted
			}
			if !found {
				h.t.Fatalf("node %d shows %s=%q at %s, which nobody wrote", i, path, item.Value, item.Version)
			}
		}
	}
}

// winners is the oracle: per path the highest version that the policy allows.
func (h *history) winners() map[string]modelSlot {
	out := map[string]modelSlot{}
	for path, slots := range h.model {
		for _, m := range slots {
			if best, ok := out[path]; h.may(h.write, m.author, m.path) && (!ok || m.version.Compare(best.version) > 0) {
				out[path] = m
			}
		}
	}
	return out
}

func (h *history) run(steps int) {
	names := []string{"n0", "n1", "n2", "n3", "n4"}
	for range steps {
		h.clock.advance(time.Duration(h.rand.IntN(50)) * time.Millisecond)
		i, j := h.rand.IntN(len(h.nodes)), h.rand.IntN(len(h.nodes))
		switch x := h.rand.IntN(100); {
		case x < 45:
			h.put(i)
		case x < 80:
			if i != j {
				h.exchange(i, j, h.rand.IntN(2) == 0)
			}
		case x < 88:
			p := h.rand.IntN(len(h.paths))
			switch y := h.rand.IntN(10); {
			case y < 4 && i != 0:
				h.read[i][p] = !h.read[i][p]
			case y < 9:
				h.write[i][p] = !h.write[i][p]
			case i != 0:
				h.out[i] = true // a revocation counts for ever
			}
			h.newPolicy(names)
			h.nodes[j].apply(h.policy)
		case x < 94: // kill -9: what was committed is there
			nd := h.nodes[i]
			disk := nd.disk.powerCut(1 << 30)
			nd.stop()
			h.nodes[i] = h.start(nd.name, disk)
			h.nodes[i].settle()
		default:
			h.nodes[i].clock.setOffset(time.Duration(h.rand.IntN(4000)-2000) * time.Millisecond)
		}
		h.check()
	}
}

func (h *history) heal() {
	for _, nd := range h.nodes {
		nd.apply(h.policy)
		nd.clock.setOffset(0)
	}
	h.clock.advance(10 * time.Second) // past all back-offs
	for range 3 {
		for _, a := range h.nodes {
			for _, b := range h.nodes {
				if a != b {
					a.pull(b)
				}
			}
		}
		h.clock.advance(2 * time.Minute)
	}
}

// TestG2_G3_G4_RandomHistories runs random writes, partial exchanges, policy changes, revocations, restarts and clock jumps
// on five stores with different rights, and compares them with the model after the heal.
func TestG2_G3_G4_RandomHistories(t *testing.T) {
	first, count := uint64(1), *historySeeds
	if *historySeed != 0 {
		first, count = *historySeed, 1
	}
	if testing.Short() || raceEnabled {
		count = min(count, 10)
	}
	for seed := first; seed < first+count; seed++ {
		// A failure is run again by go test -run TestG2_G3_G4_RandomHistories -seed=SEED.
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { runHistory(t, seed) })
	}
}

func runHistory(t *testing.T, seed uint64) {
	h := newHistory(t, seed)
	h.run(120)
	h.heal()
	h.check()
	winners := h.winners()
	for i, nd := range h.nodes {
		if nd.BlockDigest() != h.nodes[0].BlockDigest() {
			t.Fatalf("node %d has other blocks", i)
		}
		for p, path := range h.paths {
			item, shown := h.show(i, path)
			w, ok := winners[path]
			if !h.may(h.read, i, p) || !ok || w.deleted {
				if shown {
					t.Fatalf("node %d shows %s=%q, it should show nothing\n%s", i, path, item.Value, h.explain(i, path))
				}
				continue
			}
			if !shown || item.Version != w.version {
				t.Fatalf("node %d at %s: shows %v %s, the winner is %s by n%d\n%s",
					i, path, shown, item.Version, w.version, w.author, h.explain(i, path))
			}
		}
	}
	checkHeads(t, h.nodes...)
}

// explain says what is known of a path, by the model and by a node.
func (h *history) explain(i int, path string) string {
	var b strings.Builder
	for _, m := range h.model[path] {
		fmt.Fprintf(&b, "model %s by n%d %q deleted %v may %v\n", m.version, m.author, m.value, m.deleted, h.may(h.write, m.author, m.path))
	}
	s := h.nodes[i]
	n, err := s.Snapshot()
	if err != nil {
		return err.Error()
	}
	defer n.Close()
	k := s.network.PathKey(path)
	err = n.view.Scan(slotKey(k, record.Version{})[:17], nil, true, func(key, value []byte) (bool, error) {
		_, v, _ := parseSlotKey(key)
		sl, _ := decodeSlot(k, v, value)
		_, unready, _ := n.view.Get(unreadyKey(v.Write))
		_, want, _ := n.view.Get(wantKey(k, v))
		fmt.Fprintf(&b, "slot %s by %s state %d own %v allowed %v unready %v want %v due %v\n", v, s.Policy().Alias(sl.author), sl.state, sl.own, n.policy.Allowed(sl.author, sl.tags, v), unready, want, v.HLC.Milli() <= n.now+dueAhead.Milliseconds())
		return true, nil
	})
	return fmt.Sprint(b.String(), err)
}

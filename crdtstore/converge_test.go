package crdtstore

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"syncagent/crdtstore/record"
)

func TestG2_ConvergenceWhateverTheOrder(t *testing.T) {
	for seed := range uint64(20) {
		n, a, b, c := three(t, seed)
		nodes := []*node{a, b, c}
		for range 60 {
			x := nodes[n.rand.IntN(3)]
			switch n.rand.IntN(4) {
			case 0, 1:
				ops := []Op{}
				for i := range 1 + n.rand.IntN(3) {
					ops = append(ops, Op{
						Path: fmt.Sprintf("/p%d/%d", i, n.rand.IntN(4)), Value: []byte(fmt.Sprint(n.rand.IntN(1000))),
						Delete: n.rand.IntN(4) == 0,
					})
				}
				if _, err := x.Write(context.Background(), ops); err != nil {
					t.Fatal(err)
				}
			case 2:
				if y := nodes[n.rand.IntN(3)]; y != x {
					x.pull(y)
				}
			case 3:
				n.clock.advance(time.Duration(n.rand.IntN(100)) * time.Millisecond)
				x.clock.setOffset(time.Duration(n.rand.IntN(2000)-1000) * time.Millisecond)
			}
		}
		meet(nodes...)
		for _, x := range nodes[1:] {
			sx, sa := x.Stats(), a.Stats()
			if sx.ViewDigest != sa.ViewDigest || sx.BlockDigest != sa.BlockDigest || x.tree() != a.tree() || sx.Entries != sa.Entries {
				t.Fatalf("seed %d: %s and %s differ:\n%s\n%s", seed, a.name, x.name, a.tree(), x.tree())
			}
		}
		checkHeads(t, nodes...)
		for _, x := range nodes {
			x.stop()
		}
	}
}

func checkHeads(t *testing.T, nodes ...*node) {
	t.Helper()
	for _, x := range nodes {
		theirs, err := x.engine.heads()
		if err != nil {
			t.Fatal(err)
		}
		ours := x.Heads()
		if len(ours) != len(theirs) {
			t.Fatalf("%s: %d heads, go-ds-crdt has %d", x.name, len(ours), len(theirs))
		}
		for _, h := range theirs {
			if _, ok := x.dag.Load().heads[h]; !ok {
				t.Fatalf("%s: go-ds-crdt has head %s, we do not", x.name, h)
			}
		}
	}
}

func TestG3_LastWriteWinsByClockNotByHeight(t *testing.T) {
	n, a, b, c := three(t, 1)
	for i := range 20 { // a is busy: its chain is high
		a.put("/p", fmt.Sprint("old", i))
	}
	n.clock.advance(time.Hour)
	b.put("/p", "late") // b made one block, an hour later
	meet(a, b, c)
	for _, x := range []*node{a, b, c} {
		if got := x.get("/p"); got != "late" {
			t.Errorf("%s shows %q, want the later write", x.name, got)
		}
	}
}

func TestG3_PutAfterSeeingWins(t *testing.T) {
	_, a, b, c := three(t, 1)
	a.clock.setOffset(9 * time.Minute) // a is ahead
	a.put("/p", "from the future")
	b.pull(a)
	b.put("/p", "after seeing it")
	meet(a, b, c)
	if got := c.get("/p"); got != "after seeing it" {
		t.Fatalf("c shows %q", got)
	}
}

func TestFarFutureWriteIsShownWhenDue(t *testing.T) {
	for _, ahead := range []time.Duration{time.Hour, 30*time.Hour + 7*time.Minute} {
		n, a, b, _ := three(t, 1)
		b.put("/p", "now")
		a.clock.setOffset(ahead)
		a.put("/p", "later on")
		b.pull(a)
		if got := b.get("/p"); got != "now" {
			t.Fatalf("a write dated %s ahead shows at once: %q", ahead, got)
		}
		b.put("/p", "meanwhile")
		if got := b.get("/p"); got != "meanwhile" {
			t.Fatalf("a future write blocks its path: %q", got)
		}
		n.clock.advance(ahead - dueAhead - time.Second)
		b.put("/other", "wakes the store")
		if got := b.get("/p"); got != "meanwhile" {
			t.Fatalf("a write dated %s ahead shows before it is due: %q", ahead, got)
		}
		n.clock.advance(2 * time.Second)
		b.put("/other", "wakes the store")
		waitFor(t, func() bool { return b.get("/p") == "later on" })
	}
}

func TestG5_BatchIsAllOrNothing(t *testing.T) {
	_, a, b, c := three(t, 1)
	ctx := context.Background()
	b.put("/x/1", "before")
	a.pull(b)
	if _, err := a.Write(ctx, []Op{{Path: "/x/1", Value: []byte("after")}, {Path: "/x/2", Value: []byte("after")}}); err != nil {
		t.Fatal(err)
	}
	// The block reaches b with one of its two entries.
	var parcel record.Parcel
	if err := a.Missing(ctx, b.Vector(), b.self, func(p record.Parcel) error { parcel = p; return nil }); err != nil {
		t.Fatal(err)
	}
	parcel.Entries = parcel.Entries[:1]
	if _, err := b.Ingest(ctx, a.self, []record.Parcel{parcel}); err != nil {
		t.Fatal(err)
	}
	if got := b.tree(); got != "/x/1=before " {
		t.Fatalf("half a batch is visible: %q", got)
	}
	if b.Stats().Missing != 1 || b.Stats().Unready != 1 {
		t.Fatalf("want one missing entry of one write: %+v", b.Stats())
	}
	// It stays so over a restart, and is made good by whoever has the entry.
	disk := b.disk
	b.stop()
	b = newTestNetFrom(t, b).start("b", disk)
	if got := b.tree(); got != "/x/1=before " || b.Stats().Missing != 1 {
		t.Fatalf("after a restart: %q, %+v", got, b.Stats())
	}
	c.pull(a)
	b.fetch(c)
	if got := b.tree(); got != "/x/1=after /x/2=after " {
		t.Fatalf("after the entry came: %q", got)
	}
}

func newTestNetFrom(t *testing.T, nd *node) *testNet {
	n := newTestNet(t, 99)
	n.clock = nd.clock.testClock
	return n
}

func TestG10_ForeignRubbishIsRefused(t *testing.T) {
	n, a, b, _ := three(t, 1)
	a.put("/p", "v")
	ctx := context.Background()
	var good record.Parcel
	if err := a.Missing(ctx, nil, b.self, func(p record.Parcel) error { good = p; return nil }); err != nil {
		t.Fatal(err)
	}
	for i := range 200 {
		bad := record.Parcel{Block: bytes.Clone(good.Block)}
		bad.Block[n.rand.IntN(len(bad.Block))] ^= byte(1 << n.rand.IntN(8))
		res, err := b.Ingest(ctx, a.self, []record.Parcel{bad})
		if err != nil || res.Invalid == nil && len(res.Missing) == 0 {
			t.Fatalf("flip %d was taken: %+v, %v", i, res, err)
		}
	}
	res, err := b.Ingest(ctx, a.self, []record.Parcel{{Block: []byte("rubbish")}, good, {Entries: [][]byte{[]byte("rubbish")}}})
	if err != nil || res.New != 1 || res.Invalid == nil {
		t.Fatalf("one good block among rubbish: %+v, %v", res, err)
	}
	if b.get("/p") != "v" {
		t.Fatal("the good block did not arrive")
	}
}

func TestParkedBlocksWaitForTheirParents(t *testing.T) {
	_, a, b, _ := three(t, 1)
	for i := range 50 {
		a.put("/p", fmt.Sprint(i))
	}
	ctx := context.Background()
	var parcels []record.Parcel
	if err := a.Missing(ctx, nil, b.self, func(p record.Parcel) error { parcels = append(parcels, p); return nil }); err != nil {
		t.Fatal(err)
	}
	for i := len(parcels) - 1; i > 0; i-- { // newest first, the first one is kept back
		res, err := b.Ingest(ctx, a.self, parcels[i:i+1])
		if err != nil || res.New != 0 || len(res.Missing) == 0 {
			t.Fatalf("block %d: %+v, %v", i, res, err)
		}
	}
	if b.Stats().Parked != 0 && b.Stats().Blocks != 1 {
		t.Fatalf("%+v", b.Stats())
	}
	if _, err := b.Ingest(ctx, a.self, parcels[:1]); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return b.Stats().BlockDigest == a.Stats().BlockDigest })
	if got := b.get("/p"); got != "49" {
		t.Fatalf("b shows %q", got)
	}
}

func TestManyWritesThatBecomeReadyAtOnce(t *testing.T) {
	n := newTestNet(t, 1)
	a, b := n.start("a", nil), n.startOn("b", nil, t.TempDir())
	p := n.openPolicy()
	a.apply(p)
	b.apply(p)
	ctx := context.Background()
	deep := strings.Repeat("/"+strings.Repeat("d", 60), 15)
	for i := range 6 {
		var ops []Op
		for j := range 900 {
			ops = append(ops, Op{Path: fmt.Sprintf("%s/%d/%d", deep, i, j), Value: []byte("v")})
		}
		if _, err := a.Write(ctx, ops); err != nil {
			t.Fatal(err)
		}
	}
	// All blocks come with all entries but one each; then the last ones come together.
	err := a.Missing(ctx, nil, b.self, func(p record.Parcel) error {
		p.Entries = p.Entries[1:]
		res, err := b.Ingest(ctx, a.self, []record.Parcel{p})
		if res.Invalid != nil {
			return res.Invalid
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for b.Stats().Missing > 6 { // entries beyond what travels with a block
		wants := b.Wants(a.self, 1000)
		answers := a.Serve(b.self, wants)
		if err := b.Answered(ctx, a.self, wants[6:], answers[6:]); err != nil {
			t.Fatal(err)
		}
		n.clock.advance(2 * askAgain * time.Millisecond)
	}
	b.fetch(a)
	waitFor(t, func() bool { return b.Stats().ViewDigest == a.Stats().ViewDigest })
}

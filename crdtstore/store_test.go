package crdtstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"syncagent/acl"
	"syncagent/crdtstore/record"
)

var hosts = []string{"a", "b", "c"}

// open policy: three hosts that replicate and may do everything.
func (n *testNet) openPolicy() []byte {
	return n.policy(hosts, "group @hosts a b c", "@hosts peer", "@hosts / rw")
}

// three gives three nodes with the open policy.
func three(t *testing.T, seed uint64) (*testNet, *node, *node, *node) {
	n := newTestNet(t, seed)
	p := n.openPolicy()
	var nodes []*node
	for _, name := range hosts {
		nd := n.start(name, nil)
		nd.apply(p)
		nodes = append(nodes, nd)
	}
	return n, nodes[0], nodes[1], nodes[2]
}

func TestPutGetDelete(t *testing.T) {
	n := newTestNet(t, 1)
	a := n.start("a", nil)
	ctx := context.Background()
	if _, err := a.Write(ctx, []Op{{Path: "/x"}}); !errors.Is(err, ErrNoPolicy) {
		t.Fatalf("write without a policy: %v", err)
	}
	a.apply(n.openPolicy())
	v1 := a.put("/x/y", "one")
	v2 := a.put("/x/y", "two")
	if v2.Compare(v1) <= 0 {
		t.Fatalf("versions do not rise: %s, %s", v1, v2)
	}
	a.put("/x", "")
	if got := a.tree(); got != "/x= /x/y=two " {
		t.Fatalf("tree is %q", got)
	}
	if _, err := a.Write(ctx, []Op{{Path: "/x/y", Delete: true, MustExist: true}}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Write(ctx, []Op{{Path: "/x/y", Delete: true, MustExist: true}}); !errors.Is(err, ErrNotFound) {
		t.Fatalf("second delete: %v", err)
	}
	if got := a.get("/x/y"); got != "-" {
		t.Fatalf("deleted path gives %q", got)
	}
	if st := a.Stats(); st.Entries != 1 {
		t.Fatalf("%d entries, want 1", st.Entries)
	}
}

func TestPreconditions(t *testing.T) {
	n := newTestNet(t, 1)
	a := n.start("a", nil)
	a.apply(n.openPolicy())
	ctx := context.Background()
	none := record.Version{}
	v, err := a.Write(ctx, []Op{{Path: "/p", Value: []byte("1"), IfVersion: &none}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Write(ctx, []Op{{Path: "/p", IfVersion: &none}}); !errors.Is(err, ErrPrecondition) {
		t.Fatalf("put over an existing path with if-absent: %v", err)
	}
	whole := v
	whole.Index = AnyIndex
	if _, err := a.Write(ctx, []Op{{Path: "/p", Value: []byte("2"), IfVersion: &whole}}); err != nil {
		t.Fatalf("put over the version that is shown: %v", err)
	}
	if _, err := a.Write(ctx, []Op{{Path: "/q"}, {Path: "/p", IfVersion: &whole}}); !errors.Is(err, ErrPrecondition) {
		t.Fatalf("batch with a stale version: %v", err)
	}
	if got := a.tree(); got != "/p=2 " {
		t.Fatalf("a refused batch left %q", got)
	}
}

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

// checkHeads holds our heads against those of go-ds-crdt.
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

func waitFor(t testing.TB, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatal("condition never came true")
		}
		time.Sleep(time.Millisecond)
	}
}

func TestExpiry(t *testing.T) {
	n, a, b, _ := three(t, 1)
	ctx := context.Background()
	until := time.UnixMilli(n.clock.wall).Add(time.Minute)
	if _, err := a.Write(ctx, []Op{{Path: "/p", Value: []byte("short-lived-secret"), Expires: until}}); err != nil {
		t.Fatal(err)
	}
	if a.get("/p") != "short-lived-secret" {
		t.Fatal("not shown before its time is over")
	}
	n.clock.advance(2 * time.Minute)
	if a.get("/p") != "-" {
		t.Fatal("shown after its time was over")
	}
	a.put("/q", "wakes the store")
	waitFor(t, func() bool { return a.Stats().Entries == 1 && !a.disk.has([]byte("short-lived-secret")) })
	b.pull(a)
	if b.get("/p") != "-" || b.Stats().ViewDigest != a.Stats().ViewDigest || b.Stats().Unready != 0 {
		t.Fatalf("who gets only the stub does not agree: %v %v", b.Stats(), a.Stats())
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

// newTestNetFrom gives a net with the same genesis, to start one of its nodes again.
func newTestNetFrom(t *testing.T, nd *node) *testNet {
	n := newTestNet(t, 99)
	n.clock = nd.clock.testClock
	return n
}

func TestG6_UnauthorisedWriteIsNeverVisible(t *testing.T) {
	n := newTestNet(t, 1)
	p := n.policy([]string{"a", "b", "evil"}, "a peer", "b peer", "evil peer", "a / rw", "b / rw", "evil /evil rw")
	a, b := n.start("a", nil), n.start("b", nil)
	a.apply(p)
	b.apply(p)
	a.put("/certs/key", "good")
	// The hostile member has its own idea of the policy.
	evil := n.start("evil", nil)
	evil.apply(n.policy([]string{"evil"}, "evil peer", "evil / rw"))
	for _, text := range a.Policies() {
		if err := evil.SetPolicy(context.Background(), text); err != nil {
			t.Fatal(err)
		}
	}
	n.clock.advance(time.Second)
	evil.put("/certs/key", "bad")
	evil.put("/certs/new", "bad")
	evil.put("/evil/own", "fine")
	ctx := context.Background()
	var parcels []record.Parcel
	if err := evil.Missing(ctx, nil, evil.self, func(p record.Parcel) error { parcels = append(parcels, p); return nil }); err != nil {
		t.Fatal(err)
	}
	if res, err := b.Ingest(ctx, evil.self, parcels); err != nil || res.New != 3 {
		t.Fatalf("honest replicas hold the blocks all the same: %+v, %v", res, err)
	}
	meetPolicyless(a, b)
	for _, x := range []*node{a, b} {
		if got := x.tree(); got != "/certs/key=good /evil/own=fine " {
			t.Errorf("%s shows %q", x.name, got)
		}
		if x.disk.has([]byte("bad")) {
			t.Errorf("%s stored a value that its author may not write", x.name)
		}
	}
}

func meetPolicyless(a, b *node) { meet(a, b) }

func TestG7_BlindAgentHoldsNoByte(t *testing.T) {
	n := newTestNet(t, 1)
	a, b := n.start("a", nil), n.start("b", nil)
	p := n.policy(hosts, "group @hosts a b c", "@hosts peer", "a / rw", "b /public rw")
	a.apply(p)
	b.apply(p)
	a.put("/certs/secret-name", "secret-value")
	a.put("/public/x", "open")
	b.pull(a)
	if got := b.tree(); got != "/public/x=open " {
		t.Fatalf("b shows %q", got)
	}
	if b.Stats().BlockDigest != a.Stats().BlockDigest || b.Stats().Withheld != 1 || b.Stats().Missing != 0 {
		t.Fatalf("b does not hold the blocks, or misses something: %+v", b.Stats())
	}
	// Neither by asking, nor by being pushed.
	var w record.Want
	if err := a.Missing(context.Background(), nil, a.self, func(p record.Parcel) error {
		bl, err := record.ParseBlock(p.Block)
		if err == nil && w.Entry == (record.ID{}) {
			wr := bl.Writes[0]
			w = record.Want{PathKey: wr.Slots[0].PathKey(), Version: record.Version{HLC: wr.HLC, Write: wr.ID()}, Entry: wr.Slots[0].Entry}
			if _, err := b.Ingest(context.Background(), a.self, []record.Parcel{{Entries: p.Entries}}); err != nil {
				t.Error(err)
			}
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if got := a.Serve(b.self, []record.Want{w})[0]; got.Status != record.Denied || got.Entry != nil {
		t.Fatalf("asking by ID: %+v", got)
	}
	for _, needle := range []string{"secret-value", "secret-name", "/certs"} {
		if b.disk.has([]byte(needle)) {
			t.Errorf("%q lies in b's store", needle)
		}
	}
	// With the right come the entries, when it goes they go.
	p = n.policy(hosts, "group @hosts a b c", "@hosts peer", "a / rw", "b / rw")
	b.apply(p)
	a.apply(p)
	b.fetch(a)
	if got := b.get("/certs/secret-name"); got != "secret-value" {
		t.Fatalf("after the grant b shows %q", got)
	}
	b.apply(n.policy(hosts, "group @hosts a b c", "@hosts peer", "a / rw", "b /public rw"))
	if got := b.tree(); got != "/public/x=open " || b.disk.has([]byte("secret-value")) {
		t.Fatalf("after the right was withdrawn b shows %q", got)
	}
}

func TestPolicySwitchFallsBackToTheLastPermittedVersion(t *testing.T) {
	n, a, b, _ := three(t, 1)
	b.put("/p", "good")
	a.pull(b)
	n.clock.advance(time.Second)
	a.put("/p", "by a")
	b.pull(a)
	if b.get("/p") != "by a" {
		t.Fatal("the later write does not win")
	}
	b.apply(n.policy(hosts, "b peer", "b / rw", "a peer", "revoke "+a.self.String()))
	if got := b.tree(); got != "/p=good " {
		t.Fatalf("after the revocation b shows %q", got)
	}
}

func TestReadsJudgeAtOnceAfterAPolicySwitch(t *testing.T) {
	n, a, _, _ := three(t, 1)
	var ops []Op
	for i := range 1000 {
		ops = append(ops, Op{Path: fmt.Sprintf("/d/%d", i), Value: []byte("v")})
	}
	for range 3 {
		if _, err := a.Write(context.Background(), ops); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.SetPolicy(context.Background(), n.policy(hosts, "a peer", "a /e rw")); err != nil {
		t.Fatal(err)
	}
	if got := a.tree(); got != "" { // whether or not the rows are right already
		t.Fatalf("readable after the right was withdrawn: %.60q", got)
	}
	a.settle()
	if got := a.tree(); got != "" || a.Stats().Entries != 0 || a.Stats().ViewDigest != [32]byte{} {
		t.Fatalf("after the rows were put right: %.60q %+v", got, a.Stats())
	}
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

func TestRestartFindsEverything(t *testing.T) {
	n := newTestNet(t, 1)
	dir := t.TempDir()
	a := n.startOn("a", nil, dir)
	a.apply(n.openPolicy())
	for i := range 100 {
		a.put(fmt.Sprintf("/p/%d", i%40), fmt.Sprint(i))
	}
	big := strings.Repeat("x", 200<<10)
	a.put("/big", big)
	tree, st := a.tree(), a.Stats()
	a.stop()
	a = n.startOn("a", nil, dir)
	if a.tree() != tree || a.Stats().ViewDigest != st.ViewDigest || a.Stats().BlockDigest != st.BlockDigest || a.Incarnation() != st.Incarnation {
		t.Fatalf("not the same after a restart: %+v, %+v", st, a.Stats())
	}
	checkHeads(t, a)
	a.put("/p/1", "more")
	if _, err := Open(Options{Dir: dir, Network: n.id, Key: testKey("a")}); !errors.Is(err, ErrLocked) {
		t.Fatalf("second opening of one directory: %v", err)
	}
	a.stop()
	if _, err := Open(Options{Dir: dir, Network: record.NetworkID{1}, Key: testKey("a")}); !errors.Is(err, ErrNetwork) {
		t.Fatalf("opening for another network: %v", err)
	}
}

func TestClockNeverGoesBack(t *testing.T) {
	n := newTestNet(t, 1)
	a := n.start("a", nil)
	a.apply(n.openPolicy())
	v1 := a.put("/p", "1")
	a.clock.setOffset(-time.Hour)
	v2 := a.put("/q", "2")
	if v2.HLC < v1.HLC {
		t.Fatalf("the clock went back: %s after %s", v2.HLC, v1.HLC)
	}
	disk := a.disk
	a.stop()
	n.offset = -2 * time.Hour
	a = n.start("a", disk)
	if v3 := a.put("/r", "3"); v3.HLC < v2.HLC {
		t.Fatalf("the clock went back over a restart: %s after %s", v3.HLC, v2.HLC)
	}
}

func TestLargestWriteAndBlockFitOneTransaction(t *testing.T) {
	n := newTestNet(t, 1)
	a, b := n.startOn("a", nil, t.TempDir()), n.startOn("b", nil, t.TempDir())
	p := n.openPolicy()
	a.apply(p)
	b.apply(p)
	// As many slots as fit a block, of the longest and deepest paths, that expire.
	deep := strings.Repeat("/"+strings.Repeat("d", 31), 31)
	var ops []Op
	for i := range 865 {
		op := Op{Path: fmt.Sprintf("%s/%031d", deep, i), Value: make([]byte, 500), Expires: time.UnixMilli(n.clock.wall).Add(time.Hour)}
		ops = append(ops, op)
	}
	if _, err := a.Write(context.Background(), ops); err != nil {
		t.Fatalf("largest write: %v", err)
	}
	// 16 MiB of values in one write.
	value := bytes.Repeat([]byte("v"), 250<<10)
	ops = nil
	for i := range 64 {
		ops = append(ops, Op{Path: fmt.Sprintf("/v/%d", i), Value: value})
	}
	if _, err := a.Write(context.Background(), ops); err != nil {
		t.Fatalf("16 MB of values in one write: %v", err)
	}
	b.pull(a)
	if b.Stats().ViewDigest != a.Stats().ViewDigest {
		t.Fatalf("b differs: %+v %+v", a.Stats(), b.Stats())
	}
	if _, err := a.Write(context.Background(), append(ops, ops[0])); err == nil {
		t.Fatal("a path named twice was taken")
	}
	for i := range 4 {
		ops = append(ops, Op{Path: fmt.Sprintf("/w/%d", i), Value: value})
	}
	if _, err := a.Write(context.Background(), ops); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("17 MB in one write: %v", err)
	}
}

func TestG1_PowerCutKeepsWhatWasAcknowledged(t *testing.T) {
	n := newTestNet(t, 1)
	a := n.start("a", nil)
	a.apply(n.openPolicy())
	acked := map[string]string{}
	for i := range 30 {
		path, value := fmt.Sprintf("/p/%d", i%7), fmt.Sprint(i)
		a.put(path, value)
		acked[path] = value
	}
	for keep := range 3 {
		cut := n.start("a", a.disk.powerCut(keep))
		for path, value := range acked {
			if got := cut.get(path); got != value {
				t.Errorf("after a power cut %s is %q, acknowledged was %q", path, got, value)
			}
		}
		cut.stop()
	}
}

func TestHistoryTellsWinnersAndLosers(t *testing.T) {
	n, a, b, _ := three(t, 1)
	var values []string
	for i := range 15 {
		n.clock.advance(time.Second)
		a.put("/p", fmt.Sprint(i))
		values = append([]string{fmt.Sprint(i)}, values...)
	}
	b.pull(a)
	n.clock.advance(time.Second)
	if _, err := b.Write(context.Background(), []Op{{Path: "/p", Delete: true}}); err != nil {
		t.Fatal(err)
	}
	a.pull(b)
	sn, err := a.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer sn.Close()
	items, err := sn.History("/p", true)
	if err != nil || len(items) != 16 || !items[0].Deleted || items[0].Author != b.self {
		t.Fatalf("%d versions, %v", len(items), err)
	}
	for i, item := range items[1 : 1+keepNewest] {
		if string(item.Value) != values[i] {
			t.Errorf("version %d is %q, want %q", i, item.Value, values[i])
		}
	}
	if last := items[len(items)-1]; last.Size != -1 || last.Value != nil {
		t.Errorf("the oldest of 16 versions is still held: %+v", last)
	}
	if _, err := sn.History("/nothing", false); !errors.Is(err, ErrNotFound) {
		t.Errorf("history of nothing: %v", err)
	}
}

func TestSecondSignatureOfAPolicyIsKept(t *testing.T) {
	n := newTestNet(t, 1)
	second := testKey("second admin")
	n.genesis.Admins = append(n.genesis.Admins, record.KeyOf(second))
	a := n.start("a", nil)
	p := n.openPolicy()
	a.apply(p)
	a.apply(acl.Sign(p, n.id, second))
	a.put("/p", "v")
	disk := a.disk
	a.stop()
	n.genesis.Admins = n.genesis.Admins[1:] // the first admin is no longer pinned
	a = n.start("a", disk)
	if a.Policy() == nil || a.get("/p") != "v" {
		t.Fatal("the policy went with its first signer")
	}
}

func TestPolicyOlderThanTheJoinTokenStaysOut(t *testing.T) {
	n := newTestNet(t, 1)
	old := n.policy(hosts, "a peer", "a / rw", "revoke "+record.KeyOf(testKey("c")).String())
	joined := n.openPolicy()
	now, err := acl.ParseSigned(joined)
	if err != nil {
		t.Fatal(err)
	}
	o := n.options("a")
	o.kv, o.MinSerial, o.MinHash = newMemKV(), now.Serial, now.Hash
	a := n.run("a", o)
	if err := a.SetPolicy(context.Background(), old); !errors.Is(err, ErrPolicy) || a.Policy() != nil {
		t.Fatalf("an older policy: %v, in force %v", err, a.Policy().Serial())
	}
	a.apply(joined)
	if a.Policy().Serial() != now.Serial {
		t.Fatal("the policy of the token is not in force")
	}
	if a.Policy().Member(record.KeyOf(testKey("c"))) {
		t.Fatal("a revocation of an older text does not count")
	}
}

func TestCorruptedValueIsAnErrorNeverAWrongAnswer(t *testing.T) {
	n := newTestNet(t, 1)
	a := n.start("a", nil)
	a.apply(n.openPolicy())
	a.put("/p", "the right value")
	a.put("/other", "fine")
	a.disk.mu.Lock()
	a.disk.rows.Scan(func(r memRow) bool {
		if i := bytes.Index(r.value, []byte("the right value")); i >= 0 {
			r.value[i] ^= 1
		}
		return true
	})
	a.disk.mu.Unlock()
	sn, err := a.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer sn.Close()
	if item, err := sn.Get("/p", true); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("a flipped bit reads as %q, %v", item.Value, err)
	}
	if !a.alarmed("corrupt") {
		t.Error("no alarm")
	}
	if item, err := sn.Get("/other", true); err != nil || string(item.Value) != "fine" {
		t.Errorf("the other value: %q, %v", item.Value, err)
	}
	err = a.Missing(context.Background(), nil, a.self, func(p record.Parcel) error {
		for _, e := range p.Entries {
			if bytes.Contains(e, []byte("right value")) {
				t.Error("a damaged entry is handed on")
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
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

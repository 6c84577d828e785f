package crdtstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

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

// newTestNetFrom gives a net with the same genesis, to start one of its nodes again.

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
	remains := filepath.Join(dir, "store", "99999.mem") // as a start after a crash removes it
	if err := os.WriteFile(remains, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Options{Dir: dir, Network: n.id, Key: testKey("a")}); !errors.Is(err, ErrLocked) {
		t.Fatalf("second opening of one directory: %v", err)
	}
	if err := os.Remove(remains); err != nil {
		t.Errorf("who has no lock changed something: %v", err)
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

func TestLargestWriteAndBlockAreCommitted(t *testing.T) {
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

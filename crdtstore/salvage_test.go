package crdtstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"syncagent/crdtstore/record"
)

// fillStore gives a store on disk with enough rows for tables, closed.
func fillStore(t *testing.T, n *testNet, dir string) (digest [32]byte) {
	a := n.startOn("a", nil, dir)
	a.apply(n.openPolicy())
	value := bytes.Repeat([]byte("v"), 1000)
	for i := range 30 {
		var ops []Op
		for j := range 500 {
			n.rand.Uint64()
			copy(value, fmt.Sprint(n.rand.Uint64(), n.rand.Uint64(), n.rand.Uint64()))
			ops = append(ops, Op{Path: fmt.Sprintf("/p/%d/%d", i, j), Value: bytes.Clone(value)})
		}
		if _, err := a.Write(context.Background(), ops); err != nil {
			t.Fatal(err)
		}
	}
	digest = a.Stats().ViewDigest
	a.stop()
	return digest
}

func largest(t *testing.T, pattern string) string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no file %s: %v", pattern, err)
	}
	best, size := "", int64(-1)
	for _, f := range files {
		if fi, err := os.Stat(f); err == nil && fi.Size() > size {
			best, size = f, fi.Size()
		}
	}
	return best
}

func TestDamagedStoreIsSetAsideAndRebuilt(t *testing.T) {
	damage := map[string]func(t *testing.T, dir string){
		"truncated table": func(t *testing.T, dir string) {
			if err := os.Truncate(largest(t, dir+"/*.sst"), 1000); err != nil {
				t.Fatal(err)
			}
		},
		"manifest gone": func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, "MANIFEST")); err != nil {
				t.Fatal(err)
			}
		},
		"manifest garbage": func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, "MANIFEST"), []byte("garbage"), 0o600); err != nil {
				t.Fatal(err)
			}
		},
	}
	for name, hurt := range damage {
		t.Run(name, func(t *testing.T) {
			n := newTestNet(t, 1)
			dir := t.TempDir()
			digest := fillStore(t, n, dir)
			b := n.start("b", nil) // has everything
			good := n.startOn("a", nil, dir)
			b.pull(good)
			inc := good.Incarnation()
			good.stop()

			hurt(t, filepath.Join(dir, "store"))
			a := n.startOn("a", nil, dir)
			if !a.alarmed("store-damaged") {
				t.Fatal("no alarm")
			}
			if a.Incarnation() == inc {
				t.Error("the new store goes on with the old incarnation")
			}
			if _, err := os.Stat(largest(t, dir+"/"+asideName+"*")); err != nil {
				t.Error("the damaged store was not kept")
			}
			meet(a, b)
			if a.Stats().ViewDigest != digest {
				t.Error("not equal after the rebuild")
			}
			a.put("/new", "goes on")
			meet(a, b)
			if b.get("/new") != "goes on" {
				t.Error("writes do not go on")
			}
		})
	}
}

// TestRebuildCallsNobody: who opens a store is not ready to be called before Open returns.
func TestRebuildCallsNobody(t *testing.T) {
	n := newTestNet(t, 1)
	dir := t.TempDir()
	digest := fillStore(t, n, dir)
	if err := os.WriteFile(filepath.Join(dir, "store", "MANIFEST"), []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	o := n.options("a")
	o.Dir = dir
	o.OnCommit = func([]record.Outgoing) { t.Error("own blocks are announced before Open returns") }
	o.OnPolicy = func() { t.Error("a policy is announced before Open returns") }
	o.OnWants = func() { t.Error("wants are announced before Open returns") }
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	if s.Policy() == nil || s.Stats().ViewDigest != digest {
		t.Errorf("not carried over: %+v", s.Stats())
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestSalvageKeepsWhatNobodyElseHas opens a store that lost a single row that load needs: everything else is carried
// over without any peer.
func TestSalvageKeepsWhatNobodyElseHas(t *testing.T) {
	n := newTestNet(t, 1)
	dir := t.TempDir()
	digest := fillStore(t, n, dir)
	b, err := openBadger(filepath.Join(dir, "store"), n.options("a").Log)
	if err != nil {
		t.Fatal(err)
	}
	r := newRows()
	r.set(countersKey, []byte("garbage"))
	if err := errors.Join(b.Commit(r), b.Close()); err != nil {
		t.Fatal(err)
	}
	a := n.startOn("a", nil, dir)
	if !a.alarmed("store-damaged") || a.Stats().ViewDigest != digest {
		t.Fatalf("not carried over: %+v", a.Stats())
	}
}

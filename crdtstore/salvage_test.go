package crdtstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

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
		"flipped bit": flipBit,
		"manifest gone": func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, "MANIFEST")); err != nil {
				t.Fatal(err)
			}
		},
		"manifest cut": func(t *testing.T, dir string) {
			if err := os.Truncate(filepath.Join(dir, "MANIFEST"), 8); err != nil {
				t.Fatal(err)
			}
		},
		"manifest cut, and killed in the start after it": func(t *testing.T, dir string) {
			tables, err := filepath.Glob(dir + "/*.sst")
			if err := errors.Join(err, os.Truncate(filepath.Join(dir, "MANIFEST"), 8)); err != nil {
				t.Fatal(err)
			}
			for _, f := range tables {
				if err := os.Rename(f, filepath.Join(dir, lostPrefix+filepath.Base(f))); err != nil {
					t.Fatal(err)
				}
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
			// Writes of which the last entry has come show in the turns after it.
			for deadline := time.Now().Add(30 * time.Second); a.Stats().ViewDigest != digest; time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("not equal after the rebuild: %+v", a.Stats())
				}
			}
			a.put("/new", "goes on")
			meet(a, b)
			if b.get("/new") != "goes on" {
				t.Error("writes do not go on")
			}
		})
	}
}

// TestEveryFileOfAStoreMayBeDamaged: whatever befalls one of its files, a killed store opens and is equal to the others
// when it has met them.
func TestEveryFileOfAStoreMayBeDamaged(t *testing.T) {
	n := newTestNet(t, 1)
	dir, b := t.TempDir(), n.start("b", nil)
	for _, rows := range []string{"table", "log"} {
		a := n.startOn("a", nil, dir)
		if a.Policy() == nil {
			a.apply(n.openPolicy())
		}
		for i := range 50 {
			a.put(fmt.Sprintf("/%s/%d", rows, i), fmt.Sprint(n.rand.Uint64()))
		}
		meet(a, b)
		if rows == "table" {
			a.stop()
		}
	}
	kinds := []struct {
		name string
		hurt func(data []byte, written int) []byte
	}{
		{"flip", func(data []byte, written int) []byte {
			if written > 0 {
				data[n.rand.IntN(written)] ^= 1 << n.rand.IntN(8)
			}
			return data
		}},
		{"cut", func(data []byte, written int) []byte { return data[:written/2] }},
		{"gone", func([]byte, int) []byte { return nil }},
	}
	image := killed(t, filepath.Join(dir, "store"))
	files, err := os.ReadDir(image)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		data, err := os.ReadFile(filepath.Join(image, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		for _, kind := range kinds {
			t.Run(f.Name()+" "+kind.name, func(t *testing.T) {
				dir := t.TempDir()
				store := filepath.Join(dir, "store")
				if err := os.CopyFS(store, os.DirFS(image)); err != nil {
					t.Fatal(err)
				}
				name := filepath.Join(store, f.Name())
				err := os.Remove(name)
				if after := kind.hurt(bytes.Clone(data), len(bytes.TrimRight(data, "\x00"))); err == nil && after != nil {
					err = os.WriteFile(name, after, 0o600)
				}
				if err != nil {
					t.Fatal(err)
				}
				a := n.startOn("a", nil, dir)
				defer a.stop()
				meet(a, b)
				if a.tree() != b.tree() || a.BlockDigest() != b.BlockDigest() {
					t.Errorf("not equal to the other: %+v, want %+v", a.Stats(), b.Stats())
				}
			})
		}
	}
}

// TestWhatTheHostLacksIsNoDamage: a store that cannot be opened for want of something is not set aside.
func TestWhatTheHostLacksIsNoDamage(t *testing.T) {
	for _, e := range []syscall.Errno{syscall.EMFILE, syscall.ENOSPC, syscall.ENOMEM, syscall.EROFS} {
		path := &os.PathError{Op: "open", Path: "1.sst", Err: e}
		quoted := fmt.Errorf("open store: while opening memtables err: %+v", path) //nolint:errorlint // as badger does
		if damaged(path) || damaged(quoted) {
			t.Errorf("%v is taken for damage", e)
		}
	}
	for _, err := range []error{ErrCorrupt, &os.PathError{Op: "read", Path: "1.sst", Err: syscall.EIO}, errors.New("no magic")} {
		if !damaged(err) {
			t.Errorf("%v is not taken for damage", err)
		}
	}
}

// TestTableBeingWrittenIsNoDamage: a table that was not complete when the agent was killed, or is not yet, belongs to no
// store, and one that was not named yet, or is not any more, has nothing that the store lacks.
func TestTableBeingWrittenIsNoDamage(t *testing.T) {
	n := newTestNet(t, 1)
	dir := t.TempDir()
	digest := fillStore(t, n, dir)
	half := func(name string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "store", name), make([]byte, 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	half("900001.sst")
	whole, err := os.ReadFile(largest(t, dir+"/store/*.sst"))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "store", "900003.sst"), whole, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	a := n.startOn("a", nil, dir)
	if a.alarmed("store-damaged") || a.Stats().ViewDigest != digest {
		t.Error("the start took it for a damaged store")
	}
	if left, err := filepath.Glob(filepath.Join(dir, "store", "*90000*")); err != nil || len(left) > 0 {
		t.Errorf("%v is left: %v", left, err)
	}
	half("900002.sst")
	if err := a.kv.Verify(); err != nil {
		t.Errorf("the daily look took it for damage: %v", err)
	}
}

// TestDeletedRowIsNotLost: a commit that is taken back deletes blocks, which a table that is not named may still have.
func TestDeletedRowIsNotLost(t *testing.T) {
	b, err := openBadger(t.TempDir(), newTestNet(t, 1).options("a").Log)
	if err != nil {
		t.Fatal(err)
	}
	r := newRows()
	r.set([]byte("b1"), []byte("x"))
	deleted := newRows()
	deleted.delete([]byte("b1"))
	if err := errors.Join(b.Commit(r), b.Commit(deleted)); err != nil {
		t.Fatal(err)
	}
	txn := b.db.NewTransactionAt(b.number, false)
	for key, want := range map[string]bool{"b1": true, "b2": false} {
		if has, err := hasRow(txn, []byte(key)); has != want || err != nil {
			t.Errorf("%s: %t, %v", key, has, err)
		}
	}
	txn.Discard()
	if err := b.Close(); err != nil {
		t.Error(err)
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

// flipBit changes one bit of a table, where the slots lie.
func flipBit(t *testing.T, dir string) {
	name := largest(t, dir+"/*.sst")
	b, err := os.ReadFile(name)
	if err == nil {
		b[len(b)*3/4] ^= 4
		err = os.WriteFile(name, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestSalvageLosesOneBlockOfATableOnly: an iterator over a table ends at the first bad block, the others are good all
// the same.
func TestSalvageLosesOneBlockOfATableOnly(t *testing.T) {
	n := newTestNet(t, 1)
	dir := t.TempDir()
	fillStore(t, n, dir)
	flipBit(t, filepath.Join(dir, "store"))
	a := n.startOn("a", nil, dir)
	if !a.alarmed("store-damaged") {
		t.Error("no alarm")
	}
	// A write of which an entry is lost is not shown; the flipped block has entries of a few of the 30 writes.
	if got := a.Stats(); got.Blocks != 31 || got.Entries < 10_000 || got.Entries == 15_000 {
		t.Errorf("%d blocks, %d entries", got.Blocks, got.Entries)
	}
}

// inFiles tells whether bytes occur in any file below dir.
func inFiles(t *testing.T, dir, needle string) bool {
	t.Helper()
	found := false
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		found = found || bytes.Contains(b, []byte(needle))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestG7_WithdrawnRightLeavesNoByteAfterARestart(t *testing.T) {
	n := newTestNet(t, 1)
	dir := t.TempDir()
	a, b := n.start("a", nil), n.startOn("b", nil, dir)
	p := n.openPolicy()
	a.apply(p)
	b.apply(p)
	secret, name := fmt.Sprintf("%x", n.rand.Uint64()), fmt.Sprintf("%x", n.rand.Uint64())
	a.put("/certs/"+name, secret)
	a.put("/public/x", "open")
	b.pull(a)
	if b.get("/certs/"+name) != secret || !inFiles(t, dir, secret) {
		t.Fatal("b should have had it")
	}
	narrow := n.policy(hosts, "group @hosts a b c", "@hosts peer", "a / rw", "b /public rw")
	b.apply(narrow)
	b.stop()
	b = n.startOn("b", nil, dir)
	if inFiles(t, dir, secret) || inFiles(t, dir, name) {
		t.Fatal("bytes of what b may no longer read are left in its files")
	}
	a.apply(narrow)
	a.put("/public/y", "more")
	b.pull(a)
	if b.tree() != "/public/x=open /public/y=more " || b.BlockDigest() != a.BlockDigest() {
		t.Fatalf("the rewritten store does not go on: %s", b.tree())
	}
	checkHeads(t, b)
	b.stop()
	for _, left := range []string{scrubNew, scrubOld} {
		if _, err := os.Stat(filepath.Join(dir, "store"+left)); err == nil {
			t.Errorf("%s is left", left)
		}
	}
}

// TestScrubSurvivesACrash starts from each state that a crash in a rewrite can leave.
func TestScrubSurvivesACrash(t *testing.T) {
	n := newTestNet(t, 1)
	dir := t.TempDir()
	store := filepath.Join(dir, "store")
	digest := fillStore(t, n, dir)
	copyTo := func(name string) {
		if err := os.CopyFS(store+name, os.DirFS(store)); err != nil {
			t.Fatal(err)
		}
	}
	open := func(what string) {
		t.Helper()
		a := n.startOn("a", nil, dir)
		if a.Stats().ViewDigest != digest || a.alarmed("store-damaged") {
			t.Errorf("%s: the store is not the same", what)
		}
		if err := a.RequestScrub(); err != nil {
			t.Error(err)
		}
		a.stop()
	}
	open("asked for")
	if err := os.MkdirAll(store+scrubNew, 0o700); err != nil {
		t.Fatal(err)
	}
	open("half written")
	copyTo(scrubNew)
	if err := os.Rename(store, store+scrubOld); err != nil {
		t.Fatal(err)
	}
	open("between the renames")
	copyTo(scrubOld)
	open("before the old one was removed")
}

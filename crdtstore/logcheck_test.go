package crdtstore

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// loggedStore gives the files of a store that was killed after some puts, all of which are in its log, and the log.
func loggedStore(t *testing.T, n *testNet, puts int) (dir, name string, log []byte) {
	t.Helper()
	origin := t.TempDir()
	a := n.startOn("a", nil, origin)
	a.apply(n.openPolicy())
	for i := range puts {
		a.put(fmt.Sprintf("/p/%d", i), fmt.Sprint(i, " ", n.rand.Uint64()))
	}
	dir = t.TempDir()
	if err := os.Rename(killed(t, filepath.Join(origin, "store")), filepath.Join(dir, "store")); err != nil {
		t.Fatal(err)
	}
	a.stop()
	name = largest(t, dir+"/store/*.mem")
	log, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return dir, name, log
}

// TestWhatACrashLeavesInALogIsNoDamage cuts a log off anywhere, and leaves pages behind the place unwritten.
func TestWhatACrashLeavesInALogIsNoDamage(t *testing.T) {
	n := newTestNet(t, 1)
	dir, name, log := loggedStore(t, n, 50)
	end := len(bytes.TrimRight(log, "\x00"))
	check := func(what string, image []byte, at int) {
		t.Helper()
		if err := os.WriteFile(name, image, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := checkLogs(filepath.Join(dir, "store")); err != nil {
			t.Fatalf("%s at %d: %v", what, at, err)
		}
	}
	check("nothing", log, end)
	log = log[:(end/4096+2)*4096] // the rest is zeros
	for range 300 {
		at := logHead + n.rand.IntN(end-logHead)
		image := bytes.Clone(log)
		clear(image[at:])
		check("killed", image, at)
		image = bytes.Clone(log)
		for page := at / 4096; page*4096 < end; page++ {
			if n.rand.IntN(2) == 0 {
				clear(image[page*4096 : (page+1)*4096])
			}
		}
		check("power cut", image, at)
	}
}

// TestFlawInALog holds that a change at any place of a log is noticed, and that what lies behind it is carried over.
func TestFlawInALog(t *testing.T) {
	n := newTestNet(t, 1)
	dir, name, log := loggedStore(t, n, 50)
	end := len(bytes.TrimRight(log, "\x00"))
	log = log[:(end/4096+2)*4096]
	for range 300 {
		at := logHead + n.rand.IntN(end-logHead)
		image := bytes.Clone(log)
		if n.rand.IntN(2) == 0 {
			image[at] ^= 1 << n.rand.IntN(8)
		} else {
			copy(image[at:], bytes.Repeat([]byte{0xff}, 40)) // lengths beyond all bounds
		}
		if err := os.WriteFile(name, image, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := checkLogs(filepath.Join(dir, "store")); !errors.Is(err, ErrCorrupt) {
			t.Errorf("at %d of %d: %v", at, end, err)
		}
	}
}

func TestFlawInALogLosesOneRow(t *testing.T) {
	n := newTestNet(t, 1)
	dir, name, log := loggedStore(t, n, 50)
	value := bytes.Index(log, []byte("20 "))
	for hurt, flaw := range map[string][]byte{"a bit": {'3'}, "garbage": bytes.Repeat([]byte{0xff}, 20)} {
		image := bytes.Clone(log)
		copy(image[value:], flaw)
		if err := os.WriteFile(name, image, 0o600); err != nil {
			t.Fatal(err)
		}
		copied := t.TempDir()
		if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		a := n.startOn("a", nil, copied)
		got := a.Stats()
		if !a.alarmed("store-damaged") || got.Blocks != 51 || got.Entries != 49 {
			t.Errorf("%s: alarm %t, %d blocks, %d entries", hurt, a.alarmed("store-damaged"), got.Blocks, got.Entries)
		}
		a.stop()
	}
}

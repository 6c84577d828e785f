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

func backupOf(t *testing.T, nd *node, reader string) []byte {
	t.Helper()
	var b bytes.Buffer
	last := int64(0)
	progress := func(done, total int64) {
		if last = done; done > total {
			t.Errorf("%d of %d blocks", done, total)
		}
	}
	if _, err := nd.Backup(context.Background(), record.KeyOf(testKey(reader)), BackupHead{Name: nd.name}, &b, progress); err != nil {
		t.Fatal(err)
	}
	if want := nd.Stats().Blocks; last > want {
		t.Errorf("wrote %d blocks of %d", last, want)
	}
	return b.Bytes()
}

func restoreTo(n *testNet, dir, name string, backup []byte, policies ...[]byte) (Restored, error) {
	b, err := ReadBackup(bytes.NewReader(backup))
	if err != nil {
		return Restored{}, err
	}
	o := n.options(name)
	o.Dir, o.Clock = dir, &offsetClock{testClock: n.clock}
	return Restore(context.Background(), o, b, policies...)
}

// A store with what can be in one: batches, deletes, history, values of all sizes, two origins, an expired one.
func storeToBackUp(n *testNet) *node {
	a, b := n.start("a", nil), n.start("b", nil)
	policy := n.policy([]string{"a", "b", "c"}, "group @all a b c", "@all peer", "@all /open rw", "a / rw", "b /b rw")
	a.apply(policy)
	b.apply(policy)
	for i := range 20 {
		a.put("/open/again", fmt.Sprint(i))
	}
	a.put("/secret/of/a", "only a and whoever reads all may see it")
	var ops []Op
	for i := range 12 { // more than travels with its block
		ops = append(ops, Op{Path: fmt.Sprintf("/open/large/%d", i), Value: bytes.Repeat([]byte{byte(i)}, 200<<10)})
	}
	if _, err := a.Write(context.Background(), ops); err != nil {
		n.t.Fatal(err)
	}
	a.put("/open/gone", "x")
	if _, err := a.Write(context.Background(), []Op{{Path: "/open/gone", Delete: true}}); err != nil {
		n.t.Fatal(err)
	}
	a.putLarge("/open/huge", largeValue(1, 600<<10), "/open/huge/twin", largeValue(1, 600<<10))
	a.putLarge("/secret/huge", "whoever reads all"+largeValue(2, 300<<10))
	b.put("/b/mine", "1")
	b.put("/open/again", "b was here")
	meet(a, b)
	return a
}

func TestG1_BackupComesBackElsewhere(t *testing.T) {
	n := newTestNet(t, 1)
	a := storeToBackUp(n)
	want, tree := a.Stats(), a.tree()
	backup := backupOf(t, a, "a")
	inc := a.Incarnation()
	a.stop()

	dir := t.TempDir()
	got, err := restoreTo(n, dir, "a", backup)
	if err != nil {
		t.Fatal(err)
	}
	if got.Blocks != want.Blocks-1 || got.Stats.Entries != want.Entries || got.Stats.ViewDigest != want.ViewDigest {
		t.Errorf("restored %d blocks, %d entries, want %d (without genesis), %d", got.Blocks, got.Stats.Entries, want.Blocks-1, want.Entries)
	}
	again := n.startOn("a", nil, dir)
	if files, err := filepath.Glob(filepath.Join(dir, "chunks", "*", "*")); err != nil || len(files) != 8 {
		t.Errorf("%d files of 8 chunks, %v", len(files), err)
	}
	if again.tree() != tree || again.Stats().ViewDigest != want.ViewDigest || again.BlockDigest() != want.BlockDigest {
		t.Error("the restored store shows something else")
	}
	if again.Incarnation() == inc {
		t.Error("no new incarnation")
	}
	// It goes on as a member: its new writes reach others, who hold its old ones.
	c := n.start("c", nil)
	c.apply(a.Policies()[0])
	again.put("/open/again", "after the restore")
	meet(c, again)
	if c.get("/open/again") != "after the restore" {
		t.Errorf("c shows %q", c.get("/open/again"))
	}
}

func TestG7_BackupHoldsWhatItsReaderMayRead(t *testing.T) {
	n := newTestNet(t, 2)
	a := storeToBackUp(n)
	backup := backupOf(t, a, "c")
	chunks := t.TempDir()
	if _, err := restoreTo(n, chunks, "c", backupOf(t, a, "a")); err != nil {
		t.Fatal(err)
	}
	if files, err := filepath.Glob(filepath.Join(chunks, "chunks", "*", "*")); err != nil || len(files) != 6 {
		t.Errorf("c has %d files of the 6 chunks that it may read, %v", len(files), err)
	}
	if bytes.Contains(backup, []byte("/secret/of/a")) || bytes.Contains(backup, []byte("whoever reads all")) {
		t.Error("the backup for c holds what c may not read")
	}
	if !bytes.Contains(backup, []byte("b was here")) {
		t.Error("the backup for c holds nothing that c may read")
	}
	_, err := a.Backup(context.Background(), record.KeyOf(testKey("stranger")), BackupHead{}, &bytes.Buffer{}, nil)
	if !errors.Is(err, ErrDenied) {
		t.Errorf("backup for no member: %v", err)
	}
	// Restored under another identity it shows what that one may read.
	dir := t.TempDir()
	if _, err := restoreTo(n, dir, "c", backupOf(t, a, "a")); err != nil {
		t.Fatal(err)
	}
	c := n.startOn("c", nil, dir)
	if tree := c.tree(); strings.Contains(tree, "secret") || !strings.Contains(tree, "/open/again") {
		t.Errorf("c shows %s", tree)
	}
}

// An identity that the backup's policies do not name is admitted by a further one.
func TestRestoreWithAFurtherPolicy(t *testing.T) {
	n := newTestNet(t, 3)
	a := storeToBackUp(n)
	backup, entries := backupOf(t, a, "a"), a.Stats().Entries
	got, err := restoreTo(n, t.TempDir(), "new", backup)
	if err != nil || got.Stats.Entries != 0 {
		t.Errorf("a stranger restored %d entries, %v", got.Stats.Entries, err)
	}
	admit := n.policy([]string{"a", "b", "c", "new"}, "group @all a b c new", "@all peer", "@all / rw")
	got, err = restoreTo(n, t.TempDir(), "new", backup, admit)
	if err != nil || got.Stats.Entries != entries {
		t.Errorf("restored %d entries, want %d: %v", got.Stats.Entries, entries, err)
	}
}

func TestG10_BackupThatIsNotWholeIsRefused(t *testing.T) {
	n := newTestNet(t, 4)
	a := storeToBackUp(n)
	whole := backupOf(t, a, "a")
	cases := map[string]struct {
		bytes []byte
		want  error
	}{
		"empty":           {nil, ErrBackup},
		"another file":    {[]byte("#!/bin/sh\necho this is a script, no backup\n"), ErrBackup},
		"cut in the head": {whole[:60], ErrBackup},
		"cut in a block":  {whole[:len(whole)/2], ErrBackup},
		"cut off the end": {whole[:len(whole)-38], ErrBackup},
		"one byte less":   {whole[:len(whole)-1], ErrBackup},
		"more behind it":  {append(bytes.Clone(whole), 0), ErrBackup},
		"twice":           {append(bytes.Clone(whole), whole...), ErrBackup},
	}
	for i := range 10 { // a bit flipped anywhere
		at := len(backupMagic) + 5 + int(n.rand.Uint64()%uint64(len(whole)-len(backupMagic)-5))
		b := bytes.Clone(whole)
		b[at] ^= 1 << (n.rand.Uint64() % 8)
		cases[fmt.Sprintf("flipped %d at %d", i, at)] = struct {
			bytes []byte
			want  error
		}{b, nil}
	}
	for name, c := range cases {
		dir := t.TempDir()
		_, err := restoreTo(n, dir, "a", c.bytes)
		if err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if left, _ := os.ReadDir(dir); len(left) > 0 {
			t.Errorf("%s: left %s behind", name, left[0].Name())
		}
	}
}

func TestRestoreRefuses(t *testing.T) {
	n := newTestNet(t, 5)
	a := storeToBackUp(n)
	backup := backupOf(t, a, "a")
	used := t.TempDir()
	if err := os.WriteFile(filepath.Join(used, "peers"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := restoreTo(n, used, "a", backup); !errors.Is(err, ErrNotEmpty) {
		t.Errorf("into a used directory: %v", err)
	}
	cutOff := t.TempDir()
	if err := os.MkdirAll(filepath.Join(cutOff, restoring, "store"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := restoreTo(n, cutOff, "a", backup); err != nil {
		t.Errorf("after a restore that was cut off: %v", err)
	}
	instead := t.TempDir()
	if err := os.MkdirAll(filepath.Join(instead, restoring, "store"), 0o700); err != nil {
		t.Fatal(err)
	}
	running := n.startOn("b", nil, instead)
	if _, err := os.Stat(filepath.Join(instead, restoring)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an agent that starts instead leaves what was restored so far: %v", err)
	}
	running.stop()
	twice := t.TempDir()
	other, err := lockDir(twice)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := restoreTo(n, twice, "a", backup); !errors.Is(err, ErrLocked) {
		t.Errorf("beside another restore: %v", err)
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	elsewhere := newTestNet(t, 6)
	elsewhere.id[0]++
	if _, err := restoreTo(elsewhere, t.TempDir(), "a", backup); !errors.Is(err, ErrNetwork) {
		t.Errorf("into another network: %v", err)
	}
	unpinned := newTestNet(t, 7)
	unpinned.genesis.Admins = []record.PublicKey{record.KeyOf(testKey("another admin"))}
	if _, err := restoreTo(unpinned, t.TempDir(), "a", backup); !errors.Is(err, ErrPolicy) {
		t.Errorf("with other admins pinned: %v", err)
	}
}

// One identity in two stores that know nothing of each other: both go on, nothing is lost, and both alarm.
func TestIdentityUsedTwiceIsNoticed(t *testing.T) {
	n := newTestNet(t, 8)
	policy := n.policy([]string{"a", "b"}, "group @all a b", "@all peer", "@all / rw")
	a, b := n.start("a", nil), n.start("b", nil)
	a.apply(policy)
	b.apply(policy)
	a.put("/before", "1")
	meet(a, b)
	n.clock.advance(time.Hour)
	twin := n.start("a", nil) // the same key, an empty store
	twin.apply(policy)
	meet(b, twin)
	if twin.alarmed("identity-reused") {
		t.Error("its own past is taken for a twin")
	}
	n.clock.advance(2 * time.Minute)
	a.put("/old", "still writes")
	twin.put("/new", "too")
	meet(a, b, twin)
	if !a.alarmed("identity-reused") || !twin.alarmed("identity-reused") {
		t.Errorf("not noticed by the old (%t) or the new one (%t)", !a.alarmed("identity-reused"), !twin.alarmed("identity-reused"))
	}
	if b.get("/old") != "still writes" || b.get("/new") != "too" {
		t.Error("a write was lost")
	}
}

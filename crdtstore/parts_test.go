package crdtstore

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
)

func openTestBadger(t *testing.T, dir string) *badgerKV {
	t.Helper()
	b, err := openBadger(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// generationRows are some MB: kept rows, one that only the first generation has, and one that only later ones have.
func generationRows(generation int) *rows {
	r := newRows()
	for i := range 2500 {
		r.set(fmt.Appendf(nil, "k%04d", i), bytes.Repeat([]byte{byte(generation)}, 1000))
	}
	if generation == 1 {
		r.set([]byte("first"), []byte{})
	} else {
		r.delete([]byte("first"))
		r.set([]byte("later"), []byte{})
	}
	return r
}

func showsGeneration(b *badgerKV, want int) error {
	v := b.View()
	defer v.Close()
	n := 0
	err := v.Scan([]byte("k"), nil, false, func(k, value []byte) (bool, error) {
		n++
		if len(value) != 1000 || value[0] != byte(want) {
			return false, fmt.Errorf("row %s is of generation %d, not %d", k, value[0], want)
		}
		return true, nil
	})
	_, first, firstErr := v.Get([]byte("first"))
	_, later, laterErr := v.Get([]byte("later"))
	_, marked, markErr := v.Get(partsMark)
	switch {
	case err != nil:
		return err
	case firstErr != nil || laterErr != nil || markErr != nil:
		return fmt.Errorf("read: %w, %w, %w", firstErr, laterErr, markErr)
	case n != 2500 || first != (want == 1) || later != (want > 1) || marked && want == 1:
		return fmt.Errorf("%d rows, first %v, later %v, mark %v", n, first, later, marked)
	}
	return nil
}

// TestG5_CommitInPartsIsAllOrNothing looks at a commit of several transactions at every step of it, in the store itself and
// as a start finds it that a kill at this step makes due.
func TestG5_CommitInPartsIsAllOrNothing(t *testing.T) {
	dir := t.TempDir()
	b := openTestBadger(t, dir)
	if err := b.Commit(generationRows(1)); err != nil {
		t.Fatal(err)
	}
	var images []string
	look := func() {
		if err := showsGeneration(b, 1); err != nil {
			t.Errorf("step %d: %v", len(images), err)
		}
		images = append(images, killed(t, dir))
	}
	b.logs.datasync = func(*os.File) error { look(); return nil } // the mark is there, all parts are there
	parts := 0
	r := generationRows(2)
	for len(r.m) > 0 { // as write does, one part at a time
		txn, some := b.begin(), 0
		for k, v := range r.m {
			if some++; some > 1000 {
				break
			}
			if err := change(txn, k, v); err != nil {
				t.Fatal(err)
			}
			delete(r.m, k)
		}
		if err := b.endPart(txn); err != nil {
			t.Fatal(err)
		}
		parts++
		look()
	}
	if err := b.unmark(); err != nil {
		t.Fatal(err)
	}
	b.moments.end(b.number)
	if err := showsGeneration(b, 2); err != nil {
		t.Errorf("in the end: %v", err)
	}
	if len(images) < parts+2 {
		t.Errorf("%d looks at %d parts, the syncs were not among them", len(images), parts)
	}
	for i, image := range images {
		restarted := openTestBadger(t, image)
		if err := showsGeneration(restarted, 1); err != nil {
			t.Errorf("killed at step %d: %v", i, err)
		}
		if err := restarted.Close(); err != nil {
			t.Fatal(err)
		}
	}
	restarted := openTestBadger(t, killed(t, dir))
	if err := showsGeneration(restarted, 2); err != nil {
		t.Errorf("killed after the end: %v", err)
	}
	if err := restarted.Close(); err != nil {
		t.Fatal(err)
	}
	b.logs.datasync = datasync
	for g := 3; g < 6; g++ {
		if err := b.Commit(generationRows(g)); err != nil {
			t.Fatal(err)
		}
		if err := showsGeneration(b, g); err != nil {
			t.Error(err)
		}
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestPartsThatFailAreTheLast holds that no later commit shows what is left of one that failed.
func TestPartsThatFailAreTheLast(t *testing.T) {
	b := openTestBadger(t, t.TempDir())
	if err := b.Commit(generationRows(1)); err != nil {
		t.Fatal(err)
	}
	bad := generationRows(2)
	bad.set(make([]byte, 1<<17), nil) // longer than a key may be
	if err := b.Commit(bad); err == nil {
		t.Error("a row that badger does not take was committed")
	}
	r := newRows()
	r.set([]byte("more"), nil)
	if err := b.Commit(r); err == nil {
		t.Error("the store went on")
	}
	if err := showsGeneration(b, 1); err != nil {
		t.Error(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestLogsOfLargerMemtables holds that a store opens that an agent with larger memtables was killed on, and also if a
// start was killed that had cut its logs to what is in them.
func TestLogsOfLargerMemtables(t *testing.T) {
	dir := t.TempDir()
	db, err := openDB(dir, oldMemtable, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	const commits, each = 20, 10_000 // small rows, which need more room in memory than in the log
	for i := range commits {
		txn := db.NewTransactionAt(uint64(i), true)
		for j := range each {
			if err := txn.Set(fmt.Appendf(nil, "%03d/%05d", i, j), []byte("a value of 24 bytes long")); err != nil {
				t.Fatal(err)
			}
		}
		if err := txn.CommitAt(uint64(i+1), nil); err != nil {
			t.Fatal(err)
		}
	}
	image, cut := killed(t, dir), killed(t, dir)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	logs, err := filepath.Glob(cut + "/*.mem")
	if err != nil || len(logs) == 0 {
		t.Fatalf("logs %v, %v", logs, err)
	}
	for _, name := range logs {
		data, err := os.ReadFile(name)
		if err == nil {
			err = os.WriteFile(name, bytes.TrimRight(data, "\x00"), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{image, cut} {
		b := openTestBadger(t, dir)
		v, n := b.View(), 0
		err := v.Scan(nil, nil, false, func([]byte, []byte) (bool, error) { n++; return true, nil })
		v.Close()
		if n != commits*each || err != nil {
			t.Errorf("%d rows, %v", n, err)
		}
		if old, err := tidyLogs(dir); old || err != nil {
			t.Errorf("its logs are taken for old ones: %v", err)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// killed gives the files of a store as a kill at this moment leaves them.
func killed(t *testing.T, dir string) string {
	t.Helper()
	image := t.TempDir()
	names, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if n.Name() == "LOCK" {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, n.Name()))
		if err == nil {
			err = os.WriteFile(filepath.Join(image, n.Name()), data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return image
}

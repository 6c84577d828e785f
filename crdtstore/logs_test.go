package crdtstore

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// A full memtable's log is synced once more after the next one was begun: rows of it may be in no table yet.
func TestG1_LogsThatWereFullAreSynced(t *testing.T) {
	t.Run("watched", func(t *testing.T) { checkFullLogs(t, watchArrivals) })
	t.Run("listed", func(t *testing.T) { checkFullLogs(t, func(string) *arrivals { return nil }) })
}

func checkFullLogs(t *testing.T, watch func(dir string) *arrivals) {
	dir := t.TempDir()
	var synced []string
	l := logs{dir: dir, arrivals: watch(dir), datasync: func(f *os.File) error {
		synced = append(synced, filepath.Base(f.Name()))
		return nil
	}}
	defer l.close()
	for i, step := range []struct {
		make, remove int
		want         []string
	}{
		{make: 3, want: []string{"00003.mem"}},
		{want: []string{"00003.mem"}},
		{make: 4, want: []string{"00003.mem", "00004.mem"}},
		{make: 5, remove: 4, want: []string{"00004.mem", "00005.mem"}}, // 4 became a table; 3 is held by a reader
		{make: 100_000, want: []string{"00005.mem", "100000.mem"}},
	} {
		if step.make > 0 {
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%05d.mem", step.make)), []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if step.remove > 0 {
			if err := os.Remove(filepath.Join(dir, logName(step.remove))); err != nil {
				t.Fatal(err)
			}
		}
		synced = nil
		if err := l.sync(); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(synced, step.want) {
			t.Errorf("step %d: synced %q, want %q", i, synced, step.want)
		}
	}
}

// After a failed sync nothing may be taken for durable any more, whoever asks next.
func TestG1_FailedSyncIsNotForgotten(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, logName(1)), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	lost := errors.New("lost a page")
	answers := []error{nil, lost, nil}
	l := logs{dir: dir, datasync: func(*os.File) error {
		err := answers[0]
		answers = answers[1:]
		return err
	}}
	defer l.close()
	for i, want := range []error{nil, lost, lost} {
		if err := l.sync(); !errors.Is(err, want) {
			t.Errorf("sync %d: %v, want %v", i+1, err, want)
		}
	}
}

// The logs of a real store are found by their names.
func TestLogsOfBadger(t *testing.T) {
	b, err := openBadger(t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	var synced []string
	b.logs.datasync = func(f *os.File) error {
		synced = append(synced, filepath.Base(f.Name()))
		return datasync(f)
	}
	for i := range 12 { // 12 MiB: more than a memtable holds
		r := newRows()
		for j := range 4 {
			r.set(fmt.Appendf(nil, "%d/%d", i, j), make([]byte, 256<<10))
		}
		if err := b.Commit(r); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			if err := b.Sync(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := b.Sync(); err != nil {
		t.Fatal(err)
	}
	if want := []string{"00001.mem", "00001.mem", "00002.mem"}; !slices.Equal(synced, want) {
		t.Errorf("synced %q, want %q", synced, want)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}

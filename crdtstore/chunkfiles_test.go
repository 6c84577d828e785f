package crdtstore

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"syncagent/crdtstore/record"
)

func chunkOf(n int) (chunkRef, []byte) {
	data := []byte("chunk " + strconv.Itoa(n))
	return chunkRef{record.Tag{byte(n)}, record.ChunkID(data)}, data
}

func (d *chunkDir) unfinished(t *testing.T) int {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(d.dir, "*", newChunk+"*"))
	if err != nil {
		t.Fatal(err)
	}
	return len(left)
}

// TestChunkIsHereWhenItIsDurable holds that nobody relies on a chunk whose file is not synced yet.
func TestChunkIsHereWhenItIsDurable(t *testing.T) {
	d := newChunkDir(t.TempDir())
	ref, data := chunkOf(1)
	d.note(ref, 1) // another put of it gave it its name, which may still be lost
	if err := d.Put(ref, data); err != nil {
		t.Fatal(err)
	}
	if here, err := d.Has(ref); here || err != nil {
		t.Errorf("before its name is durable: here %v, %v", here, err)
	}
	if err := d.Remove(ref); err != nil {
		t.Fatal(err)
	}
	d.note(ref, -1)
	put := make(chan error, 1)
	d.turn.Lock()
	go func() { put <- d.Put(ref, data) }()
	for d.unfinished(t) == 0 {
		time.Sleep(time.Millisecond)
	}
	if here, err := d.Has(ref); here || err != nil {
		t.Errorf("before it is synced: here %v, %v", here, err)
	}
	select {
	case err := <-put:
		t.Errorf("it was said to be stored: %v", err)
	default:
	}
	d.turn.Unlock()
	if err := <-put; err != nil {
		t.Fatal(err)
	}
	if here, err := d.Has(ref); !here || err != nil {
		t.Errorf("afterwards: here %v, %v", here, err)
	}
	if got, err := d.Get(ref, nil); !bytes.Equal(got, data) || err != nil {
		t.Errorf("it is %q, %v", got, err)
	}
}

// TestChunksPutAtTheSameTime holds that each put of a group is told what became of it, also if one cannot be stored.
func TestChunksPutAtTheSameTime(t *testing.T) {
	d := newChunkDir(t.TempDir())
	bad, _ := chunkOf(7)
	if err := os.MkdirAll(filepath.Join(d.name(bad), "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	round := func() (failed int) {
		var wg sync.WaitGroup
		errs := make([]error, 100)
		for i := range errs {
			wg.Go(func() {
				ref, data := chunkOf(i % 50) // each twice
				errs[i] = d.Put(ref, data)
			})
		}
		wg.Wait()
		for i, err := range errs {
			ref, data := chunkOf(i % 50)
			if err != nil {
				failed++
			} else if got, err := d.Get(ref, nil); !bytes.Equal(got, data) || err != nil {
				t.Errorf("chunk %d was stored, and is %q, %v", i, got, err)
			}
		}
		if n := d.unfinished(t); n > 0 {
			t.Errorf("%d files are left", n)
		}
		return failed
	}
	if failed := round(); failed < 2 {
		t.Errorf("%d of 100 failed, 2 of them cannot be stored", failed)
	}
	if err := os.RemoveAll(d.name(bad)); err != nil {
		t.Fatal(err)
	}
	if failed := round(); failed > 0 {
		t.Errorf("%d of 100 failed", failed)
	}
}

// TestDamagedChunkStaysAside holds that what is left of a damaged chunk is kept as long as there is no better one.
func TestDamagedChunkStaysAside(t *testing.T) {
	d := newChunkDir(t.TempDir())
	ref, data := chunkOf(1)
	there := func() []string {
		var names []string
		files, err := filepath.Glob(filepath.Join(d.dir, "*", "*"))
		for _, f := range files {
			names = append(names, filepath.Ext(f))
		}
		if err != nil {
			t.Fatal(err)
		}
		return names
	}
	put := func() error { return d.Put(ref, data) }
	aside := func() error { return d.SetAside(ref) }
	remove := func() error { return d.Remove(ref) }
	for i, step := range []struct {
		do   func() error
		want []string
	}{
		{put, []string{""}}, {aside, []string{damagedChunk}}, {aside, []string{damagedChunk}}, {put, []string{""}},
		{aside, []string{damagedChunk}}, {remove, nil},
	} {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		if got := there(); !slices.Equal(got, step.want) {
			t.Errorf("after step %d there is %q, want %q", i, got, step.want)
		}
		here, err := newChunks(d).list()
		if whole, known := here[ref]; err != nil || known != (step.want != nil) || whole != slices.Contains(step.want, "") {
			t.Errorf("after step %d these chunks are listed: %v, %v", i, here, err)
		}
	}
}

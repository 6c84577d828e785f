package p2p

import (
	"context"
	"io"
	"sync"
	"testing"
	"time"

	"syncagent/crdtstore/record"
)

// TestStored holds that each peer is named when it holds a write and not before, also by more askers than there are
// streams, and that an end of the context ends the asking.
func TestStored(t *testing.T) {
	hs := cluster(t, 3)
	a := hs[0]
	peers := []record.PublicKey{hs[1].self, hs[2].self}
	next := record.Version{HLC: record.HLC(a.blockCount() + 1)} // held as soon as there is one block more
	const askers = 3 * storedAsks
	var mu sync.Mutex
	named := map[record.PublicKey]int{}
	var all sync.WaitGroup
	for range askers {
		all.Go(func() {
			a.node.Stored(t.Context(), peers, record.Tag{}, next, func(k record.PublicKey) {
				mu.Lock()
				defer mu.Unlock()
				named[k]++
				if hs[1].blockCount() < int(next.HLC) && hs[2].blockCount() < int(next.HLC) {
					t.Error("named before anybody had it")
				}
			})
		})
	}
	a.publish([]byte("x"), "/x")
	all.Wait()
	if named[peers[0]] != askers || named[peers[1]] != askers {
		t.Errorf("named %v", named)
	}

	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	stranger := append(peers, record.KeyOf(testKey(t)))
	a.node.Stored(ctx, stranger, record.Tag{}, record.Version{HLC: next.HLC + 100}, func(k record.PublicKey) { t.Errorf("%s is named", k) })
}

// TestG10_StoredGarbage holds that a malformed question ends the stream and counts against who sent it.
func TestG10_StoredGarbage(t *testing.T) {
	hs := cluster(t, 2)
	for _, payload := range [][]byte{nil, make([]byte, storedRequest-1), make([]byte, storedRequest+1)} {
		f := sneak(t, hs[1], hs[0], protoSync)
		if err := f.write(frameStored, payload); err != nil {
			t.Fatal(err)
		}
		if kind, _, err := f.read(5 * time.Second); err == nil || err == io.EOF {
			t.Errorf("%d bytes: answered by frame %d, %v", len(payload), kind, err)
		}
	}
}

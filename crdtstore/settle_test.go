package crdtstore

import (
	"context"
	"fmt"
	"testing"

	"syncagent/crdtstore/record"
)

// TestG5_ReadinessSpreads holds that a write becomes ready in the turn that settles its last slot, however many writes
// stand between: the first becomes ready by an entry and covers a slot of the third, while the second, which shares both
// its paths, still waits.
func TestG5_ReadinessSpreads(t *testing.T) {
	for round := range 12 { // the writes' IDs, and with them the order in which they are looked at, are others each time
		n := newTestNet(t, uint64(round))
		a := n.start("a", nil)
		a.apply(n.openPolicy())
		key := testKey("b")
		entry := func(path, value string) *record.Entry {
			return &record.Entry{Kind: record.KindPut, Path: path, Value: fmt.Append(nil, value, round)}
		}
		write := func(ms int64, entries ...*record.Entry) *record.Write {
			w := &record.Write{Author: record.KeyOf(key), HLC: record.HLCFromMilli(n.clock.wall + ms)}
			for _, e := range entries {
				w.Slots = append(w.Slots, record.Slot{Entry: e.ID(), Tags: n.id.Tags(e.Path)})
			}
			return w
		}
		last, covers := entry("/1", "first"), entry("/2", "first")
		held, lacking := entry("/1", "second"), entry("/2", "second")
		covered, shown := entry("/2", "third"), entry("/3", "third")
		block := n.forge(key, 1, 1, record.Digest{}, 2, []record.Digest{n.genesisDigest()},
			write(30, last, covers), write(40, held, lacking), write(20, covered, shown))
		deliver := func(p record.Parcel) {
			if res, err := a.Ingest(context.Background(), record.KeyOf(key), []record.Parcel{p}); err != nil || res.Invalid != nil {
				t.Fatalf("%+v, %v", res, err)
			}
		}
		deliver(record.Parcel{Block: block, Entries: [][]byte{covers.Encode(), held.Encode(), shown.Encode()}})
		if got := a.tree(); got != "" {
			t.Fatalf("a shows %q, parts of writes", got)
		}
		deliver(record.Parcel{Entries: [][]byte{last.Encode()}})
		want := fmt.Sprintf("/1=first%d /2=first%d /3=third%d ", round, round, round)
		if got := a.tree(); got != want {
			t.Fatalf("round %d: a shows %q, want %q", round, got, want)
		}
		a.stop()
	}
}

// TestG5_PostponedOverARestart holds that writes which became ready, but did not fit into the turn, are shown after a
// restart in between.
func TestG5_PostponedOverARestart(t *testing.T) {
	n := newTestNet(t, 1)
	a := n.start("a", nil)
	a.apply(n.openPolicy())
	key := testKey("b")
	entries := [2]*record.Entry{
		{Kind: record.KindPut, Path: "/1", Value: []byte("1")},
		{Kind: record.KindPut, Path: "/2", Value: []byte("2")},
	}
	w := &record.Write{Author: record.KeyOf(key), HLC: record.HLCFromMilli(n.clock.wall)}
	for _, e := range entries {
		w.Slots = append(w.Slots, record.Slot{Entry: e.ID(), Tags: n.id.Tags(e.Path)})
	}
	block := n.forge(key, 1, 1, record.Digest{}, 2, []record.Digest{n.genesisDigest()}, w)
	p := record.Parcel{Block: block, Entries: [][]byte{entries[0].Encode(), entries[1].Encode()}}
	if res, err := a.Ingest(context.Background(), record.KeyOf(key), []record.Parcel{p}); err != nil || res.Invalid != nil {
		t.Fatalf("%+v, %v", res, err)
	}
	a.stop()
	// The state that a stop in between leaves: everything held, nothing shown, the write not ready.
	r := newRows()
	u := &unreadyWrite{id: w.ID(), hlc: w.HLC, arrived: n.clock.wall, paths: pathKeys(w)}
	r.set(unreadyKey(u.id), u.encode())
	c := a.counters
	c.entries, c.viewDigest = 0, [32]byte{}
	r.set(countersKey, c.encode())
	for _, e := range entries {
		r.delete(shownKey(e.Path))
	}
	if err := a.disk.Commit(r); err != nil {
		t.Fatal(err)
	}
	a = n.start("a", a.disk.powerCut(1<<30))
	waitFor(t, func() bool { return a.tree() == "/1=1 /2=2 " && a.Stats().Unready == 0 })
}

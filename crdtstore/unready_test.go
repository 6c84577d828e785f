package crdtstore

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"syncagent/crdtstore/record"
)

// hoard makes blocks of b, each of 200 slots of these paths, where * is the number of the write, and gives them with the
// entries of their last write. HLCs ascend.
func (n *testNet) hoard(blocks int, paths ...string) (parcels []record.Parcel, last [][]byte) {
	prev, links, i := record.Digest{}, []record.Digest{n.genesisDigest()}, 0
	for seq := range uint64(blocks) {
		var writes []*record.Write
		for range 200 / len(paths) {
			w := &record.Write{Author: record.KeyOf(testKey("b")), HLC: record.HLCFromMilli(n.clock.wall) + record.HLC(i+1)}
			last = nil
			for _, path := range paths {
				path = strings.ReplaceAll(path, "*", fmt.Sprint(i))
				e := &record.Entry{Kind: record.KindPut, Path: path, Value: []byte(fmt.Sprint(i))}
				w.Slots = append(w.Slots, record.Slot{Entry: e.ID(), Tags: n.id.Tags(path)})
				last = append(last, e.Encode())
			}
			writes = append(writes, w)
			i++
		}
		block := n.forge(testKey("b"), 1, seq+1, prev, seq+2, links, writes...)
		prev = record.DigestOf(block)
		links = []record.Digest{prev}
		parcels = append(parcels, record.Parcel{Block: block})
	}
	return parcels, last
}

func (nd *node) take(parcels ...record.Parcel) {
	nd.t.Helper()
	if r, err := nd.Ingest(context.Background(), record.KeyOf(testKey("b")), parcels); err != nil || r.Invalid != nil {
		nd.t.Fatal(err, r.Invalid)
	}
}

// TestG10_PutAboveManyUnreadyWrites: a member makes thousands of writes of one path and keeps their entries to itself. A
// put settles all of them; BenchmarkPutAboveUnreadyWrites tells at which cost. One of them is shown when its entry comes late
// and nothing newer is there.
func TestG10_PutAboveManyUnreadyWrites(t *testing.T) {
	const blocks = 8 // of which a turn can settle all writes
	n := newTestNet(t, 1)
	a := n.start("a", nil)
	a.apply(n.policy(hosts, "* peer", "* / rw"))
	parcels, last := n.hoard(blocks, "/p")
	a.put("/p", "before")
	a.take(parcels...)
	a.take(record.Parcel{Entries: last})
	if got, want := a.get("/p"), fmt.Sprint(blocks*200-1); got != want {
		t.Errorf("when the newest entry came late it shows %q, not %q", got, want)
	}
	if st := a.Stats(); st.Unready != 0 || st.Missing != 0 {
		t.Errorf("%d writes are not ready, %d entries are wanted", st.Unready, st.Missing)
	}

	b := n.start("c", nil)
	b.apply(n.policy(hosts, "* peer", "* / rw"))
	b.put("/p", "before")
	b.take(parcels...)
	if st := b.Stats(); st.Unready != blocks*200 {
		t.Fatalf("%d writes are not ready", st.Unready)
	}
	b.put("/p", "after")
	if got := b.get("/p"); got != "after" || b.Stats().Unready != 0 {
		t.Errorf("it shows %q, %d writes are not ready", got, b.Stats().Unready)
	}
}

// TestG10_UnreadyWritesOfManyPaths: a member makes batches, each of a path that all of them name, of many that nobody
// else writes, and of one whose entry it keeps to itself. Who writes the path that they share does not look at the others.
// When an entry comes, after a restart too, its batch is shown.
func TestG10_UnreadyWritesOfManyPaths(t *testing.T) {
	const batches = 400
	n := newTestNet(t, 1)
	disk := newMemKV()
	a := n.start("a", disk)
	a.apply(n.policy(hosts, "* peer", "* / rw"))
	paths := []string{"/p", "/a/*", "/b/*", "/c/*"}
	parcels, last := n.hoard(batches/50, paths...)
	for _, p := range parcels {
		a.take(p)
	}
	a.put("/p", "above")
	a.stop()
	if a.turn.paths[n.id.PathKey("/p")] == nil || len(a.turn.paths) > 10 {
		t.Errorf("a turn that wrote one path looked at %d", len(a.turn.paths))
	}
	a = n.start("a", disk)
	for i := range last[1:] {
		if got := a.tree(); got != "/p=above " {
			t.Fatalf("%d entries before its batch is whole it shows %s", len(last)-1-i, got)
		}
		a.take(record.Parcel{Entries: last[1+i : 2+i]})
	}
	if got, want := a.tree(), "/a/399=399 /b/399=399 /c/399=399 /p=above "; got != want {
		t.Errorf("it shows %s, not %s", got, want)
	}
	if got := a.Stats().Unready; got != batches-1 {
		t.Errorf("%d writes are not ready", got)
	}
}

// BenchmarkPutAboveUnreadyWrites is what each of the writes costs that a put settles. It must not grow with their number.
func BenchmarkPutAboveUnreadyWrites(b *testing.B) {
	for _, blocks := range []int{5, 50} {
		b.Run(fmt.Sprint(blocks*200), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				n := newTestNet(b, 1)
				a := n.start("a", nil)
				a.apply(n.policy(hosts, "* peer", "* / rw"))
				parcels, _ := n.hoard(blocks, "/p")
				a.take(parcels...)
				b.StartTimer()
				a.put("/p", "above")
				for a.Stats().Unready > 0 { // more than a turn can hold
					if err := a.Answered(context.Background(), a.self, nil, nil); err != nil {
						b.Fatal(err)
					}
				}
				b.StopTimer()
				a.stop()
				b.StartTimer()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*blocks*200), "ns/write")
		})
	}
}

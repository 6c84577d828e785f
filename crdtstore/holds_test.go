package crdtstore

import (
	"context"
	"testing"

	"syncagent/crdtstore/record"
)

// TestHolds holds that a write counts as held on an agent only when all of it is there.
func TestHolds(t *testing.T) {
	net, a, b, _ := three(t, 1)
	ctx := context.Background()
	v, err := a.Write(ctx, []Op{{Path: "/x/1", Value: []byte("one")}, {Path: "/x/2", Value: []byte("two")}})
	if err != nil {
		t.Fatal(err)
	}
	want := func(n *node, path string, index uint16, want bool) {
		t.Helper()
		v.Index = index
		snap, err := n.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		defer snap.Close()
		if got, err := snap.Holds(n.network.PathKey(path), v); got != want || err != nil {
			t.Errorf("%s at %d: %v, %v", path, index, got, err)
		}
	}
	want(a, "/x/1", 0, true)
	want(a, "/x/2", 1, true)
	want(a, "/x/2", 0, false) // another path's index
	want(a, "/x/3", 0, false)
	want(b, "/x/1", 0, false)
	var parcel record.Parcel
	if err := a.Missing(ctx, b.Vector(), b.self, func(p record.Parcel) error { parcel = p; return nil }); err != nil {
		t.Fatal(err)
	}
	parcel.Entries = parcel.Entries[:1]
	if _, err := b.Ingest(ctx, a.self, []record.Parcel{parcel}); err != nil {
		t.Fatal(err)
	}
	want(b, "/x/1", 0, false) // half a write is none
	want(b, "/x/2", 1, false)
	b.fetch(a)
	want(b, "/x/1", 0, true)
	want(b, "/x/2", 1, true)
	if cut := net.start("b", b.disk.powerCut(0)); cut.get("/x/1") != "one" {
		t.Error("who was told that b holds the write lost it by a power cut")
	}
}

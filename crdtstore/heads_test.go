package crdtstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/ipfs/boxo/datastore/dshelp"

	"syncagent/crdtstore/record"
)

// storedHeads reads which heads the rows name, ascending.
func storedHeads(v view) ([]record.Digest, error) {
	d := newDAGState()
	var err error
	if d.chains, err = chainEnds(v); err != nil {
		return nil, err
	}
	err = v.Scan([]byte{'h'}, nil, false, func(k, _ []byte) (bool, error) {
		digest, err := d.headOfKey(k)
		d.heads[digest] = head{}
		return true, err
	})
	return d.sortedHeads(), err
}

// TestRowsOfHeads holds that the rows name the heads after every turn, whatever is merged, forked, or lower than what a chain
// has already.
func TestRowsOfHeads(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 7))
		disk, d := newMemKV(), newDAGState()
		blocks := []*record.Block{{Digest: record.Digest{1}, Priority: 1}}
		d.add(blocks[0])
		r := newRows()
		headRows(newDAGState(), d, r)
		for turn := range 40 {
			before := d.clone()
			for range 1 + rng.IntN(4) {
				b := randomBlock(rng, blocks)
				blocks = append(blocks, b)
				d.add(b)
				r.set(chainKey(chainID{b.Origin, b.Incarnation}, b.Seq, b.Digest), nil)
			}
			headRows(before, d, r)
			if err := disk.Commit(r); err != nil {
				t.Fatal(err)
			}
			r = newRows()
			v := disk.View()
			got, err := storedHeads(v)
			v.Close()
			if want := d.sortedHeads(); err != nil || !slices.Equal(got, want) {
				t.Fatalf("seed %d, turn %d: the rows name %v, %v; the heads are %v", seed, turn, got, err, want)
			}
		}
	}
}

// randomBlock makes a block of one of three origins that links to some of these, and goes on with its chain or forks it.
func randomBlock(rng *rand.Rand, blocks []*record.Block) *record.Block {
	b := &record.Block{Bundle: &record.Bundle{Origin: record.PublicKey{byte(1 + rng.IntN(3))}}}
	binary.BigEndian.PutUint64(b.Digest[:], rng.Uint64())
	for range 1 + rng.IntN(3) {
		l := blocks[len(blocks)-1-rng.IntN(min(len(blocks), 6))]
		b.Links = append(b.Links, l.Digest)
		b.Priority = max(b.Priority, l.Priority+1)
	}
	held := uint64(0)
	for _, o := range blocks {
		if o.Bundle != nil && o.Origin == b.Origin {
			held = max(held, o.Seq)
		}
	}
	if b.Seq = held + 1; rng.IntN(4) == 0 { // a fork
		b.Seq = 1 + rng.Uint64N(held+1)
	}
	return b
}

// TestStoreOfVersion1IsUpgraded holds that the rows of heads of an earlier version become ours in one commit, also after one
// that failed.
func TestStoreOfVersion1IsUpgraded(t *testing.T) {
	n, a, b, c := three(t, 1)
	for _, x := range []*node{a, b, c} {
		x.put("/"+x.name, "1")
	}
	meet(a, b, c)
	heads := a.Heads()
	if len(heads) != 3 {
		t.Fatalf("%d heads", len(heads))
	}
	disk := a.disk
	a.stop()
	want := maps.Collect(rowsOf(disk))
	asVersion1(t, disk, heads)

	failed := errors.New("no room")
	disk.before = func(string) error { return failed }
	o := n.options("a")
	o.kv, o.chunks = disk, disk.chunks
	if _, err := Open(o); !errors.Is(err, failed) {
		t.Fatalf("a commit that failed: %v", err)
	}
	disk.before = nil
	a = n.start("a", disk)
	got := maps.Collect(rowsOf(disk))
	for k, value := range want {
		if (k[0] == 'h' || k == string(identityKey)) && got[k] != value {
			t.Errorf("row %q is %q, was %q", k, got[k], value)
		}
	}
	for k := range got {
		if bytes.HasPrefix([]byte(k), []byte("c/h/")) {
			t.Errorf("row %q is left", k)
		}
	}
	if got := a.Heads(); !slices.Equal(got, heads) {
		t.Errorf("heads %v, were %v", got, heads)
	}
	checkHeads(t, a)
	a.put("/a", "2")
	meet(a, b, c)
	if b.get("/a") != "2" || len(b.Heads()) != 1 {
		t.Errorf("b shows %s, and has %d heads", b.get("/a"), len(b.Heads()))
	}
}

// asVersion1 makes the rows what they were in version 1.
func asVersion1(t *testing.T, disk *memKV, heads []record.Digest) {
	t.Helper()
	r := newRows()
	for k, value := range rowsOf(disk) {
		switch {
		case k[0] == 'h':
			r.delete([]byte(k))
		case k == string(identityKey):
			r.set([]byte(k), append([]byte{0, 0, 0, 1}, value[4:]...))
		}
	}
	for _, h := range heads {
		r.set([]byte("c/h"+dshelp.MultihashToDsKey(h.CID()[2:]).String()), []byte{2})
	}
	if err := disk.Commit(r); err != nil {
		t.Fatal(err)
	}
}

// rowsOf gives all rows of a disk.
func rowsOf(disk *memKV) func(yield func(k, value string) bool) {
	return func(yield func(k, value string) bool) {
		v := disk.View()
		defer v.Close()
		_ = v.Scan(nil, nil, false, func(k, value []byte) (bool, error) { // fn gives no error
			return yield(string(k), string(value)), nil
		})
	}
}

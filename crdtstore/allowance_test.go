package crdtstore

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"slices"
	"testing"
	"time"

	"syncagent/crdtstore/record"
)

var inventedOrigins = flag.Int("origins", 2000, "origins that a hostile member invents")

// TestInventedOriginsAreTakenSlowly: chains that a member opens by keys that nobody knows cost an allowance; what is over
// it is left out with what builds on it, honest blocks pass, and later the rest comes.
func TestInventedOriginsAreTakenSlowly(t *testing.T) {
	const most = 16
	w := newAttackWorld(t)
	w.a.LimitOrigins(most)
	genesis := []record.Digest{w.genesisDigest()}
	var parcels []record.Parcel
	var last record.Digest
	for i := range *inventedOrigins {
		key := testKey(fmt.Sprint("nobody", i))
		block := w.forge(key, 1, 1, record.Digest{}, 2, genesis)
		last = record.DigestOf(block)
		parcels = append(parcels, record.Parcel{Block: block})
	}
	// What honest agents sent stands behind them, and is not held up: the first block of a key that the policy names.
	honest, entries := w.put(w.deploy, "/certs/key", "fresh", w.hlc(0))
	b := w.forge(testKey("b"), 5, 1, record.Digest{}, 2, genesis, honest)
	parcels = append(parcels, record.Parcel{Block: b, Entries: entries})
	// This one builds on what was left out, and waits with it, not in the parking.
	links := []record.Digest{last, record.DigestOf(b)}
	slices.SortFunc(links, func(a, b record.Digest) int { return bytes.Compare(a[:], b[:]) })
	parcels = append(parcels, record.Parcel{Block: w.forge(testKey("b"), 5, 2, record.DigestOf(b), 3, links)})

	chains := len(w.a.Vector())
	send := func() record.Ingested {
		got, err := w.a.Ingest(context.Background(), record.KeyOf(w.mallory), parcels)
		if err != nil || got.Invalid != nil || len(got.Missing) > 0 {
			t.Fatalf("%+v, %v", got, err)
		}
		return got
	}
	if got := send(); got.New != most+1 || got.Delayed != len(parcels)-most-1 {
		t.Errorf("%d blocks taken and %d put off of %d, want %d taken", got.New, got.Delayed, len(parcels), most+1)
	}
	if got := w.a.get("/certs/key"); got != "fresh" {
		t.Errorf("the honest block is held up, a shows %q", got)
	}
	if n := len(w.a.Vector()) - chains; n != most+1 {
		t.Errorf("%d chains more, want %d", n, most+1)
	}
	// Another peer has an allowance of its own, and an hour later there is a new one.
	if got, err := w.a.Ingest(context.Background(), record.KeyOf(testKey("b")), parcels[most:most+1]); err != nil || got.New != 1 {
		t.Errorf("from somebody else: %+v, %v", got, err)
	}
	w.clock.advance(time.Hour)
	if got := send(); got.New != most {
		t.Errorf("an hour later %d blocks are taken, want %d", got.New, most)
	}
	w.a.LimitOrigins(len(parcels))
	if got := send(); got.Delayed != 0 {
		t.Errorf("%d blocks are put off for good", got.Delayed)
	}
}

// TestForksAndIncarnationsAreCharged: a key that the policy names gets its first chain for nothing, further incarnations
// and branches count.
func TestForksAndIncarnationsAreCharged(t *testing.T) {
	w := newAttackWorld(t)
	w.a.LimitOrigins(2)
	genesis := []record.Digest{w.genesisDigest()}
	block := func(incarnation uint64, path string) []byte {
		write, _ := w.put(w.mallory, path, "x", w.hlc(0))
		return w.forge(w.mallory, incarnation, 1, record.Digest{}, 2, genesis, write)
	}
	for i, c := range []struct {
		block []byte
		taken int
	}{
		{block(1, "/m/1"), 1}, {block(1, "/m/branch"), 1}, {block(2, "/m/2"), 1}, {block(3, "/m/3"), 0}, {block(1, "/m/branch2"), 0},
		{block(1, "/m/1"), 0}, // held: not put off, and not charged
	} {
		got, err := w.a.Ingest(context.Background(), record.KeyOf(w.mallory), []record.Parcel{{Block: c.block}})
		if err != nil || got.New != c.taken {
			t.Errorf("block %d: %+v, %v; want %d taken", i, got, err, c.taken)
		}
	}
}

// TestNobodyPushesOutWhatOthersBrought: whoever fills a cache loses his own.
func TestNobodyPushesOutWhatOthersBrought(t *testing.T) {
	honest, hostile := record.PublicKey{1}, record.PublicKey{2}
	early := newEarlyEntries()
	early.add(honest, []record.ID{{1}}, []byte("honest"))
	for i := range 3 * earlyCount {
		early.add(hostile, []record.ID{{2, byte(i), byte(i >> 8), byte(i >> 16)}}, make([]byte, 1000))
	}
	if early.take(record.ID{1}, nil) == nil {
		t.Error("the honest entry is gone")
	}
	if early.bytes > earlyBytes || len(early.byID) > earlyCount || early.lanes[hostile].bytes != early.bytes {
		t.Errorf("%d bytes, %d entries, %d of them hostile", early.bytes, len(early.byID), early.lanes[hostile].bytes)
	}

	p := newParking()
	p.add(&parcel{from: honest, block: &record.Block{Digest: record.Digest{1}}, bytes: 100}, []record.Digest{{9}})
	for i := range 3 * parkedBlocks {
		d := record.Digest{2, byte(i), byte(i >> 8)}
		p.add(&parcel{from: hostile, block: &record.Block{Digest: d}, bytes: 5000}, []record.Digest{{8}})
	}
	if len(p.arrived(record.Digest{9})) != 1 {
		t.Error("the honest block is gone")
	}
	if p.bytes > parkedBytes || len(p.blocks) > parkedBlocks || p.lanes[hostile].bytes != p.bytes {
		t.Errorf("%d bytes, %d blocks, %d of them hostile", p.bytes, len(p.blocks), p.lanes[hostile].bytes)
	}
}

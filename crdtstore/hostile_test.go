package crdtstore

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"testing"

	"syncagent/crdtstore/record"
)

// forge makes a valid block of its own origin on top of the given blocks.
func (n *testNet) forge(key ed25519.PrivateKey, incarnation, seq uint64, prev record.Digest, priority uint64, links []record.Digest, writes ...*record.Write) []byte {
	b := &record.Bundle{Origin: record.KeyOf(key), Incarnation: incarnation, Seq: seq, Prev: prev, Writes: writes}
	b.Sign(key, n.id, links)
	return record.EncodeBlock(links, priority, b.Encode())
}

func (n *testNet) genesisDigest() record.Digest { return record.DigestOf(record.GenesisBlock(n.id, 0)) }

func TestG10_ManySiblingBlocksAreMerged(t *testing.T) {
	n, a, b, _ := three(t, 1)
	var parcels []record.Parcel
	for i := range 1100 { // origins that no policy ever named
		key := testKey(fmt.Sprint("stranger", i))
		parcels = append(parcels, record.Parcel{Block: n.forge(key, 1, 1, record.Digest{}, 2, []record.Digest{n.genesisDigest()})})
	}
	res, err := a.Ingest(context.Background(), b.self, parcels)
	if err != nil || res.Invalid != nil || res.New != len(parcels) {
		t.Fatalf("%+v, %v", res, err)
	}
	a.put("/p", "v")
	if st := a.Stats(); st.Heads > record.MaxLinks {
		t.Fatalf("%d heads", st.Heads)
	}
	waitFor(t, func() bool { return a.Stats().Heads < 600 })
	checkHeads(t, a)
	meet(a, b) // b may have made a merge block of its own on the way
	if b.get("/p") != "v" || b.BlockDigest() != a.BlockDigest() {
		t.Fatal("b does not follow")
	}
}

func TestG6_ForgedAmongOthers(t *testing.T) {
	n, a, b, _ := three(t, 1)
	var parcels []record.Parcel
	forged := 0
	for i := range 300 {
		links := []record.Digest{n.genesisDigest()}
		bundle := &record.Bundle{Origin: record.KeyOf(testKey(fmt.Sprint("stranger", i))), Incarnation: 1, Seq: 1}
		bundle.Sign(testKey(fmt.Sprint("stranger", i)), n.id, links)
		if i > 100 && i%7 == 0 { // groups without one, and with several
			bundle.Sig[0] ^= 1
			forged++
		}
		parcels = append(parcels, record.Parcel{Block: record.EncodeBlock(links, 2, bundle.Encode())})
	}
	res, err := a.Ingest(context.Background(), b.self, parcels)
	if err != nil || res.Invalid == nil || res.New != len(parcels)-forged {
		t.Fatalf("%d of %d are forged: %+v, %v", forged, len(parcels), res, err)
	}
}

func TestG10_BlockRuleHoldsAtTheDoor(t *testing.T) {
	n, a, _, _ := three(t, 1)
	genesis := []record.Digest{n.genesisDigest()}
	key := testKey("b")
	first := n.forge(key, 7, 1, record.Digest{}, 2, genesis)
	ctx := context.Background()
	if res, err := a.Ingest(ctx, a.self, []record.Parcel{{Block: first}}); err != nil || res.New != 1 {
		t.Fatalf("a valid block: %+v, %v", res, err)
	}
	d := record.DigestOf(first)
	for name, block := range map[string][]byte{
		"priority too high":   n.forge(key, 7, 2, d, 1<<62, []record.Digest{d}),
		"priority too low":    n.forge(key, 7, 2, d, 2, []record.Digest{d}),
		"gap in the sequence": n.forge(key, 7, 3, d, 3, []record.Digest{d}),
		"other incarnation":   n.forge(key, 8, 2, d, 3, []record.Digest{d}),
		"other origin":        n.forge(testKey("c"), 7, 2, d, 3, []record.Digest{d}),
		"other network":       (&testNet{id: record.NetworkID{1}}).forge(key, 7, 2, d, 3, []record.Digest{d}),
		"genesis of its own":  record.EncodeBlock(nil, 1, record.GenesisValue(record.NetworkID{1}, 0)),
	} {
		res, err := a.Ingest(ctx, a.self, []record.Parcel{{Block: block}})
		if err != nil || res.Invalid == nil || res.New != 0 {
			t.Errorf("%s: %+v, %v", name, res, err)
		}
	}
	a.put("/p", "goes on")
	checkHeads(t, a)
}

func TestG6_EntryUnderAForeignPath(t *testing.T) {
	n := newTestNet(t, 1)
	p := n.policy(hosts, "a peer", "b peer", "a / rw", "b /b rw")
	a := n.start("a", nil)
	a.apply(p)
	a.put("/certs/key", "good")
	// b names an entry of /certs/key under tags that it may write: of /b, and of /b with the path key of /certs/key.
	key := testKey("b")
	for i, tags := range [][]record.Tag{
		n.id.Tags("/b"),
		{n.id.TagOf("/b"), n.id.PathKey("/certs/key")},
		n.id.Tags("/certs/key"),
	} {
		e := &record.Entry{Kind: record.KindPut, Path: "/certs/key", Value: []byte("evil")}
		w := &record.Write{Author: record.KeyOf(key), HLC: record.HLCFromMilli(n.clock.wall + 1000), Slots: []record.Slot{{Entry: e.ID(), Tags: tags}}}
		block := n.forge(key, uint64(i), 1, record.Digest{}, 2, []record.Digest{n.genesisDigest()}, w)
		res, err := a.Ingest(context.Background(), record.KeyOf(key), []record.Parcel{{Block: block, Entries: [][]byte{e.Encode()}}})
		if err != nil || res.New != 1 {
			t.Fatalf("%+v, %v", res, err)
		}
	}
	if got := a.tree(); got != "/certs/key=good " {
		t.Fatalf("a shows %q", got)
	}
	if st := a.Stats(); st.Unready != 0 || st.Missing != 0 {
		t.Fatalf("void slots are waited for: %+v", st)
	}
}

func TestG10_WrappedBundleIsRefused(t *testing.T) {
	n, a, b, _ := three(t, 1)
	a.put("/p", "v")
	var raw []byte
	if err := a.Missing(context.Background(), nil, b.self, func(p record.Parcel) error { raw = p.Block; return nil }); err != nil {
		t.Fatal(err)
	}
	good, err := record.ParseBlock(raw)
	if err != nil {
		t.Fatal(err)
	}
	other := n.forge(testKey("c"), 1, 1, record.Digest{}, 2, []record.Digest{n.genesisDigest()})
	wrapped := record.EncodeBlock([]record.Digest{record.DigestOf(other)}, 3, good.Encode())
	res, err := a.Ingest(context.Background(), b.self, []record.Parcel{{Block: other}, {Block: wrapped}})
	if err != nil || res.New != 1 || res.Invalid == nil {
		t.Fatalf("an honest bundle on other links: %+v, %v", res, err)
	}
	if a.alarmed("identity-reused") || a.alarmed("fork") {
		t.Fatal("the origin is blamed")
	}
}

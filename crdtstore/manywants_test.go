package crdtstore

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"syncagent/crdtstore/record"
)

// TestG10_ManyVersionsBecomeReadable: a host gets the right to read a path that was written more often than a transaction
// has rows. It comes to want all of its versions, and none when it has the newest, in several turns.
func TestG10_ManyVersionsBecomeReadable(t *testing.T) {
	const versions, inBlock = 30_000, 250
	n := newTestNet(t, 1)
	a := n.startOn("a", nil, t.TempDir())
	a.apply(n.policy(hosts, "* peer", "b /p rw"))
	tags := n.id.Tags("/p")
	var newest *record.Entry
	prev, links := record.Digest{}, []record.Digest{n.genesisDigest()}
	for seq := range uint64(versions / inBlock) {
		var writes []*record.Write
		for i := range inBlock {
			newest = &record.Entry{Kind: record.KindPut, Path: "/p", Value: []byte(fmt.Sprint(seq, i))}
			slot := record.Slot{Entry: newest.ID(), Tags: tags}
			hlc := record.HLCFromMilli(n.clock.wall) + record.HLC(seq*inBlock+uint64(i))
			writes = append(writes, &record.Write{Author: record.KeyOf(testKey("b")), HLC: hlc, Slots: []record.Slot{slot}})
		}
		block := n.forge(testKey("b"), 1, seq+1, prev, seq+2, links, writes...)
		if r, err := a.Ingest(context.Background(), record.KeyOf(testKey("b")), []record.Parcel{{Block: block}}); err != nil || r.New != 1 {
			t.Fatal(r, err)
		}
		prev = record.DigestOf(block)
		links = []record.Digest{prev}
	}
	until := func(missing int) {
		t.Helper()
		for range 10 {
			n.clock.advance(time.Second)
			if err := a.Answered(context.Background(), a.self, nil, nil); err != nil {
				t.Fatal(err)
			}
		}
		if got := a.Stats().Missing; got != missing {
			t.Fatalf("%d entries are wanted, not %d", got, missing)
		}
	}
	until(0)
	a.apply(n.policy(hosts, "* peer", "b /p rw", "a /p read"))
	until(versions)
	if _, err := a.Ingest(context.Background(), a.self, []record.Parcel{{Entries: [][]byte{bytes.Clone(newest.Encode())}}}); err != nil {
		t.Fatal(err)
	}
	until(0)
	if got := a.get("/p"); got != string(newest.Value) {
		t.Errorf("it shows %q", got)
	}
}

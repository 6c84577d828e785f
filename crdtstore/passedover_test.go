package crdtstore

import (
	"context"
	"fmt"
	"testing"

	"syncagent/acl"
	"syncagent/crdtstore/record"
)

// TestLargeWriteIsNotPassedOverForEver: a batch that fills a turn by itself gets one, while blocks of others come without
// a pause.
func TestLargeWriteIsNotPassedOverForEver(t *testing.T) {
	n := newTestNet(t, 1)
	b := n.start("b", nil)
	policy := n.openPolicy()
	b.apply(policy)
	for i := range 20 { // each fills half a turn
		var ops []Op
		for j := range 25 {
			ops = append(ops, Op{Path: fmt.Sprintf("/b/%d/%d", i, j), Value: make([]byte, 30<<10)})
		}
		if _, err := b.Write(context.Background(), ops); err != nil {
			t.Fatal(err)
		}
	}
	o := n.options("a")
	disk := newMemKV()
	o.kv, o.chunks = disk, disk.chunks
	a, err := Open(o) // the test owns it
	if err != nil {
		t.Fatal(err)
	}
	signed, err := acl.ParseSigned(policy)
	if err != nil {
		t.Fatal(err)
	}
	a.queue.add(&policyRequest{signed, make(chan error, 1)})
	if err := a.catchUp(); err != nil {
		t.Fatal(err)
	}
	blocks := &ingestRequest{from: b.self}
	if err := b.Missing(context.Background(), nil, a.self, func(p record.Parcel) error {
		checked, _, _, err := a.check(a.self, []record.Parcel{p})
		blocks.parcels = append(blocks.parcels, checked...)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	var ops []Op
	for i := range record.MaxSlots {
		ops = append(ops, Op{Path: fmt.Sprintf("/a/%d", i), Value: make([]byte, 1<<10)})
	}
	large, err := a.request(ops)
	if err != nil {
		t.Fatal(err)
	}
	a.queue.add(blocks)
	a.queue.add(large)
	for len(large.done) == 0 && len(a.queue.ingests) > 0 {
		if err := a.step(); err != nil {
			t.Fatal(err)
		}
		if err := a.conclude(); err != nil {
			t.Fatal(err)
		}
	}
	if len(a.queue.ingests) == 0 {
		t.Error("the write had to wait until no block was left")
	}
	if err := a.catchUp(); err != nil {
		t.Fatal(err)
	}
	if r := <-large.done; r.err != nil {
		t.Error(r.err)
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
}

package crdtstore

import (
	"fmt"
	"testing"

	"syncagent/crdtstore/record"
)

// A peer that brings many blocks holds up neither one that brings few nor the writes of this host: all get a share of the
// next turn.
func TestManyBlocksHoldNobodyUp(t *testing.T) {
	const many = 200
	n := newTestNet(t, 1)
	b, c := n.start("b", nil), n.start("c", nil)
	policy := n.openPolicy()
	for _, nd := range []*node{b, c} {
		nd.apply(policy)
	}
	for i := range many {
		b.put(fmt.Sprint("/b/", i), "v")
	}
	c.put("/c", "v")
	o := n.options("a")
	o.kv, o.Clock = newMemKV(), &offsetClock{testClock: n.clock}
	s, err := Open(o) // and its turns are made by hand
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	p, err := s.checkPolicy(policy)
	if err != nil {
		t.Fatal(err)
	}
	turn := func() {
		t.Helper()
		if err := s.step(); err != nil {
			t.Fatal(err)
		}
		if err := s.conclude(); err != nil {
			t.Fatal(err)
		}
	}
	s.queue.add(&policyRequest{p, make(chan error, 1)})
	turn()
	bring := func(from *node) *ingestRequest {
		t.Helper()
		req := &ingestRequest{from: from.self, done: make(chan ingestResult, 1)}
		err := from.Missing(t.Context(), nil, s.self, func(p record.Parcel) error {
			checked, _, invalid, err := s.check(from.self, []record.Parcel{p})
			req.parcels = append(req.parcels, checked...)
			if err == nil {
				err = invalid
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return req
	}
	large, small := bring(b), bring(c)
	s.queue.add(large)
	s.queue.add(small)
	for i := range 2 {
		write, err := s.request([]Op{{Path: "/a", Value: []byte("v")}})
		if err != nil {
			t.Fatal(err)
		}
		s.queue.add(write)
		if turn(); len(write.done) == 0 {
			t.Errorf("turn %d left the write of this host behind", i)
		}
	}
	if len(small.done) == 0 {
		t.Error("the small request still waits after two turns")
	}
	if large.next == 0 || len(large.done) > 0 {
		t.Errorf("%d of %d blocks of the large request were taken", large.next, many)
	}
	// A client that comes again at once does not find the store busy with all the rest.
	before := large.next
	if turn(); large.next > before+turnShare {
		t.Errorf("the turn after a write of this host took %d blocks", large.next-before)
	}
	write, err := s.request([]Op{{Path: "/a", Value: []byte("w")}})
	if err != nil {
		t.Fatal(err)
	}
	s.queue.add(write)
	for i := range 5 { // the first takes the write, and nobody syncs it
		before := large.next
		if err := s.step(); err != nil {
			t.Fatal(err)
		}
		if i > 0 && large.next > before+turnShare {
			t.Errorf("turn %d after a write that is not on disk yet took %d blocks", i, large.next-before)
		}
	}
	for range many / turnShare {
		turn()
	}
	if r := <-large.done; r.err != nil || r.New != many {
		t.Errorf("the large request: %+v", r)
	}
}

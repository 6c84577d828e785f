package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"

	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore"
	"syncagent/crdtstore/record"
	"syncagent/p2p"
)

// otherNetwork is a peer that differs in a given way and tells how far it is with what it was asked.
type otherNetwork struct {
	fakeNetwork
	found   []p2p.Difference
	reached map[string]p2p.Reached
	away    bool
}

func (n *otherNetwork) Compare(context.Context, record.PublicKey) (p2p.Comparison, error) {
	if n.away {
		return p2p.Comparison{}, errors.New("not connected")
	}
	return p2p.Comparison{SameBlocks: true, Settled: true, Here: 7, There: 8, Withheld: 2, Paths: n.found}, nil
}

func (n *otherNetwork) Follow(_ context.Context, _ record.PublicKey, of []p2p.Placed, _ p2p.Stage) (p p2p.Progress, err error) {
	for _, q := range of {
		p.Of = append(p.Of, n.reached[q.Path])
	}
	return p, nil
}

// TestCompareSaysWhy holds what is told of each kind of difference, and that the list is cut and the count is not.
func TestCompareSaysWhy(t *testing.T) {
	v := func(hlc int) record.Version { return record.Version{HLC: record.HLC(hlc)} }
	n := &otherNetwork{reached: map[string]p2p.Reached{
		"/a": {}, "/b": {Stage: p2p.StageStored, Shown: v(1)}, "/c": {Stage: p2p.StageStored, Shown: v(9)},
	}}
	s := startServer(t, func(s *server) { s.service.peers = n })
	n.found = []p2p.Difference{
		{Path: "/a", Here: v(5)}, {Path: "/b", Here: v(5), There: v(1)}, {Path: "/c", Here: v(5), There: v(1)},
		{Path: "/d", There: v(5)}, {Path: "/e", Here: v(1), There: v(5)},
	}
	peer := newFakeStore().self
	compare := func(limit int32) (*apiv1.CompareResponse, error) {
		r, err := s.client.Agent.Compare(t.Context(), connect.NewRequest(&apiv1.CompareRequest{PeerId: peer.String(), Limit: limit}))
		if err != nil {
			return nil, err
		}
		return r.Msg, nil
	}
	r, err := compare(0)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range r.GetPaths() {
		got = append(got, strings.ToLower(fmt.Sprint(d.GetPath(), " ", strings.TrimPrefix(d.GetKind().String(), "DIFFERENCE_KIND_"), " ",
			strings.TrimPrefix(d.GetReason().String(), "DIFFERENCE_REASON_"))))
	}
	want := []string{"/a missing_there not_arrived", "/b newer_here not_shown", "/c newer_here passed",
		"/d missing_here not_shown", "/e newer_there not_shown"} // the fake store holds every write
	if !slices.Equal(got, want) || r.GetDifferences() != 5 || r.GetHere() != 7 || r.GetWithheld() != 2 {
		t.Errorf("%v\n%v", got, r)
	}
	if r, err := compare(2); err != nil || len(r.GetPaths()) != 2 || r.GetDifferences() != 5 {
		t.Errorf("cut: %v, %v", r, err)
	}
	if _, err := compare(-1); ErrorOf(err).Code != CodeBadRequest {
		t.Errorf("a bad limit: %v", err)
	}
	n.away = true
	if _, err := compare(0); ErrorOf(err).Code != CodeUnreachable {
		t.Errorf("away: %v", err)
	}
}

// TestG7_ListingLeavesOutWhatOneMayNotRead holds that a member is told of no path that it may not read.
func TestG7_ListingLeavesOutWhatOneMayNotRead(t *testing.T) {
	f := newFakeStore()
	f.policy = fakePolicy{serial: 1, denied: []string{"/secret"}}
	for _, path := range []string{"/a", "/secret/b", "/.sys/c"} {
		f.items[path] = crdtstore.Item{Path: path, Version: record.Version{HLC: 1}}
	}
	var paths []string
	withheld, err := listFor(f, record.PublicKey{1}, func(e p2p.Shown) error { paths = append(paths, e.Path); return nil })
	if err != nil || withheld != 1 || !slices.Equal(paths, []string{"/a"}) {
		t.Errorf("%v, %d, %v", paths, withheld, err)
	}
}

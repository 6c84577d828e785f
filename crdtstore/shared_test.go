package crdtstore

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"syncagent/crdtstore/record"
)

// TestEntryOfTwoWritesIsKeptForEither: who may write a path can sign somebody else's entry again, and have the copy
// superseded long after the original has left the slots that a turn looks at. The bytes of the original, the last good
// version perhaps, must not go with the copy.
func TestEntryOfTwoWritesIsKeptForEither(t *testing.T) {
	n := newTestNet(t, 1)
	a := n.start("a", nil)
	a.apply(n.policy([]string{"a", "x", "y"}, "a peer", "a / rw", "x / rw", "y / rw"))
	value := strings.Repeat("long", inlineEntry)
	e := &record.Entry{Kind: record.KindPut, Path: "/p", Value: []byte(value)}
	relay := func(client string, e *record.Entry) record.Version {
		t.Helper()
		hlc, err := a.HLCFor([]string{"/p"})
		if err != nil {
			t.Fatal(err)
		}
		w := &record.Write{Author: record.KeyOf(testKey(client)), HLC: hlc, Slots: []record.Slot{{Entry: e.ID(), Tags: n.id.Tags("/p")}}}
		w.Sign(testKey(client), n.id)
		v, err := a.Relay(context.Background(), w, [][]byte{e.Encode()})
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	original := relay("x", e)
	for i := range pathWindow {
		a.put("/p", fmt.Sprint("between ", i))
	}
	again := relay("y", e)
	relay("y", &record.Entry{Kind: record.KindPut, Path: "/p", Value: []byte("short")})
	for i := range keepNewest + 1 {
		a.put("/p", fmt.Sprint("after ", i))
	}
	s, err := a.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	versions, err := s.History("/p", true)
	if err != nil {
		t.Fatal(err)
	}
	for _, item := range versions {
		switch {
		case item.Version == original && string(item.Value) != value:
			t.Errorf("the original has %d bytes", item.Size)
		case item.Version == again && item.Size >= 0:
			t.Error("the copy was not dropped: this shows nothing")
		}
	}
}

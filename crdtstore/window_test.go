package crdtstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"syncagent/crdtstore/record"
)

// A turn looks at the highest slots of a path. These tests hold that what it shows may lie below all of them.

// TestG4_ShownBelowTheWindow: what a revoked author wrote lies above what a path shows. An older write that comes late does
// not take its place, and a write that names the version shown succeeds, also when a newer one lacks its entry.
func TestG4_ShownBelowTheWindow(t *testing.T) {
	n := newTestNet(t, 1)
	a, b, c := n.start("a", nil), n.start("b", nil), n.start("c", nil)
	for _, nd := range []*node{a, b, c} {
		nd.apply(n.openPolicy())
	}
	b.put("/p", "old")
	n.clock.advance(time.Second)
	first := a.put("/p", "first")
	c.pull(a)
	for i := range pathWindow + 10 {
		c.put("/p", fmt.Sprint("revoked ", i))
	}
	a.pull(c)
	a.apply(n.policy(hosts, "* peer", "* / read", "a / write", "b / write"))
	if got := a.get("/p"); got != "first" {
		t.Fatalf("after the policy it shows %q", got)
	}
	a.pull(b)
	if got := a.get("/p"); got != "first" {
		t.Fatalf("after an older write came it shows %q", got)
	}
	b.pull(a)
	n.clock.advance(time.Second)
	b.put("/p", "not here")
	bring := func(p record.Parcel) error {
		_, err := a.Ingest(context.Background(), b.self, []record.Parcel{{Block: p.Block}})
		return err
	}
	if err := b.Missing(context.Background(), a.Vector(), a.self, bring); err != nil {
		t.Fatal(err)
	}
	if got := a.get("/p"); got != "first" {
		t.Fatalf("while an entry lacks it shows %q", got)
	}
	none := record.Version{}
	if _, err := a.Write(context.Background(), []Op{{Path: "/p", Value: []byte("new"), IfVersion: &none}}); !errors.Is(err, ErrPrecondition) {
		t.Errorf("a write that must be the first of its path: %v", err)
	}
	if _, err := a.Write(context.Background(), []Op{{Path: "/p", Value: []byte("new"), IfVersion: &first, MustExist: true}}); err != nil {
		t.Errorf("a write that names the version shown: %v", err)
	}
	if got := a.get("/p"); got != "new" {
		t.Errorf("in the end it shows %q", got)
	}
}

// TestG3_PutAboveWhatLiesBelowTheWindow: all that a turn looks at of a path is not due yet, as one host's clock is far ahead.
// Below it lies what the path shows, by a host whose clock is a little ahead. A put wins over that all the same.
func TestG3_PutAboveWhatLiesBelowTheWindow(t *testing.T) {
	n := newTestNet(t, 1)
	a := n.start("a", nil)
	n.offset = 5 * time.Minute
	b := n.start("b", nil)
	n.offset = 20 * time.Minute
	c := n.start("c", nil)
	for _, nd := range []*node{a, b, c} {
		nd.apply(n.openPolicy())
	}
	first := b.put("/p", "a little ahead")
	for i := range pathWindow {
		c.put("/p", fmt.Sprint("not due ", i))
	}
	a.pull(b)
	a.pull(c)
	if got := a.get("/p"); got != "a little ahead" {
		t.Fatalf("it shows %q", got)
	}
	if v := a.put("/p", "new"); v.Compare(first) < 0 || a.get("/p") != "new" {
		t.Errorf("a put of version %s above %s; it shows %q", v, first, a.get("/p"))
	}
}

// TestG4_ShownBelowUnreadyWrites: above what a path shows lie the slots of many writes that are not ready. It stays shown
// when an entry of one of them comes and another still lacks.
func TestG4_ShownBelowUnreadyWrites(t *testing.T) {
	n := newTestNet(t, 1)
	a, b := n.start("a", nil), n.start("b", nil)
	a.apply(n.openPolicy())
	a.put("/p", "first")
	b.pull(a)
	for i := range pathWindow {
		var ops []Op
		for _, path := range []string{"/p", "/q", "/r"} {
			ops = append(ops, Op{Path: path, Value: []byte(fmt.Sprint(i))})
		}
		if _, err := b.Write(context.Background(), ops); err != nil {
			t.Fatal(err)
		}
	}
	var parcels []record.Parcel
	var late []byte
	err := b.Missing(context.Background(), a.Vector(), a.self, func(p record.Parcel) error {
		some := record.Parcel{Block: bytes.Clone(p.Block)}
		for _, data := range p.Entries {
			switch e, err := record.ParseEntry(data); {
			case err != nil:
				return err
			case e.Path == "/p":
				some.Entries = append(some.Entries, bytes.Clone(data))
			case e.Path == "/q":
				late = bytes.Clone(data)
			}
		}
		parcels = append(parcels, some)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range append(parcels, record.Parcel{Entries: [][]byte{late}}) {
		if r, err := a.Ingest(context.Background(), b.self, []record.Parcel{p}); err != nil || r.Invalid != nil {
			t.Fatal(err, r.Invalid)
		}
		if got := a.get("/p"); got != "first" {
			t.Fatalf("it shows %q", got)
		}
	}
	a.fetch(b)
	if got, want := a.get("/p"), fmt.Sprint(pathWindow-1); got != want {
		t.Errorf("when all is here it shows %q, not %q", got, want)
	}
}

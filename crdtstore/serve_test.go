package crdtstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"syncagent/crdtstore/record"
)

// TestG7_SlowReaderIsServedByThePolicyInForce: all that a peer asked for may take it hours to read. A right that is
// withdrawn meanwhile counts.
func TestG7_SlowReaderIsServedByThePolicyInForce(t *testing.T) {
	n := newTestNet(t, 1)
	a := n.start("a", nil)
	a.apply(n.policy(hosts, "group @hosts a b c", "@hosts peer", "@hosts / rw"))
	for i := range 10 {
		a.put(fmt.Sprint("/secret/", i), "v")
	}
	withdrawn := n.policy(hosts, "group @hosts a b c", "@hosts peer", "a / rw")
	sends := map[string]func(func(record.Parcel) error) error{
		"missing": func(send func(record.Parcel) error) error {
			return a.Missing(context.Background(), nil, record.KeyOf(testKey("b")), send)
		},
		"ancestors": func(send func(record.Parcel) error) error {
			return a.Ancestors(context.Background(), a.Heads(), record.KeyOf(testKey("b")), send)
		},
	}
	for name, serve := range sends {
		a.apply(n.policy(hosts, "group @hosts a b c", "@hosts peer", "@hosts / rw"))
		blocks, entries := 0, 0
		err := serve(func(p record.Parcel) error {
			blocks++
			entries += len(p.Entries)
			if blocks == 3 {
				withdrawn = n.policy(hosts, "group @hosts a b c", "@hosts peer", "a / rw")
				a.apply(withdrawn)
			}
			return nil
		})
		if err != nil || blocks != 10 || entries != 3 {
			t.Errorf("%s: %d blocks and %d entries were sent, want 10 and the first 3: %v", name, blocks, entries, err)
		}
	}
}

// countedViews counts the views of the rows that are made.
type countedViews struct {
	kv
	made atomic.Int32
}

func (c *countedViews) View() view {
	c.made.Add(1)
	return c.kv.View()
}

// A view keeps what is dropped from being forgotten: a slow reader gets all that it lacks from several.
func TestNoReaderHoldsAViewForLong(t *testing.T) {
	n := newTestNet(t, 1)
	o, views := n.options("a"), &countedViews{kv: newMemKV()}
	o.kv = views
	a := n.run("a", o)
	a.apply(n.openPolicy())
	const blocks, size = 60, 200 << 10
	for i := range blocks {
		a.put(fmt.Sprint("/large/", i), string(bytes.Repeat([]byte{byte(i)}, size)))
	}
	before, sent := views.made.Load(), 0
	if err := a.Missing(context.Background(), nil, a.self, func(p record.Parcel) error {
		sent += len(p.Entries)
		return nil
	}); err != nil || sent != blocks {
		t.Fatalf("%d entries were sent: %v", sent, err)
	}
	if made := views.made.Load() - before; made <= blocks*size/viewBytes {
		t.Errorf("%d views were made for %d bytes", made, blocks*size)
	}
}

// An entry whose row was lost does not keep its block, and all after it, from others. They have it from somebody else.
func TestLostEntryDoesNotEndASync(t *testing.T) {
	n := newTestNet(t, 1)
	a, b := n.start("a", nil), n.start("b", nil)
	policy := n.openPolicy()
	a.apply(policy)
	b.apply(policy)
	a.put("/large", string(make([]byte, 2*inlineEntry)))
	a.put("/after", "v")
	a.disk.drop([]byte{'e'})
	b.pull(a)
	if b.get("/after") != "v" || b.Stats().Missing != 1 {
		t.Errorf("b shows %q, %d entries are missing", b.tree(), b.Stats().Missing)
	}
	if !a.alarmed("corrupt") {
		t.Error("no alarm")
	}
}

// A block that is here and cannot be read is not asked for, nor is what names it parked: the store is built anew.
func TestUnreadableLinkIsDamage(t *testing.T) {
	n := newTestNet(t, 1)
	a, b, c := n.start("a", nil), n.start("b", nil), n.start("c", nil)
	policy := n.openPolicy()
	for _, nd := range []*node{a, b, c} {
		nd.apply(policy)
	}
	a.put("/1", "v")
	first := a.Heads()[0]
	c.pull(a)
	c.put("/on-the-first", "v")
	a.put("/2", "v")
	b.pull(a)
	b.stop()
	b.disk.spoil(blockKey(first))
	o := n.options("b")
	o.kv, o.Clock = b.disk, b.clock
	alarmed := ""
	o.Alarm = func(code, _ string) { alarmed = code }
	again, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	ran := make(chan error, 1)
	go func() { ran <- again.Run(t.Context()) }()
	var parcels []record.Parcel
	if err := c.Missing(t.Context(), again.Vector(), again.self, func(p record.Parcel) error {
		parcels = append(parcels, p)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if got, err := again.Ingest(t.Context(), c.self, parcels); err == nil {
		t.Errorf("a block on an unreadable one: %+v", got)
	} else if err := <-ran; !errors.Is(err, ErrCorrupt) || alarmed != "corrupt" {
		t.Errorf("run: %v, alarm %q", err, alarmed)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

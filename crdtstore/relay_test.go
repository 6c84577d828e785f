package crdtstore

import (
	"context"
	"errors"
	"strings"
	"testing"

	"syncagent/crdtstore/record"
)

// clientWrite signs a write of one path as a client would.
func clientWrite(t *testing.T, n *testNet, a *node, client, path, value string) (*record.Write, [][]byte) {
	t.Helper()
	hlc, err := a.HLCFor([]string{path})
	if err != nil {
		t.Fatal(err)
	}
	e := &record.Entry{Kind: record.KindPut, Path: path, Value: []byte(value)}
	key := testKey(client)
	w := &record.Write{Author: record.KeyOf(key), HLC: hlc, Slots: []record.Slot{{Entry: e.ID(), Tags: n.id.Tags(path)}}}
	w.Sign(key, n.id)
	return w, [][]byte{e.Encode()}
}

func TestRelayOfAClientsWrite(t *testing.T) {
	n := newTestNet(t, 1)
	p := n.policy([]string{"a", "b", "deploy"}, "a peer", "b peer", "a /other rw", "b / rw", "deploy /certs write")
	a, b := n.start("a", nil), n.start("b", nil)
	a.apply(p)
	b.apply(p)
	ctx := context.Background()

	w, entries := clientWrite(t, n, a, "deploy", "/certs/key", "one")
	v, err := a.Relay(ctx, w, entries)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := a.Relay(ctx, w, entries); err != nil || again != v || a.Stats().Blocks != 2 {
		t.Fatalf("the same write again: %v, %v, %d blocks", again, err, a.Stats().Blocks)
	}
	if a.get("/certs/key") != "-" {
		t.Fatal("the relay shows what it may not read")
	}
	b.pull(a) // only a has the entry, and a may not read it
	b.fetch(a)
	n.clock.advance(2 * askAnybody * 1e6)
	b.fetch(a)
	if got := b.get("/certs/key"); got != "one" {
		t.Fatalf("b shows %q", got)
	}
	// A write that does not win any more has to be signed again.
	stale, staleEntries := clientWrite(t, n, b, "deploy", "/certs/key", "stale")
	b.put("/certs/key", "newer")
	b.put("/certs/key", "newest")
	if _, err := b.Relay(ctx, stale, staleEntries); !errors.Is(err, ErrPrecondition) {
		t.Fatalf("a stale write: %v", err)
	}
	// What the relay or anybody else changed does not pass.
	bad, badEntries := clientWrite(t, n, b, "deploy", "/certs/key", "forged")
	bad.Author = b.self
	if _, err := b.Relay(ctx, bad, badEntries); !errors.Is(err, record.ErrFormat) {
		t.Fatalf("a forged author: %v", err)
	}
	foreign, foreignEntries := clientWrite(t, n, b, "deploy", "/elsewhere", "x")
	if _, err := b.Relay(ctx, foreign, foreignEntries); !errors.Is(err, ErrDenied) {
		t.Fatalf("a path that the client may not write: %v", err)
	}
	if _, err := b.Relay(ctx, w, [][]byte{badEntries[0]}); !errors.Is(err, record.ErrFormat) {
		t.Fatalf("another entry under a signed write: %v", err)
	}
	far, farEntries := clientWrite(t, n, b, "deploy", "/certs/key", "far")
	far.HLC = record.HLCFromMilli(n.clock.wall + 3_600_000)
	far.Sign(testKey("deploy"), n.id)
	if _, err := b.Relay(ctx, far, farEntries); !errors.Is(err, ErrPrecondition) {
		t.Fatalf("a write from the future: %v", err)
	}
}

// TestG1_RepeatedRelayIsOnDisk: a write that came from another agent a moment ago is not durable yet; who is told that
// this agent has it may rely on it all the same.
func TestG1_RepeatedRelayIsOnDisk(t *testing.T) {
	n := newTestNet(t, 1)
	p := n.policy([]string{"a", "b", "deploy"}, "a peer", "b peer", "a / rw", "b / rw", "deploy / write")
	a, b := n.start("a", nil), n.start("b", nil)
	a.apply(p)
	b.apply(p)
	w, entries := clientWrite(t, n, a, "deploy", "/x", "one")
	if _, err := a.Relay(context.Background(), w, entries); err != nil {
		t.Fatal(err)
	}
	b.pull(a)
	if got := n.start("b", b.disk.powerCut(0)).get("/x"); got != "-" {
		t.Fatalf("b has synced %q already: this shows nothing", got)
	}
	if _, err := b.Relay(context.Background(), w, entries); err != nil {
		t.Fatal(err)
	}
	if got := n.start("b", b.disk.powerCut(0)).get("/x"); got != "one" {
		t.Errorf("after a power cut b shows %q", got)
	}
}

// TestG1_RepeatedRelayHoldsTheEntry: a client whose first relay died repeats its write at an agent that has the block
// already but not the entry, because it may not read it or because it did not come yet. That is a success, so the entry
// must be there for others, though the first relay never comes back.
func TestG1_RepeatedRelayHoldsTheEntry(t *testing.T) {
	for _, large := range []bool{false, true} {
		n := newTestNet(t, 1)
		p := n.policy([]string{"a", "blind", "slow", "c", "deploy"}, "a peer", "blind peer", "slow peer", "c peer", "a / rw",
			"slow / rw", "c / rw", "deploy / write")
		a, blind, slow, c := n.start("a", nil), n.start("blind", nil), n.start("slow", nil), n.start("c", nil)
		for _, one := range []*node{a, blind, slow, c} {
			one.apply(p)
		}
		value := "one"
		if large {
			value = strings.Repeat("large", inlineEntry/4)
		}
		w, entries := clientWrite(t, n, a, "deploy", "/x", value)
		if _, err := a.Relay(context.Background(), w, entries); err != nil {
			t.Fatal(err)
		}
		for _, one := range []*node{blind, slow} {
			if err := a.Missing(context.Background(), one.Vector(), one.self, func(p record.Parcel) error {
				_, err := one.Ingest(context.Background(), a.self, []record.Parcel{{Block: p.Block}})
				return err
			}); err != nil {
				t.Fatal(err)
			}
			if _, err := one.Relay(context.Background(), w, entries); err != nil {
				t.Fatal(err)
			}
			one.stop()
		}
		a.stop()
		if got := n.start("slow", slow.disk.powerCut(0)).get("/x"); got != value {
			t.Errorf("slow shows %.10q", got)
		}
		c.pull(n.start("blind", blind.disk.powerCut(0)))
		if got := c.get("/x"); got != value {
			t.Errorf("c got %.10q of the agent that cannot read it", got)
		}
	}
}

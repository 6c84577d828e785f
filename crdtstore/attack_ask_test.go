package crdtstore

import (
	"context"
	"testing"

	"syncagent/crdtstore/record"
)

func TestG7_AttacksByAsking(t *testing.T) {
	for _, c := range readAttacks {
		t.Run(c.name, c.run)
	}
}

// readAttacks ask a for what the asker may not read.
var readAttacks = []attack{
	{"by a's own rights, as a check of the harness", "sent", func(w *attackWorld) string { return w.ask(testKey("b"), w.secret()) }},
	{"by ID, as a member", "denied", func(w *attackWorld) string { return w.ask(w.mallory, w.secret()) }},
	{"by ID, under a path that it may read", "not here", func(w *attackWorld) string {
		want := w.secret()
		want.PathKey = w.id.PathKey("/m/x")
		return w.ask(w.mallory, want)
	}},
	{"by a slot of its own that names the entry", "not sent", func(w *attackWorld) string {
		want := w.secret()
		write := &record.Write{Author: record.KeyOf(w.mallory), HLC: w.hlc(0), Slots: []record.Slot{{Entry: want.Entry, Tags: w.id.Tags("/m/x")}}}
		w.send(nil, write)
		want.PathKey, want.Version = w.id.PathKey("/m/x"), record.Version{HLC: write.HLC, Write: write.ID()}
		if got := w.ask(w.mallory, want); got == "sent" {
			return got
		}
		return "not sent"
	}},
	{"by a guess", "not here", func(w *attackWorld) string {
		return w.ask(w.mallory, record.Want{PathKey: w.id.PathKey("/m/none"), Entry: record.ID{1}})
	}},
	{"as nobody", "denied", func(w *attackWorld) string { return w.ask(testKey("nobody"), w.secret()) }},
	{"as a revoked key", "denied", func(w *attackWorld) string {
		w.a.apply(w.policy(attackNames, w.rules("old / rw", w.revoke(w.old))...))
		return w.ask(w.old, w.secret())
	}},
	{"as a key that lost its right a moment ago", "denied", func(w *attackWorld) string {
		w.a.apply(w.policy(attackNames, w.rules("mallory /secret read")...))
		if got := w.ask(w.mallory, w.secret()); got != "sent" {
			return "while it had the right: " + got
		}
		if err := w.a.SetPolicy(context.Background(), w.policy(attackNames, attackRules...)); err != nil {
			w.t.Fatal(err)
		}
		return w.ask(w.mallory, w.secret())
	}},
	{"by sync from nothing", "blocks only", func(w *attackWorld) string {
		return w.leak(func(send func(record.Parcel) error) error {
			return w.a.Missing(context.Background(), nil, record.KeyOf(w.mallory), send)
		})
	}},
	{"by the ancestors of the heads", "blocks only", func(w *attackWorld) string {
		return w.leak(func(send func(record.Parcel) error) error {
			return w.a.Ancestors(context.Background(), w.a.Heads(), record.KeyOf(w.mallory), send)
		})
	}},
}

func TestG6_AttacksByClients(t *testing.T) {
	for _, c := range clientAttacks {
		t.Run(c.name, c.run)
	}
}

// clientAttacks come from callers of the API of a.
var clientAttacks = []attack{
	{"relayed write outside of the author's paths", "denied", func(w *attackWorld) string {
		return w.relay(w.put(w.deploy, "/secret/key", "evil", w.hlc(0)))
	}},
	{"relayed write of a stranger", "denied", func(w *attackWorld) string {
		return w.relay(w.put(testKey("nobody"), "/certs/key", "evil", w.hlc(0)))
	}},
	{"relayed write of a revoked key", "denied", func(w *attackWorld) string {
		w.a.apply(w.policy(attackNames, w.rules(w.revoke(w.old))...))
		return w.relay(w.put(w.old, "/old/x", "evil", w.hlc(0)))
	}},
	{"relayed write without a signature", "refused", func(w *attackWorld) string {
		write, entries := w.put(w.deploy, "/certs/key", "evil", w.hlc(0))
		write.Sig = nil
		return w.relay(write, entries)
	}},
	{"relayed write with the agent for its author", "refused", func(w *attackWorld) string {
		write, entries := w.put(w.deploy, "/secret/key", "evil", w.hlc(0))
		write.Author = w.a.self
		return w.relay(write, entries)
	}},
	{"relayed write for another network", "refused", func(w *attackWorld) string {
		write, entries := w.put(w.deploy, "/certs/key", "evil", w.hlc(0))
		write.Sign(w.deploy, record.NetworkID{1})
		return w.relay(write, entries)
	}},
	{"relayed write with another entry", "refused", func(w *attackWorld) string {
		write, _ := w.put(w.deploy, "/certs/key", "evil", w.hlc(0))
		_, entries := w.put(w.deploy, "/certs/key", "worse", w.hlc(0))
		return w.relay(write, entries)
	}},
	{"relayed write older than what is shown", "sign again", func(w *attackWorld) string {
		return w.relay(w.put(w.deploy, "/certs/key", "evil", w.hlc(-3_600_000)))
	}},
	{"relayed write from far ahead", "sign again", func(w *attackWorld) string {
		return w.relay(w.put(w.deploy, "/certs/key", "evil", w.hlc(3_600_000)))
	}},
	{"relayed write to the reserved path", "denied", func(w *attackWorld) string {
		return w.relay(w.put(w.deploy, "/.sys/x", "evil", w.hlc(0)))
	}},
	{"put of a path with ..", "refused", func(w *attackWorld) string {
		return w.write(Op{Path: "/certs/../secret", Value: []byte("evil")})
	}},
	{"put over the limit", "refused", func(w *attackWorld) string {
		return w.write(Op{Path: "/big", Value: make([]byte, record.MaxInlineValue+1)})
	}},
	{"put of the reserved path", "denied", func(w *attackWorld) string {
		return w.write(Op{Path: "/.sys/x", Value: []byte("evil")})
	}},
}

package crdtstore

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"syncagent/acl"
	"syncagent/crdtstore/record"
)

func TestG6_AttacksByPolicies(t *testing.T) {
	for _, c := range policyAttacks {
		t.Run(c.name, c.run)
	}
}

// policyAttacks come as policy texts, from anybody.
var policyAttacks = []attack{
	{"rollback to an older policy", "kept", func(w *attackWorld) string {
		older := w.policy(attackNames, w.rules("mallory / rw")...)
		w.a.apply(w.policy(attackNames, attackRules...))
		return w.policyOf(older)
	}},
	{"signed by a member", "refused", func(w *attackWorld) string {
		text := w.policy(attackNames, w.rules("mallory / rw")...)
		return w.policyOf(acl.Sign(acl.Unsigned(text), w.id, w.mallory))
	}},
	{"changed under its signature", "refused", func(w *attackWorld) string {
		text := w.policy(attackNames, w.rules("mallory /m/deep rw")...)
		return w.policyOf(bytes.Replace(text, []byte("/m/deep"), []byte("/secret"), 1))
	}},
	{"for another network", "refused", func(w *attackWorld) string {
		other := *w.testNet
		other.id, other.serial = record.NetworkID{1}, 100
		return w.policyOf(other.policy(attackNames, w.rules("mallory / rw")...))
	}},
	{"no signature", "refused", func(w *attackWorld) string {
		return w.policyOf(acl.Unsigned(w.policy(attackNames, w.rules("mallory / rw")...)))
	}},
	{"two megabytes", "refused", func(w *attackWorld) string {
		return w.policyOf(w.policy(attackNames, w.rules(strings.Repeat("# comment\n", 200_000))...))
	}},
	{"an identity twice", "refused", func(w *attackWorld) string {
		return w.policyOf(w.policy(append(attackNames, "mallory"), attackRules...))
	}},
	{"one key, two names", "refused", func(w *attackWorld) string {
		return w.policyOf(w.policy(attackNames, w.rules("identity admin2 "+record.KeyOf(w.mallory).String())...))
	}},
	{"a character that hides a line", "refused", func(w *attackWorld) string {
		return w.policyOf(w.policy(attackNames, w.rules("# harmless \u202e rw / yrollam")...))
	}},
	{"lines out of order", "kept, in force", func(w *attackWorld) string {
		lines := w.rules()
		for i, j := 0, len(lines)-1; i < j; i, j = i+1, j-1 {
			lines[i], lines[j] = lines[j], lines[i]
		}
		return w.policyOf(w.policy(attackNames, lines...))
	}},
	{"two policies with one serial", "kept; alarm true", func(w *attackWorld) string {
		one := w.policy(attackNames, w.rules("# one")...)
		w.serial--
		two := w.policy(attackNames, w.rules("# two")...)
		for _, text := range [][]byte{one, two} { // the higher hash wins, whatever comes first
			w.a.apply(text)
		}
		high := max(string(mustHash(w.t, one)), string(mustHash(w.t, two)))
		got := w.a.Policy().Hash()
		if string(got[:]) != high {
			return "the lower hash is in force"
		}
		return "kept; alarm " + fmt.Sprint(w.a.alarmed("policy-twins"))
	}},
	{"a later policy that lacks the revocation", "revoked true", func(w *attackWorld) string {
		w.a.apply(w.policy(attackNames, w.rules(w.revoke(w.old))...))
		w.a.apply(w.policy(attackNames, attackRules...))
		write, entries := w.put(w.old, "/old/x", "evil", w.hlc(0))
		w.send(entries, write)
		return "revoked" + w.shows() + fmt.Sprint(" ", w.a.Policy().Revoked(record.KeyOf(w.old)))
	}},
	{"an older policy with a revocation, late", "kept; revoked true", func(w *attackWorld) string {
		older := w.policy(attackNames, w.rules(w.revoke(w.old))...)
		w.a.apply(w.policy(attackNames, attackRules...))
		return w.policyOf(older) + "; revoked " + fmt.Sprint(w.a.Policy().Revoked(record.KeyOf(w.old)))
	}},
	{"twelve policies after a revocation", "revoked true", func(w *attackWorld) string {
		w.a.apply(w.policy(attackNames, w.rules(w.revoke(w.old))...))
		for range policiesKept + 2 {
			w.a.apply(w.policy(attackNames, attackRules...))
		}
		return "revoked " + fmt.Sprint(w.a.Policy().Revoked(record.KeyOf(w.old)))
	}},
	{"a keep line of a text that is not in force", "kept", func(w *attackWorld) string {
		write, entries := w.put(w.old, "/old/x", "evil", w.hlc(0))
		w.relay(write, entries)
		version := record.Version{HLC: write.HLC, Write: write.ID()}
		older := w.policy(attackNames, w.rules("keep "+version.String())...)
		w.a.apply(w.policy(attackNames, w.rules(w.revoke(w.old))...))
		return w.policyOf(older)
	}},
}

func mustHash(t testing.TB, text []byte) []byte {
	t.Helper()
	p, err := acl.ParseSigned(text)
	if err != nil {
		t.Fatal(err)
	}
	return p.Hash[:]
}

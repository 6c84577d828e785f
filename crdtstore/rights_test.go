package crdtstore

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"syncagent/acl"
	"syncagent/crdtstore/record"
)

func TestG6_UnauthorisedWriteIsNeverVisible(t *testing.T) {
	n := newTestNet(t, 1)
	p := n.policy([]string{"a", "b", "evil"}, "a peer", "b peer", "evil peer", "a / rw", "b / rw", "evil /evil rw")
	a, b := n.start("a", nil), n.start("b", nil)
	a.apply(p)
	b.apply(p)
	a.put("/certs/key", "good")
	// The hostile member has its own idea of the policy.
	evil := n.start("evil", nil)
	evil.apply(n.policy([]string{"evil"}, "evil peer", "evil / rw"))
	for _, text := range a.Policies() {
		if err := evil.SetPolicy(context.Background(), text); err != nil {
			t.Fatal(err)
		}
	}
	n.clock.advance(time.Second)
	evil.put("/certs/key", "bad")
	evil.put("/certs/new", "bad")
	evil.put("/evil/own", "fine")
	ctx := context.Background()
	var parcels []record.Parcel
	if err := evil.Missing(ctx, nil, evil.self, func(p record.Parcel) error { parcels = append(parcels, p); return nil }); err != nil {
		t.Fatal(err)
	}
	if res, err := b.Ingest(ctx, evil.self, parcels); err != nil || res.New != 3 {
		t.Fatalf("honest replicas hold the blocks all the same: %+v, %v", res, err)
	}
	meetPolicyless(a, b)
	for _, x := range []*node{a, b} {
		if got := x.tree(); got != "/certs/key=good /evil/own=fine " {
			t.Errorf("%s shows %q", x.name, got)
		}
		if x.disk.has([]byte("bad")) {
			t.Errorf("%s stored a value that its author may not write", x.name)
		}
	}
}

func meetPolicyless(a, b *node) { meet(a, b) }

func TestG7_BlindAgentHoldsNoByte(t *testing.T) {
	n := newTestNet(t, 1)
	a, b := n.start("a", nil), n.start("b", nil)
	p := n.policy(hosts, "group @hosts a b c", "@hosts peer", "a / rw", "b /public rw")
	a.apply(p)
	b.apply(p)
	a.put("/certs/secret-name", "secret-value")
	a.put("/public/x", "open")
	b.pull(a)
	if got := b.tree(); got != "/public/x=open " {
		t.Fatalf("b shows %q", got)
	}
	if b.Stats().BlockDigest != a.Stats().BlockDigest || b.Stats().Withheld != 1 || b.Stats().Missing != 0 {
		t.Fatalf("b does not hold the blocks, or misses something: %+v", b.Stats())
	}
	// Neither by asking, nor by being pushed.
	var w record.Want
	if err := a.Missing(context.Background(), nil, a.self, func(p record.Parcel) error {
		bl, err := record.ParseBlock(p.Block)
		if err == nil && w.Entry == (record.ID{}) {
			wr := bl.Writes[0]
			w = record.Want{PathKey: wr.Slots[0].PathKey(), Version: record.Version{HLC: wr.HLC, Write: wr.ID()}, Entry: wr.Slots[0].Entry}
			if _, err := b.Ingest(context.Background(), a.self, []record.Parcel{{Entries: p.Entries}}); err != nil {
				t.Error(err)
			}
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if got := a.Serve(b.self, []record.Want{w})[0]; got.Status != record.Denied || got.Entry != nil {
		t.Fatalf("asking by ID: %+v", got)
	}
	for _, needle := range []string{"secret-value", "secret-name", "/certs"} {
		if b.disk.has([]byte(needle)) {
			t.Errorf("%q lies in b's store", needle)
		}
	}
	// With the right come the entries, when it goes they go.
	p = n.policy(hosts, "group @hosts a b c", "@hosts peer", "a / rw", "b / rw")
	b.apply(p)
	a.apply(p)
	b.fetch(a)
	if got := b.get("/certs/secret-name"); got != "secret-value" {
		t.Fatalf("after the grant b shows %q", got)
	}
	b.apply(n.policy(hosts, "group @hosts a b c", "@hosts peer", "a / rw", "b /public rw"))
	if got := b.tree(); got != "/public/x=open " || b.disk.has([]byte("secret-value")) {
		t.Fatalf("after the right was withdrawn b shows %q", got)
	}
}

func TestPolicySwitchFallsBackToTheLastPermittedVersion(t *testing.T) {
	n, a, b, _ := three(t, 1)
	b.put("/p", "good")
	a.pull(b)
	n.clock.advance(time.Second)
	a.put("/p", "by a")
	b.pull(a)
	if b.get("/p") != "by a" {
		t.Fatal("the later write does not win")
	}
	b.apply(n.policy(hosts, "b peer", "b / rw", "a peer", "revoke "+a.self.String()))
	if got := b.tree(); got != "/p=good " {
		t.Fatalf("after the revocation b shows %q", got)
	}
}

func TestReadsJudgeAtOnceAfterAPolicySwitch(t *testing.T) {
	n, a, _, _ := three(t, 1)
	var ops []Op
	for i := range 1000 {
		ops = append(ops, Op{Path: fmt.Sprintf("/d/%d", i), Value: []byte("v")})
	}
	for range 3 {
		if _, err := a.Write(context.Background(), ops); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.SetPolicy(context.Background(), n.policy(hosts, "a peer", "a /e rw")); err != nil {
		t.Fatal(err)
	}
	if got := a.tree(); got != "" { // whether or not the rows are right already
		t.Fatalf("readable after the right was withdrawn: %.60q", got)
	}
	a.settle()
	if got := a.tree(); got != "" || a.Stats().Entries != 0 || a.Stats().ViewDigest != [32]byte{} {
		t.Fatalf("after the rows were put right: %.60q %+v", got, a.Stats())
	}
}

func TestSecondSignatureOfAPolicyIsKept(t *testing.T) {
	n := newTestNet(t, 1)
	second := testKey("second admin")
	n.genesis.Admins = append(n.genesis.Admins, record.KeyOf(second))
	a := n.start("a", nil)
	p := n.openPolicy()
	a.apply(p)
	a.apply(acl.Sign(p, n.id, second))
	a.put("/p", "v")
	disk := a.disk
	a.stop()
	n.genesis.Admins = n.genesis.Admins[1:] // the first admin is no longer pinned
	a = n.start("a", disk)
	if a.Policy() == nil || a.get("/p") != "v" {
		t.Fatal("the policy went with its first signer")
	}
}

func TestPolicyOlderThanTheJoinTokenStaysOut(t *testing.T) {
	n := newTestNet(t, 1)
	old := n.policy(hosts, "a peer", "a / rw", "revoke "+record.KeyOf(testKey("c")).String())
	joined := n.openPolicy()
	now, err := acl.ParseSigned(joined)
	if err != nil {
		t.Fatal(err)
	}
	o := n.options("a")
	o.kv, o.MinSerial, o.MinHash = newMemKV(), now.Serial, now.Hash
	a := n.run("a", o)
	if err := a.SetPolicy(context.Background(), old); !errors.Is(err, ErrPolicy) || a.Policy() != nil {
		t.Fatalf("an older policy: %v, in force %v", err, a.Policy().Serial())
	}
	a.apply(joined)
	if a.Policy().Serial() != now.Serial {
		t.Fatal("the policy of the token is not in force")
	}
	if a.Policy().Member(record.KeyOf(testKey("c"))) {
		t.Fatal("a revocation of an older text does not count")
	}
}

// TestPolicyThatIsNotKeptChangesNothing: after a switch peers still offer texts that this agent has forgotten. Each would
// have all rows judged anew, and told to watches as another policy.
func TestPolicyThatIsNotKeptChangesNothing(t *testing.T) {
	n := newTestNet(t, 1)
	a := n.start("a", nil)
	oldest := n.openPolicy()
	a.apply(oldest)
	for range policiesKept + 1 {
		a.apply(n.openPolicy())
	}
	a.put("/x", "v")
	number := func() uint64 {
		s, err := a.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		return s.Number()
	}
	before, kept := number(), len(a.Policies())
	if err := a.SetPolicy(context.Background(), oldest); err != nil {
		t.Error(err)
	}
	if after := number(); after != before || len(a.Policies()) != kept {
		t.Errorf("a text that is forgotten at once is change %d after %d, and %d texts are kept of %d", after, before, len(a.Policies()), kept)
	}
}

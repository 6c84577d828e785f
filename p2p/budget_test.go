package p2p

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	dto "github.com/prometheus/client_model/go"

	"syncagent/crdtstore/record"
)

// limited reads how often peers have met a limit of a node.
func limited(t *testing.T, n *Node, limit string) int {
	t.Helper()
	var m dto.Metric
	if err := n.stats.limited.WithLabelValues(limit).Write(&m); err != nil {
		t.Fatal(err)
	}
	return int(m.GetCounter().GetValue())
}

// TestGreedyPeerIsHeldUpAlone: who wants more than its budget is served more slowly and gets everything in the end; others
// notice nothing.
func TestGreedyPeerIsHeldUpAlone(t *testing.T) {
	const perSecond = 64 << 10 // 1,024 frames at once, then 16 a second
	ka, kb, kx := testKey(t), testKey(t), testKey(t)
	policy := &fakePolicy{Number: 1, Keys: []record.PublicKey{record.KeyOf(ka), record.KeyOf(kb), record.KeyOf(kx)}}
	a := start(t, "a", newFake(ka, policy), Options{PeerBytes: perSecond})
	b := start(t, "b", newFake(kb, policy), Options{Bootstrap: a.node.Addrs()})
	x := start(t, "x", newFake(kx, policy), Options{Bootstrap: a.node.Addrs()})
	eventually(t, func() bool { return connectedPeers(a) == 2 }, "all connect")
	f := sneak(t, x, a, protoSync)
	const asked = 1200
	for range asked {
		if err := f.write(framePing, make([]byte, 8)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, func() bool { return limited(t, a.node, limitBytes) > 0 }, "x is held up")
	b.publish([]byte("v"), "/b")
	a.publish([]byte("v"), "/a")
	eventually(t, equal(a, b), "others are not")

	a.node.SetPeerBytes(0)
	f = sneak(t, x, a, protoSync)
	for range asked {
		if err := f.write(framePing, make([]byte, 8)); err != nil {
			t.Fatal(err)
		}
	}
	for range asked {
		if kind, _, err := f.read(time.Minute); err != nil || kind != framePong {
			t.Fatalf("frame %d, %v", kind, err)
		}
	}
}

func TestDiallingAnewFillsNoBudget(t *testing.T) {
	const perSecond = 64 << 10
	ka, kb, kx := testKey(t), testKey(t), testKey(t)
	policy := &fakePolicy{Number: 1, Keys: []record.PublicKey{record.KeyOf(ka), record.KeyOf(kb), record.KeyOf(kx)}}
	a := start(t, "a", newFake(ka, policy), Options{PeerBytes: perSecond})
	x := start(t, "x", newFake(kx, policy), Options{Bootstrap: a.node.Addrs()})
	eventually(t, func() bool { return connectedPeers(a) == 1 }, "x connects")
	start(t, "b", newFake(kb, policy), Options{Bootstrap: a.node.Addrs()})
	eventually(t, func() bool { return connectedPeers(a) == 2 }, "another connects")
	first := a.node.session(x.self.PeerID())
	for spent := 0; a.node.affords(first, 1<<20); spent++ {
		if spent > budgetBurst {
			t.Fatal("nothing is charged")
		}
	}
	began, left := time.Now(), a.node.budgets.of(first.id).bytes.Tokens()
	a.node.closePeer(first.id)
	eventually(t, func() bool { s := a.node.session(first.id); return s != nil && s != first }, "x dials anew")
	now := a.node.budgets.of(first.id).bytes.Tokens()
	if most := left + time.Since(began).Seconds()*perSecond; now > most+1 {
		t.Errorf("%.0f bytes before, %.0f after, at most %.0f came back", left, now, most)
	}
}

// TestPeerOverItsBudgetIsNotDead: who has to wait for everything else can still greet and give signs of life, or its
// connections would be closed for silence.
func TestPeerOverItsBudgetIsNotDead(t *testing.T) {
	ka, kx := testKey(t), testKey(t)
	policy := &fakePolicy{Number: 1, Keys: []record.PublicKey{record.KeyOf(ka), record.KeyOf(kx)}}
	a := start(t, "a", newFake(ka, policy), Options{PeerBytes: 64 << 10})
	x := start(t, "x", newFake(kx, policy), Options{Bootstrap: a.node.Addrs()})
	eventually(t, func() bool { return connectedPeers(a) == 1 }, "connected")
	l := a.node.budgets.of(x.self.PeerID()).bytes
	for range 100 {
		l.ReserveN(time.Now(), l.Burst()) // more than an hour
	}
	f := sneak(t, x, a, protoSync)
	for _, kind := range []byte{framePing, frameDigest} {
		payload := make([]byte, 8)
		if kind == frameDigest {
			payload = digestNote{Ask: true}.encode()
		}
		if err := f.write(kind, payload); err != nil {
			t.Fatal(err)
		}
		if got, _, err := f.read(20 * time.Second); err != nil || got != framePong && got != frameDigest {
			t.Fatalf("frame %d, %v", got, err)
		}
	}
}

// TestWorkIsChargedThatFewBytesCause: a small frame that unpacks to a large one, or has the whole store gone over, counts for
// what it costs.
func TestWorkIsChargedThatFewBytesCause(t *testing.T) {
	work := map[string]func(f *frames) error{
		"vectors": func(f *frames) error {
			return f.write(frameVector, compress(make([]byte, vectorFrame*positionSize)))
		},
		"comparisons": func(f *frames) error {
			if err := f.write(frameCompare, nil); err != nil {
				return err
			}
			_, err := readCompared(f, frameCompare)
			return err
		},
	}
	for name, ask := range work {
		ka, kx := testKey(t), testKey(t)
		policy := &fakePolicy{Number: 1, Keys: []record.PublicKey{record.KeyOf(ka), record.KeyOf(kx)}}
		many := shelf{of: map[string]record.Version{}}
		for i := range 10_000 {
			many.of[fmt.Sprint("/k/", i)] = record.Version{HLC: 1}
		}
		a := start(t, "a", newFake(ka, policy), Options{PeerBytes: 64 << 10, Listing: many.list}) // 4 MiB at once
		x := start(t, "x", newFake(kx, policy), Options{Bootstrap: a.node.Addrs()})
		eventually(t, func() bool { return connectedPeers(a) == 1 }, "connected")
		f := sneak(t, x, a, protoSync)
		for range 10 {
			if err := ask(f); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if limited(t, a.node, limitBytes) > 0 {
				break
			}
		}
		eventually(t, func() bool { return limited(t, a.node, limitBytes) > 0 }, "%s are charged", name)
	}
}

func TestMissingBlocksOfASyncAreBounded(t *testing.T) {
	n, r := &Node{}, synced{fruit: uptime()}
	endless := func(context.Context) (Ingested, error) { // blocks that name ever others
		return Ingested{Missing: make([]record.Digest, maxDigests-1)}, nil
	}
	for range 10 {
		if err := n.ingest(t.Context(), &session{}, endless, &r); err != nil {
			t.Fatal(err)
		}
	}
	if len(r.missing) > maxDigests {
		t.Errorf("%d digests are kept, %d are asked for", len(r.missing), maxDigests)
	}
}

// TestBudgetsAreForgottenOnlyWhenFull: their number is bounded, and nobody gets rid of a spent one by having others come.
func TestBudgetsAreForgottenOnlyWhenFull(t *testing.T) {
	b := newBudgets(64 << 10)
	b.of("spent").bytes.AllowN(time.Now(), 1<<20)
	for i := range 1000 {
		b.of(peer.ID(rune(i)))
	}
	if n := len(b.byPeer); n > 3 {
		t.Errorf("%d budgets are kept of peers that have spent nothing", n)
	}
	if b.of("spent").full() {
		t.Error("a spent budget is full again")
	}
}

// TestPutOffBlocksComeLater: while the replica puts off what a peer delivers, syncs with it fail and are tried again, and
// nobody takes the difference for a broken store.
func TestPutOffBlocksComeLater(t *testing.T) {
	alarms := make(chan string, 100)
	ka, kb := testKey(t), testKey(t)
	policy := &fakePolicy{Number: 1, Keys: []record.PublicKey{record.KeyOf(ka), record.KeyOf(kb)}}
	ra, rb := newFake(ka, policy), newFake(kb, policy)
	ra.put([]byte("v"), "/x")
	rb.putOff = 2
	a := start(t, "a", ra, Options{})
	b := start(t, "b", rb, Options{Bootstrap: a.node.Addrs(), Alarm: func(code, _ string) { alarms <- code }})
	eventuallyIn(t, 30*time.Second, equal(a, b), "it comes in the end")
	if n := limited(t, b.node, limitOrigins); n != 2 {
		t.Errorf("%d blocks were put off, want 2", n)
	}
	if len(alarms) > 0 {
		t.Errorf("alarm %s", <-alarms)
	}
}

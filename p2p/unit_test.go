package p2p

import (
	"context"
	"hash/maphash"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	envelope "github.com/libp2p/go-libp2p/core/record"
	ma "github.com/multiformats/go-multiaddr"

	"syncagent/crdtstore/record"
)

func TestBook(t *testing.T) {
	file := filepath.Join(t.TempDir(), "peers.json")
	b, err := openBook(file)
	if err != nil {
		t.Fatal(err)
	}
	key := testKey(t)
	id := record.KeyOf(key).PeerID()
	one, two := []ma.Multiaddr{ma.StringCast("/ip4/10.0.0.1/tcp/1")}, []ma.Multiaddr{ma.StringCast("/ip4/10.0.0.2/tcp/2")}
	if err := b.signOwn(key, id, one); err != nil {
		t.Fatal(err)
	}
	first, _ := b.get(id)
	if err := b.signOwn(key, id, one); err != nil {
		t.Fatal(err)
	}
	if again, _ := b.get(id); again.seq != first.seq {
		t.Error("the same addresses are signed anew")
	}
	if err := b.signOwn(key, id, two); err != nil {
		t.Fatal(err)
	}
	if _, isNew, err := b.add(first.signed); isNew || err != nil {
		t.Errorf("an older record replaces a newer one (%v)", err)
	}
	if err := b.save(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("file mode: %v, %v", info, err)
	}
	back, err := openBook(file)
	if r, ok := back.get(id); err != nil || !ok || !sameAddrs(r.addrs, two) {
		t.Errorf("read back: %v, %v", r, err)
	}

	// A record about somebody else, signed by us.
	priv, err := crypto.UnmarshalEd25519PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	other := record.KeyOf(testKey(t)).PeerID()
	env, err := envelope.Seal(&peer.PeerRecord{PeerID: other, Addrs: one, Seq: 9}, priv)
	if err != nil {
		t.Fatal(err)
	}
	forged, err := env.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.add(forged); err == nil {
		t.Error("a record signed by another key is taken")
	}
	if _, ok := b.get(other); ok {
		t.Error("a forged record is kept")
	}
	if err := os.WriteFile(file, []byte("{damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := openBook(file); err == nil || b == nil {
		t.Errorf("damaged file: book %v, error %v; want an empty book and an error", b, err)
	}
	b.forget(func(peer.ID) bool { return false })
	if _, ok := b.get(id); ok {
		t.Error("a forgotten peer is still known")
	}
}

func TestRedialGoesOnForEver(t *testing.T) {
	bound, longest := redialMin, time.Duration(0)
	for range 1000 {
		var d time.Duration
		if d, bound = redialAfter(bound); d <= 0 || d > redialMax+time.Millisecond {
			t.Fatalf("delay %v", d)
		}
		longest = max(longest, d)
	}
	if longest < redialMax/2 {
		t.Errorf("no delay above %v in 1000: not the full jitter", longest)
	}
}

func TestLargeNetworkIsDialledInPart(t *testing.T) {
	var members []record.PublicKey
	for i := range 300 {
		members = append(members, record.PublicKey{byte(i), byte(i >> 8), 1})
	}
	d := &dialer{seed: maphash.MakeSeed()}
	one, again := d.pick(members, members[0]), d.pick(members, members[0])
	other := (&dialer{seed: maphash.MakeSeed()}).pick(members, members[0])
	same := 0
	for i := range one {
		if one[i] != again[i] {
			t.Fatal("the choice changes")
		}
		if one[i] == members[0] {
			t.Fatal("dials itself")
		}
		if one[i] == other[i] {
			same++
		}
	}
	if len(one) != maxPeers || same == maxPeers {
		t.Errorf("%d picked, %d the same for another agent", len(one), same)
	}
	if got := d.pick(members[:10], members[0]); len(got) != 9 {
		t.Errorf("%d of 9 others picked in a small network", len(got))
	}
}

func TestMailbox(t *testing.T) {
	m := newMailbox[int](3, 10)
	for i, c := range []struct {
		bytes int
		ok    bool
	}{{4, true}, {7, false}, {6, true}, {1, false}, {0, true}, {0, false}} {
		if ok := m.put(i, c.bytes); ok != c.ok {
			t.Errorf("item %d: %v", i, ok)
		}
	}
	<-m.bell
	if got := m.take(); len(got) != 3 || got[0] != 0 || got[1] != 2 || got[2] != 4 {
		t.Errorf("took %v", got)
	}
	if !m.put(9, 10) || len(m.take()) != 1 || len(m.take()) != 0 {
		t.Error("not empty after take")
	}
}

func TestLag(t *testing.T) {
	a, b := record.PublicKey{1}, record.PublicKey{2}
	ours := []record.Position{{Origin: a, Incarnation: 1, Seq: 5}, {Origin: b, Incarnation: 1, Seq: 9}}
	theirs := []record.Position{{Origin: a, Incarnation: 1, Seq: 7}, {Origin: a, Incarnation: 2, Seq: 3}, {Origin: b, Incarnation: 1, Seq: 1}}
	if got := lag(ours, theirs); got != 5 {
		t.Errorf("lag %d, want 5", got)
	}
}

func TestPaceWidensWithPublishers(t *testing.T) {
	r := newRecent()
	now := time.Now()
	if got := r.pace(now); got != time.Second/paceTotal {
		t.Errorf("alone: %v", got)
	}
	for i := range 19 {
		r.see(record.Digest{byte(i)}, record.PublicKey{byte(i)}, "a")
	}
	if got := r.pace(now); got != time.Second/(paceTotal/20) {
		t.Errorf("one of 20: %v", got)
	}
	if got := r.pace(now.Add(time.Hour)); got != time.Second/paceTotal {
		t.Errorf("alone again: %v", got)
	}
	if got := r.unseen([]record.Digest{{1}, {200}}); len(got) != 1 || got[0] != (record.Digest{200}) {
		t.Errorf("unseen %v", got)
	}
	for i := range 2 * recentBlocks {
		r.see(record.DigestOf([]byte{byte(i), byte(i >> 8)}), record.PublicKey{}, "a")
	}
	if len(r.blocks) != recentBlocks || len(r.order) != recentBlocks {
		t.Errorf("%d blocks remembered, want %d", len(r.blocks), recentBlocks)
	}
}

func TestSplitKeepsMessagesWithinTheLimit(t *testing.T) {
	r := newFake(testKey(t), nil)
	policy := &fakePolicy{Private: map[string][]record.PublicKey{"/secret": {r.self}}}
	paths := []string{"/a", "/secret/x", "/b", "/c", "/d", "/e", "/f", "/g", "/h", "/i", "/j", "/k", "/l"}
	o := r.put(make([]byte, 60<<10), paths...)
	public, private := split(o, policy)
	if len(public)+len(private) != len(paths) || len(public) < 8 || len(private) < 2 {
		t.Errorf("%d public and %d private of %d", len(public), len(private), len(paths))
	}
	queue := []Outgoing{o, r.put(make([]byte, maxGossipEntry), "/too/large"), r.put(nil, "/small"), r.put(nil, "/small/2")}
	blocks := 0
	for _, m := range pack(queue, policy) {
		g, err := parseGossip(m)
		if err != nil {
			t.Fatal(err)
		}
		blocks += len(g.blocks)
		for _, p := range g.parcels {
			for _, raw := range p.Entries {
				if e, err := record.ParseEntry(raw); err != nil || e.Path == "/secret/x" || e.Path == "/too/large" {
					t.Errorf("entry %v on the topic, %v", e, err)
				}
			}
		}
	}
	if blocks != len(queue) {
		t.Errorf("%d blocks in messages, want %d", blocks, len(queue))
	}
}

// askedReplica counts how often it is asked what it wants.
type askedReplica struct {
	*fakeReplica
	asked chan struct{}
}

func (r askedReplica) Wants(peer record.PublicKey, limit int) []record.Want {
	r.asked <- struct{}{}
	return r.fakeReplica.Wants(peer, limit)
}

func TestBellDuringBackOffIsNotLost(t *testing.T) {
	r := askedReplica{newFake(testKey(t), nil), make(chan struct{}, 1)}
	n := &Node{replica: r}
	s := &session{fetchBell: make(chan struct{}, 1)}
	s.fetchAfter = time.Now().Add(50 * time.Millisecond)
	ring(s.fetchBell)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go n.fetches(ctx, s)
	select {
	case <-r.asked:
	case <-time.After(20 * time.Second):
		t.Error("the peer is never asked")
	}
	if time.Now().Before(s.fetchAfter) {
		t.Error("the peer is asked within its back-off")
	}
}

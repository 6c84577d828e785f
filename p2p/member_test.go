package p2p

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"crypto/ed25519"

	libhost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"

	"syncagent/crdtstore/record"
)

// lines is a log that tests can look into.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lines) has(s string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.b.String(), s)
}

func (l *lines) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// rawPeer is a libp2p host that keeps none of our rules.
func rawPeer(t *testing.T, key ed25519.PrivateKey) libhost.Host {
	t.Helper()
	h, err := newHost(key, nil, "raw", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

func addrInfo(t *testing.T, addr string) peer.AddrInfo {
	t.Helper()
	i, err := peer.AddrInfoFromString(addr)
	if err != nil {
		t.Fatal(err)
	}
	return *i
}

// pair starts two members; the policy can be extended by edit before.
func pair(t *testing.T, edit func(p *fakePolicy, a, b record.PublicKey)) (a, b *agent) {
	t.Helper()
	ka, kb := testKey(t), testKey(t)
	policy := &fakePolicy{Number: 1, Keys: []record.PublicKey{record.KeyOf(ka), record.KeyOf(kb)}}
	if edit != nil {
		edit(policy, policy.Keys[0], policy.Keys[1])
	}
	a = start(t, "a", newFake(ka, policy), Options{})
	b = start(t, "b", newFake(kb, policy), Options{Bootstrap: a.node.Addrs()})
	eventually(t, func() bool { return connectedPeers(a) == 1 && connectedPeers(b) == 1 }, "a and b connect")
	return a, b
}

func TestPartitionByPauseHeals(t *testing.T) {
	hs := cluster(t, 3)
	hs[2].node.Pause()
	eventually(t, func() bool {
		return connectedPeers(hs[2]) == 0 && connectedPeers(hs[0]) == 1 && connectedPeers(hs[1]) == 1
	}, "cut off")
	for i := range 20 {
		for _, h := range hs {
			h.publish([]byte("v"), fmt.Sprintf("/%s/%d", h.name, i))
		}
	}
	eventually(t, equal(hs[0], hs[1]), "the others go on")
	if equal(hs[0], hs[2])() || !hs[2].node.Paused() {
		t.Fatal("the paused agent got blocks")
	}
	hs[2].node.Resume()
	eventually(t, equal(hs...), "equal after resume")
}

func TestStrangerIsRefused(t *testing.T) {
	var log lines
	ka, kx := testKey(t), testKey(t)
	ra := newFake(ka, &fakePolicy{Number: 1, Keys: []record.PublicKey{record.KeyOf(ka)}})
	a := start(t, "a", ra, Options{Log: log.logger()})
	for _, addr := range a.node.Addrs() {
		x := rawPeer(t, kx)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		info := addrInfo(t, addr)
		_ = x.Connect(ctx, info) // over QUIC the dialler may believe for a moment that it is connected
		for _, proto := range []protocol.ID{protoSync, protoEntry, protoPolicy, "/meshsub/1.2.0"} {
			s, err := x.NewStream(network.WithNoDial(ctx, "test"), info.ID, proto)
			if err != nil {
				continue
			}
			_ = s.SetDeadline(time.Now().Add(time.Second))
			_, _ = s.Write([]byte{frameHello, 0, 0, 0, 0})
			var b [1]byte
			if _, err := s.Read(b[:]); err == nil {
				t.Errorf("%s over %s: a stranger is answered", proto, addr)
			}
		}
		cancel()
	}
	if n := connectedPeers(a); n != 0 {
		t.Errorf("%d peers connected, want none", n)
	}
	want := "acl admit 'identity NAME " + record.KeyOf(kx).String()
	eventually(t, func() bool { return log.has(want) }, "log says how to admit the host")
}

func TestPolicyReachesWhoHasNone(t *testing.T) {
	ka, kb := testKey(t), testKey(t)
	policy := &fakePolicy{Number: 3, Keys: []record.PublicKey{record.KeyOf(ka), record.KeyOf(kb)}}
	ra := newFake(ka, policy)
	a := start(t, "a", ra, Options{})
	a.publish([]byte("v"), "/x")
	for _, bootstrap := range []string{a.node.Addrs()[0], hostPortOf(t, a)} {
		b := start(t, "b", newFake(kb, nil), Options{Bootstrap: []string{bootstrap}})
		eventually(t, func() bool { return b.Rights().Serial() == 3 }, "policy arrives by %s", bootstrap)
		eventually(t, equal(a, b), "and then the blocks")
		b.stop()
	}
}

// hostPortOf gives the TCP address of an agent as host:port.
func hostPortOf(t *testing.T, h *agent) string {
	t.Helper()
	for _, s := range h.node.Addrs() {
		a := ma.StringCast(s)
		if transportOf(a) == "tcp" {
			hp, err := hostPort(a)
			if err != nil {
				t.Fatal(err)
			}
			return hp
		}
	}
	t.Fatal("no tcp address")
	return ""
}

func TestBootstrapPeerThatIsNoMemberGetsPoliciesOnly(t *testing.T) {
	ka, kb, kc := testKey(t), testKey(t), testKey(t)
	// a pins b, but the policy that a has does not name b. c is a member, so that a has somebody to publish to.
	policy := &fakePolicy{Number: 3, Keys: []record.PublicKey{record.KeyOf(ka), record.KeyOf(kc)}}
	rb := newFake(kb, nil)
	b := start(t, "b", rb, Options{})
	a := start(t, "a", newFake(ka, policy), Options{Bootstrap: b.node.Addrs()})
	start(t, "c", newFake(kc, policy), Options{Bootstrap: a.node.Addrs()})
	// b must not refuse a: it pins it, too.
	if err := b.node.SetBootstrap(a.node.Addrs()); err != nil {
		t.Fatal(err)
	}
	a.publish([]byte("v"), "/secret")
	eventually(t, func() bool { return b.Rights().Serial() == 3 }, "policy arrives")
	x := rawPeer(t, kb) // what b could do if it were hostile
	b.stop()
	info := addrInfo(t, a.node.Addrs()[0])
	eventually(t, func() bool { return x.Connect(t.Context(), info) == nil && connectedPeers(a) == 2 }, "pinned peer may connect")
	for _, proto := range []protocol.ID{protoSync, protoEntry} {
		s, err := x.NewStream(t.Context(), info.ID, proto)
		if err != nil {
			t.Fatal(err)
		}
		_ = s.SetDeadline(time.Now().Add(2 * time.Second))
		kind, payload, err := newFrames(s, nil).read(0)
		if err != nil || kind != frameRefuse || string(payload) != "not a member" {
			t.Errorf("%s: frame %d %q, error %v", proto, kind, payload, err)
		}
	}
	topic, sub := subscribe(t, x, a)
	eventually(t, func() bool { return len(topic.ListPeers()) > 0 }, "the pinned peer sees a's subscription")
	for i := range 20 {
		a.publish([]byte("v"), fmt.Sprintf("/secret/%d", i))
	}
	hostile := newFake(kb, nil)
	m := pack([]Outgoing{hostile.put([]byte("v"), "/bad")}, &fakePolicy{})[0]
	if err := topic.Publish(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	for {
		got, err := sub.Next(ctx)
		if err != nil {
			break
		}
		if got.ReceivedFrom != x.ID() {
			t.Error("a message reached a peer that is no member")
			break
		}
	}
	if a.holds("/bad") != 0 {
		t.Error("a took a block from a peer that is no member")
	}
}

// TestStandingIsReconciled: a second connection that came up while the first was closed for a new policy must not keep
// the old standing.
func TestStandingIsReconciled(t *testing.T) {
	a, b := pair(t, nil)
	b.node.mu.Lock()
	was := b.node.sessions[a.self.PeerID()]
	was.cancel()
	s := &session{id: was.id, key: was.key, standing: bootstrap, since: was.since, cancel: func() {}, hintBell: was.hintBell,
		policyBell: was.policyBell, fetchBell: was.fetchBell, chunkBell: was.chunkBell, progressAsks: was.progressAsks,
		serving: was.serving, pushes: was.pushes, inbox: was.inbox}
	b.node.sessions[was.id] = s
	b.node.mu.Unlock()
	a.publish([]byte("v"), "/x")
	eventually(t, func() bool {
		now := b.node.session(a.self.PeerID())
		return now != nil && now != s && now.standing == member && equal(a, b)()
	}, "a new session as a member")
}

func TestRedialAfterRestart(t *testing.T) {
	ka, kb := testKey(t), testKey(t)
	policy := &fakePolicy{Number: 1, Keys: []record.PublicKey{record.KeyOf(ka), record.KeyOf(kb)}}
	a := start(t, "a", newFake(ka, policy), Options{Listen: []string{"/ip4/127.0.0.1/tcp/0"}}) // QUIC tells late that nobody is there
	b := start(t, "b", newFake(kb, policy), Options{Bootstrap: a.node.Addrs()})
	eventually(t, func() bool { return connectedPeers(a) == 1 && connectedPeers(b) == 1 }, "a and b connect")
	listen := slices.Clone(a.node.Addrs())
	for i, s := range listen {
		listen[i] = strings.Split(s, "/p2p/")[0]
	}
	a.stop()
	eventually(t, func() bool { return connectedPeers(b) == 0 }, "b sees that a is gone")
	b.publish([]byte("v"), "/meanwhile")
	eventually(t, func() bool { return b.node.Peers()[0].Fault != "" }, "b tries in vain")
	a = start(t, "a", a.fakeReplica, Options{Listen: listen})
	eventually(t, equal(a, b), "b dials a again")
}

func TestKnownPeersAreRemembered(t *testing.T) {
	file := filepath.Join(t.TempDir(), "peers.json")
	ka, kb := testKey(t), testKey(t)
	policy := &fakePolicy{Number: 1, Keys: []record.PublicKey{record.KeyOf(ka), record.KeyOf(kb)}}
	a := start(t, "a", newFake(ka, policy), Options{})
	b := start(t, "b", newFake(kb, policy), Options{Bootstrap: a.node.Addrs(), PeersFile: file})
	eventually(t, func() bool { _, ok := b.node.book.get(a.self.PeerID()); return ok }, "b learns a's address")
	b.stop()
	b = start(t, "b", newFake(kb, policy), Options{PeersFile: file})
	eventually(t, func() bool { return connectedPeers(b) == 1 }, "b dials a from memory")
}

// TestKnownPeersAreSavedAtOnce, so that agents that are killed soon after they met need no bootstrap peer.
func TestKnownPeersAreSavedAtOnce(t *testing.T) {
	file := filepath.Join(t.TempDir(), "peers.json")
	saved := func(id peer.ID) bool {
		book, err := openBook(file)
		if err != nil {
			return false
		}
		_, ok := book.get(id)
		return ok
	}
	ka, kb := testKey(t), testKey(t)
	policy := &fakePolicy{Number: 1, Keys: []record.PublicKey{record.KeyOf(ka), record.KeyOf(kb)}}
	a := start(t, "a", newFake(ka, policy), Options{PeersFile: file})
	eventually(t, func() bool { return saved(a.self.PeerID()) }, "a saves what it knows, and would again after ten seconds")
	b := start(t, "b", newFake(kb, policy), Options{Bootstrap: a.node.Addrs()})
	eventually(t, func() bool { _, ok := a.node.book.get(b.self.PeerID()); return ok }, "a learns b's address")
	eventuallyIn(t, 5*time.Second, func() bool { return saved(b.self.PeerID()) }, "a saves it")
}

func TestAddressesTravel(t *testing.T) {
	// b and c know only a; a dials nobody. b and c must find each other.
	hs := cluster(t, 3)
	eventually(t, func() bool {
		return hs[1].node.host.Network().Connectedness(hs[2].self.PeerID()) == network.Connected
	}, "n1 and n2 find each other")
}

func TestOtherNetworkIsRefused(t *testing.T) {
	var log lines
	ka, kb := testKey(t), testKey(t)
	policy := &fakePolicy{Number: 1, Keys: []record.PublicKey{record.KeyOf(ka), record.KeyOf(kb)}}
	a := start(t, "a", newFake(ka, policy), Options{Log: log.logger()})
	a.publish([]byte("v"), "/x")
	rb := newFake(kb, policy)
	n, err := New(Options{Key: kb, Network: record.NetworkID{9}, Bootstrap: a.node.Addrs()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- n.Run(ctx, rb) }()
	eventually(t, func() bool { return log.has("another network") }, "a says so")
	if rb.blockCount() != 1 {
		t.Error("blocks crossed the border of the network")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// proxy forwards TCP until it is frozen, and then keeps connections open without a byte.
type proxy struct {
	l      net.Listener
	frozen chan struct{}
}

func newProxy(t *testing.T, to string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{l: l, frozen: make(chan struct{})}
	t.Cleanup(func() { l.Close() })
	forward := func(from, to net.Conn) {
		b := make([]byte, 64<<10)
		for {
			n, err := from.Read(b)
			select {
			case <-p.frozen:
				<-t.Context().Done()
			default:
			}
			if err == nil {
				_, err = to.Write(b[:n])
			}
			if err != nil {
				from.Close()
				to.Close()
				return
			}
		}
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			d, err := net.Dial("tcp", to)
			if err != nil {
				c.Close()
				continue
			}
			go forward(c, d)
			go forward(d, c)
		}
	}()
	return p
}

func TestSilentPeerIsClosed(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 8 s")
	}
	ka, kb := testKey(t), testKey(t)
	policy := &fakePolicy{Number: 1, Keys: []record.PublicKey{record.KeyOf(ka), record.KeyOf(kb)}}
	a := start(t, "a", newFake(ka, policy), Options{Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Announce: []string{"127.0.0.1:1"}})
	direct, err := a.node.host.Network().InterfaceListenAddresses()
	if err != nil {
		t.Fatal(err)
	}
	to, err := hostPort(direct[0])
	if err != nil {
		t.Fatal(err)
	}
	p := newProxy(t, to)
	var log lines
	b := start(t, "b", newFake(kb, policy), Options{Listen: []string{}, Bootstrap: []string{p.l.Addr().String()}, Log: log.logger()})
	greeted := func(x, y *agent) bool {
		s := x.node.session(y.self.PeerID())
		if s == nil {
			return false
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.hello != nil
	}
	eventually(t, func() bool { return greeted(a, b) && greeted(b, a) }, "connected through the proxy")
	conns := append(a.node.host.Network().Conns(), b.node.host.Network().Conns()...)
	close(p.frozen)
	// They may find another road at once: libp2p has told b where a listens.
	eventually(t, func() bool {
		return !slices.ContainsFunc(conns, func(c network.Conn) bool { return !c.IsClosed() })
	}, "silent connection closed on both sides")
	if !log.has("peer is silent") {
		t.Error("the connection ended by itself")
	}
}

func TestRefusedAddresses(t *testing.T) {
	for _, s := range []string{"", "host", "host:0", "host:99999", "/ip4/1.2.3.4", "/ip4/1.2.3.4/tcp/x", "/ip4/1.2.3.4/udp/1/quic-v1",
		"/ip4/1.2.3.4/tcp/1/ws", "/dns4/x/tcp/1/p2p/nonsense", "/unix/tmp/x"} {
		if err := CheckAddr(s); err == nil {
			t.Errorf("address %q is accepted", s)
		}
	}
	for _, s := range []string{"host:1", "[::1]:7424", "1.2.3.4:7424", "/dns4/x/tcp/1", "/dns/x/tcp/1",
		"/ip4/1.2.3.4/udp/1/quic-v1/p2p/12D3KooWGzBG4mGYyTGPxtF6cZE2Pt4WGTkEFbMZSYdLdiEnZVbk"} {
		if err := CheckAddr(s); err != nil && !strings.Contains(s, "12D3") {
			t.Errorf("address %q: %v", s, err)
		}
	}
	for _, s := range []string{"", "host:1", "/dns4/x/tcp/1", "/ip4/0.0.0.0/udp/1", "/ip4/0.0.0.0/tcp/1/ws"} {
		if err := CheckListen(s); err == nil {
			t.Errorf("listen address %q is accepted", s)
		}
	}
	if _, err := New(Options{Key: testKey(t), Bootstrap: []string{"nonsense"}}); err == nil {
		t.Error("bad bootstrap address is accepted")
	}
	if _, err := New(Options{}); err == nil || errors.Is(err, ErrPortInUse) {
		t.Errorf("no key: %v", err)
	}
}

// TestRefusedHostIsToldHow: a host that nobody admitted finds the line for the admin in its own log, too.
func TestRefusedHostIsToldHow(t *testing.T) {
	ka := testKey(t)
	a := start(t, "a", newFake(ka, &fakePolicy{Number: 1, Keys: []record.PublicKey{record.KeyOf(ka)}}), Options{})
	keys := []record.PublicKey{a.self}
	for i, addr := range append(a.node.Addrs(), hostPortOf(t, a)) {
		var log lines
		b := start(t, "web7", newFake(testKey(t), nil), Options{Bootstrap: []string{addr}, Log: log.logger()})
		eventually(t, func() bool { return log.has("acl admit 'identity web7 " + b.self.String() + "'") }, "b is told by %s", addr)
		keys = append(keys, b.self)
		a.setPolicy(&fakePolicy{Number: uint64(i + 2), Keys: keys})
		eventually(t, func() bool { return b.Rights().Serial() == uint64(i+2) && connectedPeers(b) == 1 }, "b gets in once it is admitted")
		b.stop()
	}
}

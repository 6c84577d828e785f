package p2p

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"syncagent/crdtstore/record"
)

// testLog shows what nodes say when a test fails or SYNCAGENT_TEST_LOG is set.
type testLog struct{ t testing.TB }

func (l testLog) Write(b []byte) (int, error) {
	if os.Getenv("SYNCAGENT_TEST_LOG") != "" {
		l.t.Log(strings.TrimSpace(string(b)))
	}
	return len(b), nil
}

func testLogger(t testing.TB, name string) *slog.Logger {
	return slog.New(slog.NewTextHandler(testLog{t}, &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", name)
}

func testKey(t testing.TB) ed25519.PrivateKey {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// agent is a running node with its replica.
type agent struct {
	*fakeReplica
	t    testing.TB
	name string
	o    Options
	stop func()
}

// start runs a node on loopback. Listen addresses in o are used if given.
func start(t testing.TB, name string, r *fakeReplica, o Options) *agent {
	t.Helper()
	o.Key, o.Network, o.Name, o.Version = r.key, testNetwork, name, "test"
	if o.Log == nil {
		o.Log = testLogger(t, name)
	}
	o.Progress = r.progress
	if o.Listen == nil {
		o.Listen = []string{"/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"}
	}
	n, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	r.node = n
	r.mu.Unlock()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx, r) }()
	h := &agent{fakeReplica: r, t: t, name: name, o: o}
	stopped := false
	h.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("%s: run: %v", name, err)
			}
		case <-time.After(30 * time.Second):
			t.Errorf("%s: run did not end", name)
		}
	}
	t.Cleanup(h.stop)
	return h
}

// cluster starts n members that know each other's addresses by one common bootstrap peer.
func cluster(t testing.TB, n int) []*agent {
	t.Helper()
	keys := make([]ed25519.PrivateKey, n)
	policy := &fakePolicy{Number: 1}
	for i := range keys {
		keys[i] = testKey(t)
		policy.Keys = append(policy.Keys, record.KeyOf(keys[i]))
	}
	var hs []*agent
	for i, k := range keys {
		o := Options{}
		if i > 0 {
			o.Bootstrap = hs[0].node.Addrs()
		}
		hs = append(hs, start(t, fmt.Sprintf("n%d", i), newFake(k, policy), o))
	}
	for _, h := range hs {
		eventually(t, func() bool { return connectedPeers(h) == n-1 }, "%s connects to all", h.name)
	}
	return hs
}

func connectedPeers(h *agent) int {
	n := 0
	for _, p := range h.node.Peers() {
		if p.Connected {
			n++
		}
	}
	return n
}

// eventually polls until ok, and fails after a time that is far longer than it should take.
func eventually(t testing.TB, ok func() bool, format string, args ...any) {
	t.Helper()
	eventuallyIn(t, 3*time.Minute, ok, format, args...) // machines are slow
}

func eventuallyIn(t testing.TB, limit time.Duration, ok func() bool, format string, args ...any) {
	t.Helper()
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	began := time.Now()
	for !ok() {
		select {
		case <-deadline.C:
			t.Fatalf("not within %v: %s", limit, fmt.Sprintf(format, args...))
		case <-tick.C:
		}
	}
	t.Logf("%v until: %s", time.Since(began).Round(time.Millisecond), fmt.Sprintf(format, args...))
}

func equal(hs ...*agent) func() bool {
	return func() bool {
		for _, h := range hs[1:] {
			if h.BlockDigest() != hs[0].BlockDigest() {
				return false
			}
		}
		return true
	}
}

func TestConvergeBySync(t *testing.T) {
	a, b := testKey(t), testKey(t)
	policy := &fakePolicy{Number: 1, Keys: []record.PublicKey{record.KeyOf(a), record.KeyOf(b)}}
	ra, rb := newFake(a, policy), newFake(b, policy)
	for i := range 100 {
		ra.put([]byte("a"), fmt.Sprintf("/a/%d", i))
		rb.put([]byte("b"), fmt.Sprintf("/b/%d", i))
	}
	ha := start(t, "a", ra, Options{})
	hb := start(t, "b", rb, Options{Bootstrap: ha.node.Addrs()})
	eventually(t, equal(ha, hb), "equal digests")
	if got := ra.holds("/b"); got != 100 {
		t.Errorf("a holds %d entries of b, want 100", got)
	}
	if ra.blockCount() != 201 || rb.blockCount() != 201 {
		t.Errorf("%d and %d blocks, want 201", ra.blockCount(), rb.blockCount())
	}
	eventually(t, func() bool {
		p := ha.node.Peers()
		return len(p) == 1 && p[0].Equal && p[0].Name == "b" && p[0].Version == "test" && p[0].Serial == 1 && p[0].Lag == 0
	}, "status says equal")
}

func TestConvergeByGossip(t *testing.T) {
	hs := cluster(t, 4)
	for round := range 10 {
		for i, h := range hs {
			h.publish([]byte("v"), fmt.Sprintf("/%d/%d", i, round))
		}
	}
	eventually(t, equal(hs...), "equal digests")
	for _, h := range hs {
		if got := h.holds("/"); got != 40 {
			t.Errorf("%s holds %d entries, want 40", h.name, got)
		}
		var m dto.Metric
		if err := h.node.stats.blocks.WithLabelValues("gossip").Write(&m); err != nil || m.GetCounter().GetValue() == 0 {
			t.Errorf("%s got no block by gossip", h.name)
		}
	}
}

func TestCatchUpOfManyBlocks(t *testing.T) {
	a, b := testKey(t), testKey(t)
	policy := &fakePolicy{Number: 1, Keys: []record.PublicKey{record.KeyOf(a), record.KeyOf(b)}}
	ra, rb := newFake(a, policy), newFake(b, policy)
	ra.mu.Lock()
	const n = 3000
	for i := range n {
		ra.putLocked([]byte("value of a hundred bytes or so"), fmt.Sprintf("/a/%d", i))
	}
	ra.mu.Unlock()
	ha := start(t, "a", ra, Options{})
	hb := start(t, "b", rb, Options{Bootstrap: ha.node.Addrs()})
	eventually(t, equal(ha, hb), "%d blocks caught up", n)
	if got := rb.holds("/"); got != n {
		t.Errorf("b holds %d entries, want %d", got, n)
	}
}

func TestPortInUse(t *testing.T) {
	for _, kind := range []string{"tcp", "udp"} {
		var addr string
		if kind == "tcp" {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			addr = fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", l.Addr().(*net.TCPAddr).Port)
		} else {
			l, err := net.ListenPacket("udp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			addr = fmt.Sprintf("/ip4/127.0.0.1/udp/%d/quic-v1", l.LocalAddr().(*net.UDPAddr).Port)
		}
		_, err := New(Options{Key: testKey(t), Network: testNetwork, Listen: []string{addr}})
		if !errors.Is(err, ErrPortInUse) || !strings.Contains(err.Error(), addr) {
			t.Errorf("%s: error %v, want one that names %s", kind, err, addr)
		}
	}
	// Another agent on the port, as opposed to any process.
	n, err := New(Options{Key: testKey(t), Network: testNetwork, Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	taken := strings.Split(n.Addrs()[0], "/p2p/")[0]
	if _, err := New(Options{Key: testKey(t), Network: testNetwork, Listen: []string{taken}}); !errors.Is(err, ErrPortInUse) {
		t.Errorf("second agent on %s: error %v", taken, err)
	}
}

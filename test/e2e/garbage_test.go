package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/libp2p/go-libp2p"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/crypto"
	libhost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"syncagent/crdtstore/record"
)

var protocols = []protocol.ID{"/syncagent/sync/1", "/syncagent/entry/1", "/syncagent/policy/1"}

// noise makes garbage that the seed repeats.
type noise struct{ *rand.Rand }

func newNoise(t *testing.T) noise {
	seed := rand.Uint64()
	t.Log("seed", seed)
	return noise{rand.New(rand.NewPCG(seed, 0))}
}

func (n noise) bytes(most int) []byte {
	b := make([]byte, n.IntN(most+1))
	for i := range b {
		b[i] = byte(n.Uint32())
	}
	return b
}

// dented gives a copy of b with a few bytes changed.
func (n noise) dented(b []byte) []byte {
	b = bytes.Clone(b)
	for range 1 + n.IntN(4) {
		if len(b) > 0 {
			b[n.IntN(len(b))] ^= byte(1 + n.IntN(255))
		}
	}
	return b
}

func frame(kind byte, payload []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(payload))), payload...)
}

// rawPeer is a libp2p host that keeps no rule of ours.
type rawPeer struct {
	libhost.Host
	mu      sync.Mutex
	hello   []byte   // what an agent said first on a stream that it opened
	replies [][]byte // what it is answered on such streams, after a hello; one each, then nothing
}

func newRawPeer(t *testing.T, key ed25519.PrivateKey) *rawPeer {
	t.Helper()
	id, err := crypto.UnmarshalEd25519PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	h, err := libp2p.New(libp2p.Identity(id), libp2p.NoListenAddrs, libp2p.DisableRelay())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	p := &rawPeer{Host: h}
	for _, proto := range protocols {
		h.SetStreamHandler(proto, func(s network.Stream) {
			defer s.Reset() //nolint:errcheck // the other side is what is tested
			_ = s.SetReadDeadline(time.Now().Add(patience))
			head := make([]byte, 5)
			if _, err := io.ReadFull(s, head); err != nil || head[0] != 1 {
				return
			}
			payload := make([]byte, min(binary.BigEndian.Uint32(head[1:]), 1<<20))
			if _, err := io.ReadFull(s, payload); err != nil {
				return
			}
			if reply := p.reply(payload); reply != nil {
				_, _ = s.Write(append(frame(1, payload), reply...))
				_ = s.CloseWrite()
				_ = s.SetReadDeadline(time.Now().Add(time.Second))
				_, _ = io.Copy(io.Discard, s)
			}
		})
	}
	return p
}

// reply notes what an agent said and gives what to answer.
func (p *rawPeer) reply(hello []byte) (reply []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hello = hello
	if len(p.replies) > 0 {
		reply, p.replies = p.replies[0], p.replies[1:]
	}
	return reply
}

func (p *rawPeer) heard() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hello
}

// connect dials the agent at addr, a multiaddress with its peer ID.
func (p *rawPeer) connect(t *testing.T, addr string) (peer.ID, error) {
	t.Helper()
	info, err := peer.AddrInfoFromString(addr)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	return info.ID, p.Connect(ctx, *info)
}

// send opens a stream, writes and reads for a moment what comes back.
func (p *rawPeer) send(to peer.ID, proto protocol.ID, parts ...[]byte) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	s, err := p.NewStream(network.WithNoDial(ctx, "test"), to, proto)
	if err != nil {
		return // refused: that is fine
	}
	_ = s.SetDeadline(time.Now().Add(time.Second))
	for _, part := range parts {
		if _, err := s.Write(part); err != nil {
			break
		}
	}
	_ = s.CloseWrite()
	_, _ = io.Copy(io.Discard, io.LimitReader(s, 1<<20))
	_ = s.Reset()
}

func packed(b []byte) []byte {
	w, err := zstd.NewWriter(nil)
	if err != nil {
		panic(err) // no options, no error
	}
	return w.EncodeAll(b, nil)
}

// makeBomb gives a few bytes that decompress to many.
func makeBomb(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := zstd.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(w, zeros{}, 256<<20); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// garbage is what a peer may send after its hello, or in place of it, in any order.
func (n noise) garbage(hello, bomb []byte) [][]byte {
	all := [][]byte{
		n.bytes(100), n.bytes(64 << 10), bytes.Repeat([]byte{0}, 10_000), bytes.Repeat([]byte{0xff}, 10_000),
		{1, 0xff, 0xff, 0xff, 0xff}, {1, 0, 16, 0, 1}, {24, 0, 16, 0, 0}, frame(1, nil), frame(1, n.dented(hello)),
	}
	for range 10 {
		all = append(all, frame(1, n.dented(hello)), frame(1, hello[:n.IntN(len(hello))]))
	}
	for kind := range 50 {
		all = append(all, frame(byte(kind), nil), frame(byte(kind), n.bytes(300)))
	}
	for _, kind := range []byte{20, 24, 31, 32, 41} { // those that are compressed
		for range 5 {
			all = append(all, frame(kind, packed(n.bytes(200))))
		}
		all = append(all, frame(kind, bomb), frame(kind, n.dented(bomb[:len(bomb)/2])))
	}
	n.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// serves fails the test unless the hosts take puts, show them to each other and never died since start.
func (f *fleet) serves(t *testing.T, path string) {
	t.Helper()
	for _, h := range f.hosts {
		if !h.alive() {
			t.Fatalf("%s died", h.name)
		}
		h.mustPut(path+"/"+h.name, path)
	}
	for _, h := range f.hosts {
		for _, from := range f.hosts {
			eventually(t, func() error { return h.shows(path+"/"+from.name, path) })
		}
	}
}

// members makes identities that the policy lets replicate, each with what it needs.
func (f *fleet) members(t *testing.T, n int) (keys []ed25519.PrivateKey, rules []string) {
	t.Helper()
	for i := range n {
		key := newKey(t)
		keys = append(keys, key)
		f.extra = append(f.extra, fmt.Sprintf("identity raw%d %s", i, record.KeyOf(key)))
		rules = append(rules, fmt.Sprintf("raw%d peer", i), fmt.Sprintf("raw%d / rw", i))
	}
	return keys, rules
}

func TestG10_GarbageOnStreams(t *testing.T) {
	n := newNoise(t)
	f := newFleet(t, "a", "b")
	keys, rules := f.members(t, 16) // each is shut out after some faults
	bomb := makeBomb(t)
	f.start()
	f.apply(append(rules, everything)...)
	f.connect()
	a := f.hosts[0]
	addrs := a.addrs() // TCP and QUIC
	for i, key := range keys {
		p := newRawPeer(t, key)
		id, err := p.connect(t, addrs[i/2%len(addrs)])
		if err != nil {
			t.Fatalf("a member is refused: %v", err)
		}
		eventually(t, func() error {
			if p.heard() == nil {
				return fmt.Errorf("no hello")
			}
			return nil
		})
		if i%2 == 0 {
			p.attack(id, protocols[i/2%len(protocols)], n.garbage(p.heard(), bomb))
		} else {
			p.answer(t, n.garbage(p.heard(), bomb))
		}
		f.serves(t, fmt.Sprintf("/serves/%d", i))
		_ = p.Close()
	}
	if log := a.wholeLog(); !strings.Contains(log, "too much garbage") {
		t.Error("a did not notice the garbage: nothing was tried")
	} else if strings.Contains(log, "panic") {
		t.Error("the log tells of a panic")
	}
}

// attack sends garbage on streams of its own, some of it without a hello, and leaves as many open as it is given.
func (p *rawPeer) attack(to peer.ID, proto protocol.ID, garbage [][]byte) {
	hello := frame(1, p.heard())
	for i, g := range garbage {
		if i%4 == 3 {
			p.send(to, proto, g)
		} else {
			p.send(to, proto, hello, g, g[:len(g)/2])
		}
	}
	for range 60 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		s, err := p.NewStream(network.WithNoDial(ctx, "test"), to, proto)
		cancel()
		if err != nil {
			return
		}
		_, _ = s.Write(hello[:3])
	}
}

// answer gives garbage as answers to an agent that opens streams itself, until it has had enough of them.
func (p *rawPeer) answer(t *testing.T, garbage [][]byte) {
	t.Helper()
	const enough = 8
	p.mu.Lock()
	p.replies = garbage
	p.mu.Unlock()
	eventually(t, func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		if asked := len(garbage) - len(p.replies); asked < enough && len(p.Network().Conns()) > 0 {
			return fmt.Errorf("asked %d times", asked)
		}
		return nil
	})
}

func (h *host) wholeLog() string {
	b, err := os.ReadFile(filepath.Join(h.dir, "agent.log"))
	if err != nil {
		h.t.Fatal(err)
	}
	return string(b)
}

func TestG10_GarbageOnTopic(t *testing.T) {
	n := newNoise(t)
	f := newFleet(t, "a", "b")
	keys, rules := f.members(t, 4)
	f.start()
	f.apply(append(rules, everything)...)
	f.connect()
	a, b := f.hosts[0], f.hosts[1]
	ctx, cancel := within(t.Context())
	defer cancel()
	for i, key := range keys {
		p := newRawPeer(t, key)
		ps, err := pubsub.NewGossipSub(ctx, p, pubsub.WithMessageSignaturePolicy(pubsub.StrictNoSign), pubsub.WithFloodPublish(true),
			pubsub.WithMessageIdFn(func(m *pb.Message) string { d := record.DigestOf(m.Data); return string(d[:]) }))
		if err != nil {
			t.Fatal(err)
		}
		topic, err := ps.Join("/syncagent/1/" + a.status().Network)
		if err != nil {
			t.Fatal(err)
		}
		sub, err := topic.Subscribe()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.connect(t, a.addrs()[i%2]); err != nil {
			t.Fatalf("a member is refused: %v", err)
		}
		// A real message, so that the false ones can be nearly right.
		var real *pubsub.Message
		for real == nil {
			b.mustPut("/real", fmt.Sprint(i))
			wait, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
			real, _ = sub.Next(wait) // none yet: the mesh is not up
			cancel()
			if ctx.Err() != nil {
				t.Fatal("the member hears no message of the topic")
			}
		}
		for range 100 {
			for _, m := range [][]byte{n.bytes(1000), n.dented(real.Data), real.Data[:n.IntN(len(real.Data))], append(n.bytes(8), real.Data...)} {
				if err := topic.Publish(ctx, m); err != nil {
					t.Log("publish:", err) // a message over the library's limit, or none to send it to
				}
			}
		}
		f.serves(t, fmt.Sprintf("/serves/%d", i))
	}
	if log := a.wholeLog(); !strings.Contains(log, "too much garbage") {
		t.Error("a did not notice the garbage: nothing was tried")
	}
}

// Who is no member gets no answer, and bytes that are no protocol at all trouble nobody.
func TestG10_StrangersAndNoise(t *testing.T) {
	n := newNoise(t)
	f := startFleet(t, []string{everything}, "a", "b")
	a, b := f.hosts[0], f.hosts[1]
	stranger := newRawPeer(t, newKey(t))
	for _, addr := range a.addrs() {
		id, err := stranger.connect(t, addr)
		if err != nil {
			continue // refused, as it should be; over QUIC the refusal comes a moment later
		}
		for _, proto := range protocols {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			s, err := stranger.NewStream(network.WithNoDial(ctx, "test"), id, proto)
			if err == nil {
				_ = s.SetDeadline(time.Now().Add(2 * time.Second))
				_, _ = s.Write(frame(1, n.bytes(100)))
				if got, err := bufio.NewReader(s).ReadByte(); err == nil {
					t.Errorf("%s: a stranger is answered: %d", proto, got)
				}
				_ = s.Reset()
			}
			cancel()
		}
	}
	var open []net.Conn
	defer func() {
		for _, c := range open {
			_ = c.Close()
		}
	}()
	dial := func(kind, addr string) {
		t.Helper()
		c, err := net.DialTimeout(kind, addr, 5*time.Second)
		if err != nil {
			return // too many from one address: that is fine
		}
		open = append(open, c)
		_ = c.SetWriteDeadline(time.Now().Add(time.Second))
		if n.IntN(4) > 0 { // the others stay silent
			_, _ = c.Write(n.bytes(4000))
		}
	}
	port := strings.Split(a.addrs()[0], "/")[4]
	for range 100 {
		dial("tcp", "127.0.0.1:"+port)
		dial("unix", filepath.Join(a.dir, "agent.sock"))
	}
	udp, err := net.Dial("udp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	open = append(open, udp)
	for range 2000 {
		packet := n.bytes(1400)
		if len(packet) > 5 && n.IntN(2) == 0 {
			copy(packet, []byte{0xc0, 0, 0, 0, 1}) // the head of a QUIC packet that opens a connection
		}
		_, _ = udp.Write(packet) // the agent may have closed the port for a moment: no answer is expected
	}
	f.serves(t, "/serves/noise")
	b.kill()
	b.start()
	f.connect() // new connections come through, too
	f.serves(t, "/serves/again")
}

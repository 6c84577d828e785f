package p2p

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"

	"syncagent/crdtstore/record"
)

// scripted is a member that is no agent: it answers what comes on its sync streams as a test says, and counts it.
type scripted struct {
	host   host.Host
	answer func(f *frames, kind byte) error

	mu    sync.Mutex
	came  map[byte]int // frames by kind, greetings left out
	bytes int          // of all frames, theirs and ours
}

// startScripted has one connect to an agent.
func startScripted(t *testing.T, to *agent, x *scripted) {
	t.Helper()
	x.clear()
	for _, proto := range []protocol.ID{protoEntry, protoPolicy} {
		x.host.SetStreamHandler(proto, func(s network.Stream) { _, _ = io.Copy(io.Discard, s) })
	}
	x.host.SetStreamHandler(protoSync, func(s network.Stream) {
		f := newFrames(s, nil)
		for {
			kind, payload, err := f.read(time.Minute)
			switch {
			case err != nil:
			case kind == frameHello:
				err = f.write(frameHello, (&hello{Network: testNetwork}).encode())
			case kind == framePing:
				err = f.write(framePong, append(payload, make([]byte, 8)...))
			default:
				x.note(kind, len(payload))
				err = x.answer(f, kind)
			}
			if err != nil {
				_ = s.Reset()
				return
			}
		}
	})
	eventually(t, func() bool { return x.host.Connect(t.Context(), addrInfo(t, to.node.Addrs()[0])) == nil }, "x connects")
}

func (x *scripted) note(kind byte, payload int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if kind > 0 {
		x.came[kind]++
	}
	x.bytes += frameHeader + payload
}

// say writes a frame that counts.
func (x *scripted) say(f *frames, kind byte, payload []byte) error {
	x.note(0, len(payload))
	return f.write(kind, payload)
}

func (x *scripted) clear() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.came, x.bytes = map[byte]int{}, 0
}

func (x *scripted) counts() (came map[byte]int, bytes int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return maps.Clone(x.came), x.bytes
}

// Two that have the same blocks tell each other so, in under 200 bytes, and nothing else: no vector, no question.
func TestEqualDigestsAreAllThatIsSaid(t *testing.T) {
	ka, kx := testKey(t), testKey(t)
	policy := &fakePolicy{Number: 2, Keys: []record.PublicKey{record.KeyOf(ka), record.KeyOf(kx)}}
	ra := newFake(ka, policy)
	ra.put([]byte("v"), "/x")
	a := start(t, "a", ra, Options{})
	x := &scripted{host: rawPeer(t, kx)}
	var serial atomic.Uint64 // below a's, so that nobody asks for a policy; the next answer has another one
	x.answer = func(f *frames, kind byte) error {
		note := digestNote{Serial: serial.Load(), Digest: a.BlockDigest()}
		switch kind {
		case frameDigest:
			return x.say(f, frameDigest, note.encode())
		case framePull: // whoever connects asks at once
			return x.say(f, frameDone, note.encode())
		}
		return nil
	}
	startScripted(t, a, x)
	var s *session
	told := func(want uint64) func() bool {
		return func() bool {
			if s = a.node.session(x.host.ID()); s == nil {
				return false
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.hasDigest && s.serial == want && !s.lastSync.IsZero()
		}
	}
	eventually(t, func() bool {
		came, _ := x.counts()
		return told(0)() && came[framePull] == 1 && came[frameDigest] == 1
	}, "they have met")
	const rounds = 10
	x.clear()
	for i := range uint64(rounds) {
		serial.Store(1 - i%2)
		s.mu.Lock()
		s.askBack = true // as every ten seconds
		s.mu.Unlock()
		ring(s.hintBell)
		eventually(t, told(serial.Load()), "round %d", i)
	}
	if due, _, _ := a.node.nextSync(time.Now().Add(time.Hour)); due != nil {
		t.Error("a sync is due")
	}
	came, bytes := x.counts()
	digests := came[frameDigest] // on a slow machine more: a has rounds of its own
	delete(came, frameDigest)
	delete(came, frameView)
	if len(came) > 0 || digests < rounds || bytes > digests*200 {
		t.Errorf("%d bytes in %d rounds, other frames %v", bytes, digests, came)
	}
}

// A sync that breaks off in the middle leaves what came, and the next peer is asked for the rest alone.
func TestInterruptedSyncGoesOnWhereItWas(t *testing.T) {
	const all, half = 100, 50
	ka, kb, kx := testKey(t), testKey(t), testKey(t)
	policy := &fakePolicy{Number: 1, Keys: []record.PublicKey{record.KeyOf(ka), record.KeyOf(kb), record.KeyOf(kx)}}
	ra := newFake(ka, policy)
	var blocks []record.Parcel
	value := make([]byte, 100)
	for i := range all {
		o := ra.put(value, fmt.Sprintf("/x/%d", i))
		blocks = append(blocks, record.Parcel{Block: o.Block, Entries: [][]byte{o.Entries[0].Bytes}})
	}
	b := start(t, "b", newFake(kb, policy), Options{})
	x := &scripted{host: rawPeer(t, kx)}
	x.answer = func(f *frames, kind byte) error {
		switch kind {
		case frameDigest:
			return x.say(f, frameDigest, digestNote{Digest: [32]byte{1}}.encode())
		case framePull: // and no end of it
			w := parcelWriter{f: f, spend: func(int) error { return nil }}
			for _, p := range blocks[:half] {
				if err := w.add(p); err != nil {
					return err
				}
			}
			return w.flush()
		}
		return nil
	}
	startScripted(t, b, x)
	eventually(t, func() bool { return b.holds("/x") == half }, "b stores what came, though the answer has no end")
	if err := x.host.Close(); err != nil {
		t.Fatal(err)
	}
	a := start(t, "a", ra, Options{Bootstrap: b.node.Addrs()})
	eventually(t, func() bool { return equal(a, b)() && b.holds("/x") == all }, "b gets the rest from a")
	a.mu.Lock()
	defer a.mu.Unlock()
	if rest := (all - half) * (len(value) + 100); a.sent[b.self] > rest {
		t.Errorf("%d bytes of entries were sent, the rest has %d", a.sent[b.self], rest)
	}
}

// A peer that has blocks all the time, and none that is new, holds nobody up for long.
func TestPeerThatSendsNothingNewIsGivenUp(t *testing.T) {
	n, r := &Node{}, synced{fruit: uptime()}
	old := func(context.Context) (Ingested, error) { return Ingested{}, nil }
	if err := n.ingest(t.Context(), &session{}, old, &r); err != nil {
		t.Fatal(err)
	}
	r.fruit -= fruitless
	if err := n.ingest(t.Context(), &session{}, old, &r); err == nil {
		t.Error("it is listened to for ever")
	}
}

// A hostile member names heads that do not exist. It is asked for them, in bounds, and others are synced with meanwhile.
func TestG10_BogusHeads(t *testing.T) {
	ka, kb, kx := testKey(t), testKey(t), testKey(t)
	policy := &fakePolicy{Number: 1, Keys: []record.PublicKey{record.KeyOf(ka), record.KeyOf(kb), record.KeyOf(kx)}}
	b := start(t, "b", newFake(kb, policy), Options{})
	x := &scripted{host: rawPeer(t, kx)}
	bogus := make([]record.Digest, maxDigests)
	for i := range bogus {
		bogus[i] = record.Digest{1, byte(i), byte(i >> 8)}
	}
	note := digestNote{Digest: [32]byte{1}}.encode()
	x.answer = func(f *frames, kind byte) (err error) {
		switch kind {
		case frameDigest:
			return x.say(f, frameDigest, note)
		case frameHeads:
			if err = x.say(f, frameHeads, encodeDigests(bogus)); err == nil {
				err = x.say(f, frameDone, append(slices.Clone(note), 0, 0, 0, 0))
			}
		case framePull, frameAsk:
			err = x.say(f, frameDone, note)
		}
		return err
	}
	startScripted(t, b, x)
	eventually(t, func() bool { came, _ := x.counts(); return came[frameAsk] > 0 }, "b asks for them")
	ra := newFake(ka, policy)
	for i := range 100 {
		ra.put([]byte("v"), fmt.Sprintf("/x/%d", i))
	}
	a := start(t, "a", ra, Options{Bootstrap: b.node.Addrs()})
	eventually(t, equal(a, b), "b syncs with a")
	if came, _ := x.counts(); came[frameAsk] > came[frameHeads] {
		t.Errorf("x was asked %d times for what it named %d times", came[frameAsk], came[frameHeads])
	}
}

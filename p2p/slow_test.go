package p2p

import (
	"crypto/rand"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"

	"syncagent/crdtstore/record"
)

// trickle reads a stream at 1 KB a second.
func trickle(r io.Reader) {
	for {
		if _, err := io.CopyN(io.Discard, r, 1<<10); err != nil {
			return
		}
		time.Sleep(time.Second)
	}
}

// A member that reads all its streams at 1 KB a second, and asks for everything, costs what lies in bounded queues and in
// the windows of its streams. The others get all at once.
func TestSlowReaderCostsLittleAndDelaysNobody(t *testing.T) {
	const many, window = 2000, 1 << 20 // values of 1,800 bytes; what a stream holds before anybody reads it
	ka, kb, kx := testKey(t), testKey(t), testKey(t)
	keys := []record.PublicKey{record.KeyOf(ka), record.KeyOf(kb), record.KeyOf(kx)}
	policy := &fakePolicy{Number: 1, Keys: keys, Private: map[string][]record.PublicKey{"/pushed": keys}}
	ra := newFake(ka, policy)
	value := make([]byte, 1800)
	for i := range many {
		_, _ = rand.Read(value)
		ra.put(value, fmt.Sprint("/pulled/", i))
	}
	a := start(t, "a", ra, Options{})
	x := rawPeer(t, kx)
	pushed := make(chan struct{}, 64)
	for _, proto := range []protocol.ID{protoSync, protoEntry, protoPolicy} {
		x.SetStreamHandler(proto, func(st network.Stream) {
			if newFrames(st, nil).write(frameHello, (&hello{Network: testNetwork}).encode()) == nil {
				if proto == protoEntry {
					pushed <- struct{}{}
				}
				trickle(st)
			}
		})
	}
	eventually(t, func() bool { return x.Connect(t.Context(), addrInfo(t, a.node.Addrs()[0])) == nil }, "x connects")
	ask := func(kind byte, payload []byte) *frames {
		st, err := x.NewStream(t.Context(), a.self.PeerID(), protoSync)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = st.Reset() })
		go trickle(st)
		f := newFrames(st, nil)
		if err := f.write(frameHello, (&hello{Network: testNetwork}).encode()); err != nil {
			t.Fatal(err)
		}
		if err := f.write(kind, payload); err != nil {
			t.Fatal(err)
		}
		return f
	}
	alive := ask(framePing, make([]byte, 8))
	go func() {
		for alive.write(framePing, make([]byte, 8)) == nil { // or it would be closed for silence
			time.Sleep(time.Second)
		}
	}()
	ask(framePull, nil)
	sent := func() int {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.sent[keys[2]]
	}
	eventually(t, func() bool { return sent() > 0 }, "x is served")

	b := start(t, "b", newFake(kb, policy), Options{Bootstrap: a.node.Addrs()})
	eventually(t, func() bool { return equal(a, b)() && b.holds("/pulled") == many }, "b has everything")
	large := make([]byte, 60<<10)
	for i := range 200 { // three times what may wait to be pushed
		_, _ = rand.Read(large)
		a.publish(large, fmt.Sprint("/pushed/", i))
	}
	<-pushed
	eventually(t, func() bool { return b.holds("/pushed") == 200 }, "b has what was pushed")

	if n := sent(); n > window {
		t.Errorf("%d bytes were read for x, which cannot have taken more than %d", n, window)
	}
	if a.node.session(x.ID()) == nil {
		t.Error("x is not connected any more")
	}
}

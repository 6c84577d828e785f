package p2p

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/protocol/identify"

	"syncagent/crdtstore/record"
)

// A round trip is half of what a small catch-up takes. So the first stream of a connection waits for nothing that the peer
// could say before, neither which protocols it has nor which blocks.
func TestSyncBeginsWithTheConnection(t *testing.T) {
	ka, kx := testKey(t), testKey(t)
	a := start(t, "a", newFake(ka, &fakePolicy{Number: 1, Keys: []record.PublicKey{record.KeyOf(ka), record.KeyOf(kx)}}), Options{})
	x := rawPeer(t, kx)
	var asked, gaveUp atomic.Bool
	x.SetStreamHandler(identify.ID, func(s network.Stream) { // says nothing
		_, _ = io.Copy(io.Discard, s)
		gaveUp.Store(!asked.Load())
	})
	for _, proto := range []protocol.ID{protoSync, protoEntry, protoPolicy} {
		x.SetStreamHandler(proto, func(s network.Stream) {
			f := newFrames(s, nil)
			for {
				kind, _, err := f.read(time.Minute)
				if err != nil {
					return
				}
				if kind == framePull {
					asked.Store(true)
				}
			}
		})
	}
	eventually(t, func() bool { return x.Connect(t.Context(), addrInfo(t, a.node.Addrs()[0])) == nil }, "x connects")
	eventually(t, asked.Load, "x is asked for blocks, though it has not said a word")
	if gaveUp.Load() {
		t.Error("a waited until it gave up to learn which protocols x has")
	}
}

// The first blocks are on their way while the rest is still read, and come in while it is on its way.
func TestFirstFramesOfAnAnswerAreSmall(t *testing.T) {
	var b bytes.Buffer
	w := parcelWriter{f: newFrames(pipe{&b, &b}, nil), spend: func(int) error { return nil }}
	for range 2000 {
		if err := w.add(record.Parcel{Block: make([]byte, 1000)}); err != nil {
			t.Fatal(err)
		}
	}
	var sizes []int
	for {
		_, payload, err := w.f.read(time.Second)
		if err != nil {
			break
		}
		raw, err := decompress(payload)
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, len(raw))
	}
	if len(sizes) < 8 || sizes[0] > parcelsFirst || sizes[1] > 2*parcelsFirst || sizes[7] < parcelsTarget-2000 || sizes[7] > parcelsTarget {
		t.Errorf("frames of %d bytes", sizes)
	}
}

func (r *fakeReplica) Check(from record.PublicKey, parcels []record.Parcel) (func(context.Context) (Ingested, error), error) {
	if r.checked != nil {
		r.checked()
	}
	return func(ctx context.Context) (Ingested, error) {
		if r.taking != nil {
			r.taking()
		}
		return r.Ingest(ctx, from, parcels)
	}, nil
}

// While the replica commits what came first, signatures of what comes next are checked.
func TestBlocksAreCheckedWhileOthersAreTaken(t *testing.T) {
	ka, kb := testKey(t), testKey(t)
	policy := &fakePolicy{Number: 1, Keys: []record.PublicKey{record.KeyOf(ka), record.KeyOf(kb)}}
	ra, rb := newFake(ka, policy), newFake(kb, policy)
	for i := range 200 {
		ra.put(make([]byte, 1000), fmt.Sprint("/a/", i))
	}
	second, checks := make(chan struct{}), 0
	rb.checked = func() {
		if checks++; checks == 2 {
			close(second)
		}
	}
	var first sync.Once
	rb.taking = func() {
		first.Do(func() {
			select {
			case <-second:
			case <-time.After(time.Minute):
				t.Error("nothing is checked before the first blocks are taken")
			}
		})
	}
	a := start(t, "a", ra, Options{})
	b := start(t, "b", rb, Options{Bootstrap: a.node.Addrs()})
	eventually(t, equal(a, b), "b has all of it")
}

// An answer may take longer than a membership.
func TestNoBlocksForWhoIsNoMemberAnyMore(t *testing.T) {
	ka, kx := testKey(t), testKey(t)
	ra := newFake(ka, &fakePolicy{Number: 1, Keys: []record.PublicKey{record.KeyOf(ka), record.KeyOf(kx)}})
	a := start(t, "a", ra, Options{})
	s := &session{id: record.KeyOf(kx).PeerID(), key: record.KeyOf(kx)}
	eventually(t, func() bool { return a.node.stillMember(s) == nil }, "x is a member")
	sends := a.node.sends(t.Context(), s)
	if err := sends(1); err != nil {
		t.Fatal(err)
	}
	ra.mu.Lock()
	ra.policy = &fakePolicy{Number: 2, Keys: []record.PublicKey{a.self}}
	ra.mu.Unlock()
	if err := sends(1); err == nil {
		t.Error("blocks are sent to a host that was removed")
	}
}

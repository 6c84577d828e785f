package p2p

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"syncagent/crdtstore/record"
)

// fakeChunks is the part of a replica that has, and lacks, chunks.
type fakeChunks struct {
	mu     sync.Mutex
	held   map[record.ID][]byte
	lacks  []record.ChunkWant
	asked  map[record.ID]bool
	served int
	sends  byte // is added to what is served
}

func (c *fakeChunks) ChunkWants(_ record.PublicKey, limit int) (out []record.ChunkWant) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range c.lacks {
		if c.held[w.Chunk] == nil && !c.asked[w.Chunk] && len(out) < limit {
			c.asked[w.Chunk] = true
			out = append(out, w)
		}
	}
	return out
}

func (c *fakeChunks) TakeChunk(_ context.Context, _ record.PublicKey, w record.ChunkWant, a record.Answer) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.asked, w.Chunk)
	if a.Status == record.Here && record.ChunkID(a.Entry) != w.Chunk {
		return fmt.Errorf("%w: another chunk", record.ErrFormat)
	}
	if a.Status == record.Here {
		c.held[w.Chunk] = bytes.Clone(a.Entry)
	}
	return nil
}

func (c *fakeChunks) GiveBack(ws []record.ChunkWant) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range ws {
		delete(c.asked, w.Chunk)
	}
}

func (c *fakeChunks) ServeChunk(_ record.PublicKey, w record.ChunkWant) record.Answer {
	c.mu.Lock()
	defer c.mu.Unlock()
	data := c.held[w.Chunk]
	if data == nil {
		return record.Answer{}
	}
	c.served++
	data = bytes.Clone(data)
	data[0] += c.sends
	return record.Answer{Status: record.Here, Entry: data}
}

// lack lets b lack n chunks that a has.
func lack(a, b *agent, n int) {
	a.fakeChunks.mu.Lock()
	defer a.fakeChunks.mu.Unlock()
	b.fakeChunks.mu.Lock()
	defer b.fakeChunks.mu.Unlock()
	for i := range n {
		data := bytes.Repeat([]byte{byte(i), byte(i >> 8)}, record.ChunkSize/2)
		id := record.ChunkID(data)
		a.fakeChunks.held[id] = data
		b.lacks = append(b.lacks, record.ChunkWant{PathKey: record.Tag{1}, Version: record.Version{HLC: 1}, Chunk: id})
	}
}

func (c *fakeChunks) complete() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range c.lacks {
		if c.held[w.Chunk] == nil {
			return false
		}
	}
	return true
}

func TestChunksAreFetchedOnce(t *testing.T) {
	a, b := pair(t, nil)
	lack(a, b, 5*chunksAhead)
	b.node.WantsChanged()
	eventually(t, b.complete, "chunks come")
	a.fakeChunks.mu.Lock()
	defer a.fakeChunks.mu.Unlock()
	if a.fakeChunks.served != 5*chunksAhead {
		t.Errorf("%d chunks were served, %d lacked", a.fakeChunks.served, 5*chunksAhead)
	}
}

// TestFetchOfChunksGoesOn holds that a connection that breaks costs nothing of what came before.
func TestFetchOfChunksGoesOn(t *testing.T) {
	a, b := pair(t, nil)
	lack(a, b, 8*chunksAhead)
	b.node.WantsChanged()
	eventually(t, func() bool {
		b.fakeChunks.mu.Lock()
		defer b.fakeChunks.mu.Unlock()
		return len(b.fakeChunks.held) > chunksAhead
	}, "some chunks come")
	a.node.Pause()
	eventually(t, func() bool { return connectedPeers(b) == 0 }, "apart")
	a.node.Resume()
	eventually(t, b.complete, "chunks come")
	a.fakeChunks.mu.Lock()
	defer a.fakeChunks.mu.Unlock()
	if again := a.fakeChunks.served - 8*chunksAhead; again > 2*chunksAhead {
		t.Errorf("%d chunks came twice", again)
	}
}

// TestChunkThatAPeerLacksIsAskedOfOthers holds that a value does not wait for the next look at all wants because the first
// peer that was asked did not have it yet.
func TestChunkThatAPeerLacksIsAskedOfOthers(t *testing.T) {
	asked, other := &session{id: "asked", standing: member, chunkBell: make(chan struct{}, 1)},
		&session{id: "other", standing: member, chunkBell: make(chan struct{}, 1)}
	n := &Node{replica: newFake(testKey(t), nil), sessions: map[peer.ID]*session{asked.id: asked, other.id: other}}
	if err := n.takeChunk(t.Context(), asked, record.ChunkWant{}, record.Answer{Status: record.NotHere}); err != nil {
		t.Fatal(err)
	}
	if len(other.chunkBell) != 1 || len(asked.chunkBell) != 0 {
		t.Errorf("bells rung: %d of the other, %d of who lacks it", len(other.chunkBell), len(asked.chunkBell))
	}
}

func TestG10_WrongChunkIsRefused(t *testing.T) {
	a, b := pair(t, nil)
	a.sends = 1
	lack(a, b, 3)
	b.node.WantsChanged()
	eventually(t, func() bool {
		b.node.gate.mu.Lock()
		defer b.node.gate.mu.Unlock()
		return b.node.gate.strikes[a.self.PeerID()] != nil
	}, "b notices")
	if b.complete() {
		t.Error("b took a chunk that is not what it asked for")
	}
	f := sneak(t, b, a, protoEntry)
	if err := f.write(frameChunkWants, []byte("nonsense")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.read(time.Minute); err == nil {
		t.Error("nonsense is answered")
	}
}

func FuzzChunkWants(f *testing.F) {
	fuzzParser(f, parseChunkWants, encodeChunkWants, []record.ChunkWant{{PathKey: record.Tag{1}, Chunk: record.ID{2}}})
}

func FuzzChunk(f *testing.F) {
	f.Add([]byte{1, 2, 3})
	f.Fuzz(func(t *testing.T, b []byte) {
		if a, err := parseChunk(b); err == nil && len(a.Entry) > record.ChunkSize {
			t.Fatal("too large")
		}
	})
}

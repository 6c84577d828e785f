package p2p

import (
	"context"
	"errors"

	"golang.org/x/sync/errgroup"

	"syncagent/crdtstore/record"
)

// Chunks of large values come on entry streams of their own, so that small entries never wait behind them. Requests are
// kept ahead of the answers, and every chunk is stored on arrival: an interrupted fetch goes on where it was.
const (
	chunksAhead  = 16 // asked of one peer and not answered yet: 4 MiB
	chunkPeers   = 4  // asked at the same time
	chunkWriters = 32 // chunks of one peer that are being stored: they wait for the disk together
)

// chunkFetches asks one peer for chunks, whenever its bell rings.
func (n *Node) chunkFetches(ctx context.Context, s *session) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.chunkBell:
		}
		select {
		case <-ctx.Done():
			return
		case n.chunkTurns <- struct{}{}:
		}
		err := n.fetchChunks(ctx, s)
		<-n.chunkTurns
		if err != nil && ctx.Err() == nil {
			n.blame(s, err)
			n.log.Debug("chunks not fetched", "peer", s.id, "err", err)
		}
	}
}

// fetchChunks asks one peer for chunks as long as there are any to ask it for.
func (n *Node) fetchChunks(ctx context.Context, s *session) error {
	asked := n.replica.ChunkWants(s.key, chunksAhead)
	if len(asked) == 0 {
		return nil
	}
	defer func() { n.replica.GiveBack(asked) }()
	f, done, err := n.openStream(ctx, s, protoEntry)
	if err != nil {
		return err
	}
	defer done()
	if err := f.write(frameChunkWants, encodeChunkWants(asked)); err != nil {
		return err
	}
	writers, ctx := errgroup.WithContext(ctx)
	writers.SetLimit(chunkWriters)
	for err == nil && len(asked) > 0 && ctx.Err() == nil {
		var kind byte
		var payload []byte
		if kind, payload, err = f.read(stallTimeout); err != nil || kind != frameChunk {
			continue
		}
		var a record.Answer
		if a, err = parseChunk(payload); err != nil {
			continue
		}
		want := asked[0]
		asked = asked[1:]
		writers.Go(func() error { return n.takeChunk(ctx, s, want, a) })
		if len(asked) <= chunksAhead/2 {
			asked, err = n.askMore(f, s, asked)
		}
	}
	return errors.Join(err, writers.Wait())
}

// askMore fills up what is asked of a peer.
func (n *Node) askMore(f *frames, s *session, asked []record.ChunkWant) ([]record.ChunkWant, error) {
	more := n.replica.ChunkWants(s.key, chunksAhead-len(asked))
	if len(more) == 0 {
		return asked, nil
	}
	return append(asked, more...), f.write(frameChunkWants, encodeChunkWants(more))
}

// takeChunk hands an answer to the replica. What one peer does not have the others are asked for at once.
func (n *Node) takeChunk(ctx context.Context, s *session, want record.ChunkWant, a record.Answer) error {
	err := n.replica.TakeChunk(ctx, s.key, want, a)
	if errors.Is(err, record.ErrFormat) {
		return frameError("chunk: %v", err)
	}
	if err != nil {
		return err
	}
	if a.Status == record.Here {
		n.stats.chunks.Inc()
		return nil
	}
	for _, other := range n.members() { // the replica asks this one again only after a while
		if other != s {
			ring(other.chunkBell)
		}
	}
	return nil
}

// serveChunks answers wants one by one: at no time more than one chunk is in memory.
func (n *Node) serveChunks(ctx context.Context, s *session, f *frames, payload []byte) error {
	wants, err := parseChunkWants(payload)
	if err != nil {
		return err
	}
	for _, w := range wants {
		a := n.replica.ServeChunk(s.key, w)
		n.spend(ctx, s, len(a.Entry))
		if err := f.write(frameChunk, []byte{byte(a.Status)}, a.Entry); err != nil {
			return err
		}
	}
	return nil
}

const chunkWantSize = 16 + record.VersionSize + 32

func encodeChunkWants(ws []record.ChunkWant) []byte {
	b := make([]byte, 0, len(ws)*chunkWantSize)
	for _, w := range ws {
		b = append(b, w.PathKey[:]...)
		b = w.Version.Append(b)
		b = append(b, w.Chunk[:]...)
	}
	return b
}

func parseChunkWants(b []byte) ([]record.ChunkWant, error) {
	if len(b)%chunkWantSize != 0 || len(b) > chunkWantSize*maxWants || len(b) == 0 {
		return nil, frameError("list of chunk wants of %d bytes", len(b))
	}
	ws := make([]record.ChunkWant, 0, len(b)/chunkWantSize)
	for r := (wireReader{b: b}); len(r.b) > 0; {
		var w record.ChunkWant
		copy(w.PathKey[:], r.bytes(16))
		v, err := record.VersionFrom(r.bytes(record.VersionSize))
		if err != nil {
			return nil, frameError("chunk want: %v", err)
		}
		w.Version, w.Chunk = v, r.array()
		ws = append(ws, w)
	}
	return ws, nil
}

// parseChunk reads an answer to a chunk want: its status and, if the chunk is here, its bytes.
func parseChunk(b []byte) (a record.Answer, err error) {
	if len(b) == 0 || len(b) > 1+record.ChunkSize {
		return a, frameError("chunk of %d bytes", len(b))
	}
	a.Status, a.Entry = record.AnswerStatus(b[0]), b[1:]
	switch a.Status {
	case record.Here:
	case record.NotHere, record.Denied:
		if len(a.Entry) > 0 {
			return a, frameError("a chunk that is not here has %d bytes", len(a.Entry))
		}
	default:
		return a, frameError("chunk with status %d", a.Status)
	}
	return a, nil
}

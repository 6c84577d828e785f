package p2p

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"syncagent/crdtstore/fault"
	"syncagent/crdtstore/record"
)

const (
	stallTimeout = 5 * time.Second  // without a frame from the peer we sync with, then it is another's turn
	fruitless    = 15 * time.Second // without a new block, then too: a peer must not hold the others up with old ones
	askRounds    = 256              // of 64 ancestors each
	gapRounds    = 4                // of them for a gap, then it is a sync like others
	readAhead    = 4                // frames
	sameRounds   = 3                // syncs in a row that find a difference and no reason, then the alarm
)

// errPutOff says that a sync brought less than there is.
var errPutOff = errors.New("some blocks were put off, their peer opens too many chains")

// synced is what a sync brought.
type synced struct {
	blocks  int           // new
	delayed int           // left out for now
	fruit   time.Duration // uptime of the last new one
	missing []record.Digest
	note    digestNote // the peer's, after its last answer
	unknown uint32     // of our heads, by the peer's count
	heads   []record.Digest
}

// sync runs one sync as the asking side: the blocks of a gap, or everything that the peer has more.
func (n *Node) sync(ctx context.Context, s *session, gaps []record.Digest) (synced, error) {
	r := synced{missing: n.recent.unseen(gaps), fruit: uptime()}
	if gaps != nil && len(r.missing) == 0 {
		return r, nil
	}
	f, done, err := n.openStream(ctx, s, protoSync)
	if err != nil {
		return r, err
	}
	defer done()
	if gaps != nil {
		err := n.askMissing(ctx, s, f, &r, gapRounds)
		if err == nil && r.delayed > 0 {
			err = errPutOff
		}
		if err != nil || len(r.missing) == 0 {
			return r, err
		}
		r.missing = nil // it is more than a gap: in ascending height nothing has to be parked
	}
	for _, part := range encodeVector(n.replica.Vector()) {
		if err := f.write(frameVector, part); err != nil {
			return r, err
		}
	}
	if err := f.write(framePull, nil); err != nil {
		return r, err
	}
	if err := n.receive(ctx, s, f, &r); err != nil {
		return r, err
	}
	if err := n.askMissing(ctx, s, f, &r, askRounds); err != nil {
		return r, err
	}
	if r.delayed > 0 {
		return r, errPutOff // a failure like others: tried again later, and what differs is no riddle
	}
	if r.blocks > 0 || r.note.Digest == n.replica.BlockDigest() {
		return r, nil
	}
	return r, n.compareHeads(ctx, s, f, &r)
}

// askMissing asks for blocks by digest until nothing that the answers name is missing, or so many times.
func (n *Node) askMissing(ctx context.Context, s *session, f *frames, r *synced, rounds int) error {
	asked := map[record.Digest]bool{}
	for range rounds {
		want := slices.DeleteFunc(r.missing, func(d record.Digest) bool { return asked[d] })
		r.missing = nil
		if len(want) == 0 || uptime()-r.fruit > fruitless {
			return nil
		}
		want = want[:min(len(want), maxDigests)]
		for _, d := range want {
			asked[d] = true
		}
		if err := f.write(frameAsk, encodeDigests(want)); err != nil {
			return err
		}
		if err := n.receive(ctx, s, f, r); err != nil {
			return err
		}
	}
	return nil
}

// compareHeads finds blocks that no vector shows: forks. If neither side lacks anything and the digests still differ,
// somebody's store is wrong.
func (n *Node) compareHeads(ctx context.Context, s *session, f *frames, r *synced) error {
	ours := n.replica.Heads()
	if err := f.write(frameHeads, encodeDigests(ours)); err != nil {
		return err
	}
	err := n.receive(ctx, s, f, r)
	if err != nil {
		return err
	}
	if r.missing, err = n.replica.Lacks(r.heads); err != nil {
		return err
	}
	if err := n.askMissing(ctx, s, f, r, askRounds); err != nil {
		return err
	}
	same := r.blocks == 0 && r.unknown == 0 && r.note.Digest != n.replica.BlockDigest() && slices.Equal(ours, n.replica.Heads())
	s.mu.Lock()
	if same {
		s.sameRounds++
	} else {
		s.sameRounds = 0
	}
	s.mu.Unlock()
	n.tellDiverged()
	return nil
}

// batch is what one frame brought, checked.
type batch func(context.Context) (Ingested, error)

// receive takes the answer to one request, up to its last frame. While the replica commits what one frame brought, the
// next ones are read and checked.
func (n *Node) receive(ctx context.Context, s *session, f *frames, r *synced) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	batches := make(chan batch, readAhead)
	ended := make(chan error, 1)
	go func() {
		defer close(batches)
		ended <- n.readAnswer(ctx, s, f, r, batches)
	}()
	var failed error
	for take := range batches {
		if failed != nil {
			continue
		}
		if failed = n.stillMember(s); failed == nil {
			failed = n.ingest(ctx, s, take, r)
		}
		if failed != nil {
			cancel()
		}
	}
	err := <-ended
	if failed != nil {
		return failed
	}
	n.blame(s, err)
	return err
}

// ingest has the replica take a batch and notes what it says.
func (n *Node) ingest(ctx context.Context, s *session, take batch, r *synced) error {
	fault.Point("sync.received")
	got, err := take(ctx)
	if err != nil {
		return fmt.Errorf("store blocks: %w", err)
	}
	if got.New > 0 {
		n.noteBlocks()
		n.stats.blocks.WithLabelValues("sync").Add(float64(got.New))
		r.fruit = uptime()
	} else if uptime()-r.fruit > fruitless {
		return errors.New("peer sends nothing new")
	}
	n.notePutOff(s, got.Delayed)
	r.blocks += got.New
	r.delayed += got.Delayed
	r.missing = append(r.missing, got.Missing[:min(len(got.Missing), maxDigests-len(r.missing))]...) // no more are asked for
	if got.Invalid != nil {
		n.gate.strike(s.id)
		n.o.Alarm(AlarmInvalid, fmt.Sprintf("%s sent invalid data: %v", s.id, got.Invalid))
		return fmt.Errorf("invalid data: %w", got.Invalid)
	}
	return nil
}

// readAnswer reads the frames of one answer. Its writes to r end before it returns; receive reads them afterwards.
func (n *Node) readAnswer(ctx context.Context, s *session, f *frames, r *synced, batches chan<- batch) error {
	var vector []record.Position
	vectors := 0
	useful := uptime()
	for {
		kind, payload, err := f.read(max(useful+stallTimeout-uptime(), time.Millisecond))
		if err != nil {
			return err
		}
		switch kind {
		case frameVector, frameParcels, frameHeads:
			useful = uptime()
		}
		switch kind {
		case frameVector:
			if vectors++; vectors > maxVector {
				return frameError("vector of more than %d frames", maxVector)
			}
			part, err := n.readVector(ctx, s, payload)
			if err != nil {
				return err
			}
			vector = append(vector, part...)
			s.mu.Lock()
			s.vector = vector
			s.mu.Unlock()
		case frameParcels:
			raw, err := n.inflate(ctx, s, payload)
			if err != nil {
				return err
			}
			parcels, err := parseParcels(raw)
			if err != nil {
				return err
			}
			n.came(parcels)
			take, err := n.replica.Check(s.key, parcels)
			if err != nil {
				return fmt.Errorf("check blocks: %w", err)
			}
			select {
			case batches <- take:
				useful = uptime() // we may have been the slow one
			case <-ctx.Done():
				return ctx.Err()
			}
		case frameHeads:
			if r.heads != nil {
				return frameError("heads twice")
			}
			if r.heads, err = parseDigests(payload); err != nil {
				return err
			}
		case frameDone:
			return n.noteDone(s, payload, r)
		case frameRefuse:
			return fmt.Errorf("%w: %q", errRefused, payload[:min(len(payload), 200)])
		}
	}
}

// noteDone takes the last frame of an answer: the peer's digest, and after heads how many of ours it lacks.
func (n *Node) noteDone(s *session, payload []byte, r *synced) error {
	if len(payload) == 45 {
		r.unknown = be.Uint32(payload[41:])
		payload = payload[:41]
	}
	d, err := parseDigestNote(payload)
	if err != nil {
		return err
	}
	r.note = d
	s.mu.Lock()
	s.digest, s.serial, s.hasDigest = d.Digest, d.Serial, true
	s.mu.Unlock()
	return nil
}

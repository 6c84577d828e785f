package crdtstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"syncagent/crdtstore/record"
)

// syncWithin is how long what came from others may wait for its fsync.
const syncWithin = time.Second

// Ingest takes blocks and entries that a peer delivered and waits until they are committed, parked, refused or put off.
func (s *Store) Ingest(ctx context.Context, from record.PublicKey, parcels []record.Parcel) (record.Ingested, error) {
	take, err := s.Check(from, parcels)
	if err != nil {
		return record.Ingested{}, err
	}
	return take(ctx)
}

// Check does that part of Ingest that waits for nobody: it reads parcels and checks their signatures, in the caller's
// goroutine, so that the owner of the store need not. Take does the rest.
func (s *Store) Check(from record.PublicKey, parcels []record.Parcel) (take func(context.Context) (record.Ingested, error), err error) {
	_, came := s.clock.Now()
	checked, delayed, invalid, err := s.check(from, parcels)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) (record.Ingested, error) {
		r := record.Ingested{Delayed: delayed, Invalid: invalid}
		if len(checked) == 0 {
			return r, nil
		}
		got, err := s.take(ctx, &ingestRequest{from: from, came: came, parcels: checked, done: make(chan ingestResult, 1)})
		r.New, r.Missing, r.Invalid = got.New, got.Missing, cmp.Or(got.Invalid, invalid)
		return r, err
	}, nil
}

// take brings checked parcels to the owner.
func (s *Store) take(ctx context.Context, req *ingestRequest) (record.Ingested, error) {
	if err := s.send(ctx, req); err != nil {
		return record.Ingested{}, err
	}
	r, err := await(ctx, s, req.done)
	return r.Ingested, cmp.Or(err, r.err)
}

// check parses parcels, puts off what is over the peer's allowance, and checks signatures. What is malformed is left
// out; the first fault is told.
func (s *Store) check(from record.PublicKey, parcels []record.Parcel) (checked []*parcel, delayed int, invalid, err error) {
	parsed, malformed := onAllCores(parcels, s.parse)
	for _, p := range parsed {
		p.from = from
	}
	if from != s.self {
		if parsed, delayed, err = s.admit(from, parsed); err != nil {
			return nil, 0, nil, err
		}
	}
	s.verifyTogether(parsed)
	checked, unsigned := onAllCores(parsed, s.verify)
	return checked, delayed, cmp.Or(malformed, unsigned), nil
}

// onAllCores calls fn for all of in and gives its results in order, but for nil ones and failures; the first of those is
// told.
func onAllCores[T any](in []T, fn func(T) (*parcel, error)) ([]*parcel, error) {
	out := make([]*parcel, len(in))
	errs := make([]error, len(in))
	shared(len(in), func(i int) { out[i], errs[i] = fn(in[i]) })
	out = slices.DeleteFunc(out, func(p *parcel) bool { return p == nil })
	return out, cmp.Or(errs...)
}

// shared calls fn for 0 to n-1, on all cores.
func shared(n int, fn func(i int)) {
	workers := min(runtime.GOMAXPROCS(0), n)
	share := func(w int) {
		for i := w; i < n; i += workers {
			fn(i)
			if i+workers < n {
				runtime.Gosched() // who puts meanwhile does not wait for all of them
			}
		}
	}
	var wg sync.WaitGroup
	for w := 1; w < workers; w++ {
		wg.Go(func() { share(w) })
	}
	share(0)
	wg.Wait()
}

// together is how many blocks have their signatures checked at one go: more take hardly less time each.
const together = 32

// verifyTogether checks the signatures of blocks that are not held in groups, and marks those of groups that are all
// right.
func (s *Store) verifyTogether(parcels []*parcel) {
	unsure := make([]*parcel, 0, len(parcels))
	for _, p := range parcels {
		if p.unsure() {
			unsure = append(unsure, p)
		}
	}
	size := min(len(unsure)/runtime.GOMAXPROCS(0)+1, together)
	groups := slices.Collect(slices.Chunk(unsure, size))
	shared(len(groups), func(i int) {
		if len(groups[i]) == 1 {
			return // no faster
		}
		blocks := make([]*record.Block, len(groups[i]))
		for j, p := range groups[i] {
			blocks[j] = p.block
		}
		if record.VerifyTogether(s.network, blocks) {
			for _, p := range groups[i] {
				p.verified = true
			}
		}
	})
}

// verify checks the signatures of a block for which that is not known.
func (s *Store) verify(p *parcel) (*parcel, error) {
	if !p.unsure() {
		return p, nil
	}
	if err := p.block.Verify(s.network); err != nil {
		return nil, fmt.Errorf("block %s: %w", p.block.Digest, err)
	}
	return p, nil
}

// parse gives nil without an error for a block that is held already and brings nothing.
func (s *Store) parse(in record.Parcel) (*parcel, error) {
	p := &parcel{bytes: len(in.Block)}
	if in.Block != nil {
		b, err := record.ParseBlock(in.Block)
		if err != nil {
			return nil, err
		}
		held, err := s.holds(b)
		if err != nil {
			return nil, err
		}
		if held && len(in.Entries) == 0 {
			return nil, nil
		}
		p.block, p.held = b, held
		p.byID = make(map[record.ID][]byte, len(in.Entries))
	}
	for _, data := range in.Entries {
		_, ids, err := entryIDs(data)
		if err != nil {
			return nil, fmt.Errorf("entry: %w", err)
		}
		p.bytes += len(data)
		p.entries = append(p.entries, data)
		for _, id := range ids {
			if p.byID != nil {
				p.byID[id] = data
			}
		}
	}
	return p, nil
}

// holds tells whether a block is committed, and known by others to be.
func (s *Store) holds(b *record.Block) (bool, error) {
	if s.dag.Load().ahead(b) {
		return false, nil
	}
	v := s.kv.View()
	defer v.Close()
	_, ok, err := v.Get(blockKey(b.Digest))
	return ok, err
}

// Wants gives up to limit entries to ask a peer for now, best first, only such as the peer may read.
func (s *Store) Wants(peer record.PublicKey, limit int) []record.Want {
	return s.wants.forPeer(peer, s.Policy(), s.tick(), limit)
}

// Answered brings a peer's answers to wants, in the same order. An error that wraps record.ErrFormat means that the
// peer sent something else than it was asked for.
func (s *Store) Answered(ctx context.Context, from record.PublicKey, wants []record.Want, answers []record.Answer) error {
	if len(answers) != len(wants) {
		return fmt.Errorf("%w: %d answers to %d wants", record.ErrFormat, len(answers), len(wants))
	}
	req := &answerRequest{from: from, wants: wants, answers: answers, done: make(chan error, 1)}
	if err := s.send(ctx, req); err != nil {
		return err
	}
	outcome, err := await(ctx, s, req.done)
	if errors.Is(outcome, errWrongEntry) {
		outcome = fmt.Errorf("%w: %w", record.ErrFormat, outcome)
	}
	return errors.Join(err, outcome)
}

// OfferPolicy takes a signed text from another agent.
func (s *Store) OfferPolicy(ctx context.Context, _ record.PublicKey, text []byte) error {
	return s.SetPolicy(ctx, text)
}

// Rights judges by the policy in force.
func (s *Store) Rights() record.Rights { return s.Policy() }

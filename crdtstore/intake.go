package crdtstore

import (
	"errors"
	"fmt"
	"runtime"

	"syncagent/crdtstore/record"
)

// due touches the paths whose time has come.
func (t *turn) due() error {
	s := t.s
	if t.now-s.minute >= 60_000 {
		s.minute = t.now
		if err := t.touchOld(); err != nil {
			return err
		}
	}
	postponed := s.postponed[:min(len(s.postponed), turnPaths)]
	s.postponed = s.postponed[len(postponed):]
	for _, key := range postponed {
		p, err := t.path(key, false)
		if err != nil {
			return err
		}
		p.dirty = true
	}
	if s.wake == 0 || s.wake > t.now {
		return nil
	}
	s.wake = 0
	n := 0
	return t.view.Scan([]byte{'t'}, nil, false, func(k, _ []byte) (bool, error) {
		if len(k) != 25 {
			return false, fmt.Errorf("%w: timer row", ErrCorrupt)
		}
		if ms := int64(be.Uint64(k[1:])); ms > t.now || n >= turnPaths || t.size > turnBytes/2 {
			s.wakeAt(ms)
			return false, nil
		}
		p, err := t.path(record.Tag(k[9:25]), true)
		if err != nil {
			return false, err
		}
		p.dirty = true
		t.rows.delete(k)
		t.size += pathCost(p)
		n++
		return true, nil
	})
}

// pathCost estimates the rows that looking at a path again makes.
func pathCost(p *pathState) int { return 500 + 2*len(p.name()) }

// touchOld looks again at unready writes older than the horizon, some at a time: what nobody has is waited for no
// longer.
func (t *turn) touchOld() error {
	n := 0
	for _, u := range t.s.unready {
		if t.now-u.hlc.Milli() <= horizon.Milliseconds() {
			continue
		}
		if n++; n > turnPaths/8 {
			return nil
		}
		for _, key := range u.paths {
			p, err := t.path(key, false)
			if err != nil {
				return err
			}
			p.dirty = true
		}
		t.s.alarm("entry-lost", fmt.Sprintf("an entry of write %s-%s cannot be had from anybody; "+
			"the rest of the write is shown without it once a member was asked", u.hlc, u.id))
	}
	return nil
}

func (t *turn) takeAnswers(full bool) (done []*answerRequest, err error) {
	q := &t.s.queue
	for len(q.answers) > 0 && t.size < turnBytes {
		r := q.answers[0]
		for ; r.next < len(r.wants) && t.size < turnBytes && !full; r.next++ {
			if err := t.answer(r.from, r.wants[r.next], r.answers[r.next]); err != nil {
				if !fromOutside(err) {
					return nil, err
				}
				r.result = err
			}
		}
		if full {
			r.result = ErrDiskFull
		} else if r.next < len(r.wants) {
			break
		}
		done = append(done, r)
		q.answers = q.answers[1:]
	}
	return done, nil
}

// fromOutside tells an error that the sender caused from one of our own disk.
func fromOutside(err error) bool {
	return errors.Is(err, record.ErrFormat) || errors.Is(err, errWrongEntry)
}

// takeParcels takes foreign blocks and entries until the turn is full, some of each request by turns and only so much of
// each peer: who brings many holds up neither who brings few nor the writes of this host.
func (t *turn) takeParcels(full bool) (done []*ingestRequest, err error) {
	q := &t.s.queue
	t.s.share = t.s.sharing()
	taken := make(map[record.PublicKey]int)
	for idle := 0; idle < len(q.ingests); {
		r := q.ingests[0]
		if full {
			r.finish(ErrDiskFull)
			q.ingests = q.ingests[1:]
			continue
		}
		idle++
		for n := 0; r.next < len(r.parcels) && n < turnShare && taken[r.from] < t.s.share; n++ {
			if !t.fits(r.parcels[r.next]) {
				return done, nil
			}
			before := t.size
			if err := t.parcel(r, r.parcels[r.next]); err != nil {
				return nil, err
			}
			taken[r.from] += max((t.size-before)*turnBlocks/turnBytes, 1)
			r.next++
			idle = 0
			t.giveWay()
		}
		q.ingests = q.ingests[1:]
		if r.next < len(r.parcels) {
			q.ingests = append(q.ingests, r)
			continue
		}
		// Once for all: what is parked may be one long chain, and each block of it would walk down to the end.
		r.result.Missing = t.s.parked.roots(r.lacks)
		done = append(done, r)
	}
	return done, nil
}

// giveWay lets others have the core: who puts meanwhile has few of them, and the turn may be long. While nobody puts, and
// a turn takes all that comes, it does not, for that costs half as much again as a small block.
func (t *turn) giveWay() {
	if t.s.share < turnBlocks {
		runtime.Gosched()
	}
}

// sharing says how many small blocks the next turn may take of one peer: few as long as local writes come or are on their
// way to disk, then twice as many with each turn. So what a peer brings takes about as long as those writes do, and as
// their clients to come again.
func (s *Store) sharing() int {
	switch n := max(len(s.queue.writes), s.made); {
	case n > 0:
		return min(turnShare+n/4, turnBlocks)
	case s.syncing.Load() > 0:
		return min(turnShare, s.share)
	default:
		return min(2*s.share, turnBlocks)
	}
}

// fits tells whether the turn may take one more parcel. The first always fits.
func (t *turn) fits(p *parcel) bool {
	if len(t.foreign) == 0 && t.size == 0 {
		return true
	}
	if len(t.foreign) >= min(4*t.s.share, turnBlocks) || t.size >= turnBytes || len(t.dag.heads) >= maxHeads {
		return false
	}
	return p.block == nil || p.block.Bundle == nil || t.size+planned(p) <= txnBytes
}

// planned estimates the rows that a parcel makes.
func planned(p *parcel) int {
	n := p.bytes
	for _, w := range p.block.Writes {
		for i := range w.Slots {
			n += 400 + 16*len(w.Slots[i].Tags)
		}
	}
	return n
}

func (t *turn) parcel(r *ingestRequest, p *parcel) error {
	if p.block == nil {
		for _, e := range p.entries {
			if err := t.entry(r.from, e); err != nil {
				if !fromOutside(err) {
					return err
				}
				r.result.Invalid = err
			}
		}
		return nil
	}
	isNew, err := t.block(p.block, p.byID)
	var missing *record.MissingError
	switch {
	case errors.As(err, &missing):
		t.s.parked.add(p, missing.Digests)
		r.lacks = append(r.lacks, missing.Digests...)
		return nil
	case err != nil && fromOutside(err):
		r.result.Invalid = fmt.Errorf("block %s: %w", p.block.Digest, err)
		return nil
	case err != nil:
		return err
	case !isNew: // known: its entries may still be news
		for _, e := range p.entries {
			if err := t.entry(r.from, e); err != nil && !fromOutside(err) {
				return err
			}
		}
		return nil
	}
	r.result.New++
	if freed := t.s.parked.arrived(p.block.Digest); len(freed) > 0 {
		t.s.queue.ingests = append(t.s.queue.ingests, &ingestRequest{from: r.from, parcels: freed})
	}
	return nil
}

// merge gives the foreign blocks to go-ds-crdt. One that it does not take, which only a bug can cause, is set aside so
// that the next start does not meet it again.
func (t *turn) merge() error {
	refused, err := t.s.engine.merge(t.foreign)
	if err != nil {
		return fmt.Errorf("merge blocks: %w", err)
	}
	if refused == nil {
		return nil
	}
	t.s.alarm("block-refused", "go-ds-crdt did not take block "+refused.Digest.String()+"; it was set aside")
	aside := newRows()
	aside.set(key('q', refused.Digest[:]), nil)
	if err := t.s.kv.Commit(aside); err != nil {
		return err
	}
	if err := t.s.kv.Sync(); err != nil {
		return err
	}
	return fmt.Errorf("merge blocks: go-ds-crdt did not take block %s", refused.Digest)
}

// takeWrites takes the waiting local writes, or, when there are none and many heads, makes a merge block.
func (t *turn) takeWrites(full bool) error {
	q := &t.s.queue
	ripe := t.s.ripe()
	for ripe && len(q.writes) > 0 && (t.size < turnBytes || len(t.local) == 0 && len(t.foreign) == 0) {
		req := q.writes[0]
		if t.size > 0 && t.size+plannedWrite(req) > txnBytes {
			t.s.passedOver = true
			break
		}
		q.writes = q.writes[1:]
		if full {
			req.answer(writeResult{err: t.s.errFull()})
			continue
		}
		if err := t.put(req); err != nil {
			if errors.Is(err, ErrCorrupt) {
				return err
			}
			req.answer(writeResult{err: err})
		}
	}
	if len(t.local) > 0 {
		return t.publish()
	}
	if len(q.writes) == 0 && len(t.dag.heads) > t.s.headLimit && t.policy.Member(t.s.self) && t.policy.Format() <= record.Format && !full {
		return t.publishBundle(nil)
	}
	return nil
}

func plannedWrite(r *writeRequest) int {
	n := 400
	for i := range r.made {
		n += 800 + 16*len(r.made[i].slot.Tags) + len(r.made[i].Path) + min(len(r.made[i].bytes), inlineEntry)
	}
	return n
}

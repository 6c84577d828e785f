package crdtstore

import (
	"context"
	"errors"
	"fmt"

	"syncagent/crdtstore/record"
)

// parcel is a record.Parcel whose block was parsed and whose signatures were checked.
type parcel struct {
	block   *record.Block // nil: entries alone
	entries [][]byte
	byID    map[record.ID][]byte // the same, for a block's slots
	bytes   int
}

func (p *parcel) size() int { return p.bytes }

// ingestRequest is a caller waiting for what it delivered. Done is nil for blocks that leave the parking.
type ingestRequest struct {
	from    record.PublicKey
	parcels []*parcel
	next    int
	result  record.Ingested
	done    chan ingestResult
}

type ingestResult struct {
	record.Ingested
	err error
}

type answerRequest struct {
	from    record.PublicKey
	wants   []record.Want
	answers []record.Answer
	next    int
	result  error
	done    chan error
}

// queue is what the owner was asked to do and has not done yet.
type queue struct {
	policies []*policyRequest
	ingests  []*ingestRequest
	answers  []*answerRequest
	writes   []*writeRequest
}

func (q *queue) empty() bool {
	return len(q.policies)+len(q.ingests)+len(q.answers)+len(q.writes) == 0
}

func (q *queue) add(r any) {
	switch r := r.(type) {
	case *policyRequest:
		q.policies = append(q.policies, r)
	case *ingestRequest:
		q.ingests = append(q.ingests, r)
	case *answerRequest:
		q.answers = append(q.answers, r)
	case *writeRequest:
		q.writes = append(q.writes, r)
	}
}

// fail answers everybody who waits.
func (q *queue) fail(err error) {
	for _, r := range q.policies {
		r.done <- err
	}
	for _, r := range q.ingests {
		r.finish(err)
	}
	for _, r := range q.answers {
		r.done <- err
	}
	for _, r := range q.writes {
		r.done <- writeResult{err: err}
	}
	*q = queue{}
}

func (r *ingestRequest) finish(err error) {
	if r.done != nil {
		r.done <- ingestResult{r.result, err}
	}
}

// step is one turn: it takes what is ready, commits it at one go, and only then tells anybody. An error means that the
// store is as it was before the turn, and that the process must start anew.
func (s *Store) step() error {
	if len(s.queue.policies) > 0 {
		req := s.queue.policies[0]
		s.queue.policies = s.queue.policies[1:]
		return s.switchPolicy(req)
	}
	t := s.newTurn()
	defer t.view.Close()
	s.turn = t
	full := s.diskIsFull()
	ended, err := t.collect(full)
	if err != nil {
		return err
	}
	if err := t.finish(); err != nil {
		return err
	}
	if err := t.commit(); err != nil {
		return err
	}
	t.tell(ended)
	return nil
}

// ended lists the requests that this turn finishes.
type ended struct {
	ingests []*ingestRequest
	answers []*answerRequest
}

// collect does steps 1 and 2 of a turn: everything from outside first, then this host's own writes.
func (t *turn) collect(full bool) (done ended, err error) {
	if err := t.due(); err != nil {
		return done, err
	}
	if err := t.rejudge(); err != nil {
		return done, err
	}
	if done.answers, err = t.takeAnswers(full); err != nil {
		return done, err
	}
	if done.ingests, err = t.takeParcels(full); err != nil {
		return done, err
	}
	if err := t.merge(); err != nil {
		return done, err
	}
	return done, t.takeWrites(full)
}

// due touches the paths whose time has come.
func (t *turn) due() error {
	s := t.s
	if t.now-s.minute >= 60_000 {
		s.minute = t.now
		if err := t.touchOld(); err != nil {
			return err
		}
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
		if ms := int64(be.Uint64(k[1:])); ms > t.now || n >= turnPaths {
			s.wakeAt(ms)
			return false, nil
		}
		p, err := t.path(record.Tag(k[9:25]), true)
		if err != nil {
			return false, err
		}
		p.dirty = true
		t.rows.delete(k)
		t.size += 400
		n++
		return true, nil
	})
}

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

// takeParcels takes foreign blocks and entries until the turn is full.
func (t *turn) takeParcels(full bool) (done []*ingestRequest, err error) {
	q := &t.s.queue
	for len(q.ingests) > 0 {
		r := q.ingests[0]
		if full {
			r.finish(ErrDiskFull)
			q.ingests = q.ingests[1:]
			continue
		}
		for r.next < len(r.parcels) {
			if !t.fits(r.parcels[r.next]) {
				return done, nil
			}
			if err := t.parcel(r, r.parcels[r.next]); err != nil {
				return nil, err
			}
			r.next++
		}
		done = append(done, r)
		q.ingests = q.ingests[1:]
	}
	return done, nil
}

// fits tells whether the turn may take one more parcel. The first always fits.
func (t *turn) fits(p *parcel) bool {
	if len(t.foreign) == 0 && t.size == 0 {
		return true
	}
	room := turnBytes
	if len(t.s.queue.writes) > 0 {
		room /= 2 // local writes get their half of every turn
	}
	if len(t.foreign) >= turnBlocks || t.size >= room || len(t.dag.heads) >= maxHeads {
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
			if err := t.entry(e); err != nil {
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
		r.result.Missing = append(r.result.Missing, t.s.parked.roots(missing.Digests)...)
		return nil
	case err != nil && fromOutside(err):
		r.result.Invalid = fmt.Errorf("block %s: %w", p.block.Digest, err)
		return nil
	case err != nil:
		return err
	case !isNew: // known: its entries may still be news
		for _, e := range p.entries {
			if err := t.entry(e); err != nil && !fromOutside(err) {
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
	for len(q.writes) > 0 && (t.size < turnBytes || len(t.local) == 0 && len(t.foreign) == 0) {
		req := q.writes[0]
		if t.size > 0 && t.size+plannedWrite(req) > txnBytes {
			break
		}
		q.writes = q.writes[1:]
		if full {
			req.done <- writeResult{err: fmt.Errorf("%w: less than %d MiB free; free some space or lower store.min_free",
				ErrDiskFull, t.s.minFree>>20)}
			continue
		}
		if err := t.put(req); err != nil {
			if errors.Is(err, ErrCorrupt) {
				return err
			}
			req.done <- writeResult{err: err}
		}
	}
	if len(t.local) > 0 {
		return t.publish()
	}
	if len(t.dag.heads) > t.s.headLimit && t.policy.Member(t.s.self) && !full {
		return t.publishBundle(nil)
	}
	return nil
}

func plannedWrite(r *writeRequest) int {
	n := 400
	for _, e := range r.entries {
		n += 1000 + min(len(e), inlineEntry)
	}
	for i := range r.ops {
		n += 700 + len(r.ops[i].Path) + 16*record.MaxSegments/4 + min(len(r.ops[i].Value), inlineEntry)
	}
	return n
}

// diskIsFull tells whether the reserve of free disk is used up.
func (s *Store) diskIsFull() bool {
	if s.minFree == 0 {
		return false
	}
	free, ok := diskFree(s.dir)
	full := ok && free < s.minFree
	if full == s.full {
		return full
	}
	s.full = full
	if !full {
		s.alarm("disk-full", "")
	} else {
		s.alarm("disk-full", fmt.Sprintf("%d MiB free, %d MiB are kept in reserve: nothing is taken in until there is more; "+
			"free some space or lower store.min_free", free>>20, s.minFree>>20))
	}
	return full
}

// commit makes the turn real: step 4. Entries too large for it go first; their list x lets a start after a crash
// remove them again.
func (t *turn) commit() error {
	s := t.s
	s.engine.overlay.take(t.rows)
	spilled, err := t.storeSpilled()
	if err != nil {
		return err
	}
	if spilled {
		t.rows.delete(key('x'))
	}
	if err := s.kv.Commit(t.rows); err != nil {
		return err
	}
	s.unsynced = true
	_, mono := s.clock.Now()
	if len(t.local) > 0 || len(t.out) > 0 || mono-s.lastSync >= syncWithin {
		if err := s.kv.Sync(); err != nil {
			return err
		}
		s.unsynced, s.lastSync = false, mono
	}
	return nil
}

// storeSpilled stores the entries that have rows of their own, a few at a time, with a list of those that are new.
func (t *turn) storeSpilled() (bool, error) {
	if len(t.spill) == 0 {
		return false, nil
	}
	var list []byte
	for id := range t.spill {
		_, held, err := t.view.Get(entryKey(id))
		if err != nil {
			return false, err
		}
		if held {
			delete(t.spill, id)
			continue
		}
		list = append(list, id[:]...)
	}
	if len(list) == 0 {
		return false, nil
	}
	r := newRows()
	r.set(key('x'), list)
	for id, data := range t.spill {
		if r.size > turnBytes-len(data) {
			if err := t.s.kv.Commit(r); err != nil {
				return false, err
			}
			r = newRows()
		}
		r.set(entryKey(id), data)
	}
	return true, t.s.kv.Commit(r)
}

// tell is step 5: only now is anybody told.
func (t *turn) tell(done ended) {
	s := t.s
	t.dag.seal()
	s.dag.Store(t.dag)
	s.publishStats()
	for _, l := range t.local {
		l.req.done <- writeResult{version: l.version}
	}
	for _, r := range done.ingests {
		r.finish(nil)
	}
	for _, r := range done.answers {
		r.done <- r.result
	}
	if len(t.out) > 0 && s.onCommit != nil {
		s.onCommit(t.out)
	}
	if len(t.feed) > 0 {
		s.ring()
	}
	if s.wants.rung() && s.onWants != nil {
		s.onWants()
	}
}

func (s *Store) publishStats() {
	d := s.dag.Load()
	st := &Stats{
		Entries: int64(s.counters.entries), ViewDigest: s.counters.viewDigest, BlockDigest: d.digest,
		Blocks: int64(s.counters.blocks), Heads: len(d.heads), Parked: len(s.parked.blocks),
		Withheld: int64(s.counters.withheld), Unready: len(s.unready), Incarnation: s.chain.incarnation,
	}
	if p := s.Policy(); p != nil {
		st.Serial, st.PolicyHash = p.Serial(), p.Hash()
	}
	s.stats.Store(st)
}

// checkOwn is the block rule for blocks that go-ds-crdt made of our own bundles.
func (s *Store) checkOwn(b *record.Block) error {
	if b.Bundle == nil {
		if len(s.dag.Load().heads) > 0 {
			return errors.New("a second genesis block")
		}
		_, err := record.ParseGenesisBlock(b.Raw, s.network, 0)
		return err
	}
	if err := b.Verify(s.network); err != nil {
		return err
	}
	return b.CheckLinks(s.turn.header)
}

// Write stores operations as one atomic write and returns its version (index 0) once it is durable here. Errors:
// *record.PathError, ErrTooLarge, ErrNoPolicy, ErrDenied, ErrNotFound, ErrPrecondition, ErrDiskFull, ErrClosed. If ctx
// ends first the write may or may not have happened.
func (s *Store) Write(ctx context.Context, ops []Op) (record.Version, error) {
	if err := checkOps(ops); err != nil {
		return record.Version{}, err
	}
	return s.write(ctx, &writeRequest{ops: ops, done: make(chan writeResult, 1)})
}

func (s *Store) write(ctx context.Context, req *writeRequest) (record.Version, error) {
	if err := s.send(ctx, req); err != nil {
		return record.Version{}, err
	}
	r, err := await(ctx, s, req.done)
	if err != nil {
		return record.Version{}, err
	}
	return r.version, r.err
}

// checkOps holds what can be said of a write without the store.
func checkOps(ops []Op) error {
	if len(ops) == 0 {
		return fmt.Errorf("%w: a write of nothing", ErrTooLarge)
	}
	if len(ops) > record.MaxSlots {
		return fmt.Errorf("%w: %d paths in one write, the limit is %d", ErrTooLarge, len(ops), record.MaxSlots)
	}
	seen := make(map[string]bool, len(ops))
	total := 0
	for i := range ops {
		op := &ops[i]
		if err := record.CheckPath(op.Path); err != nil {
			return err
		}
		if seen[op.Path] {
			return &record.PathError{Path: op.Path, Reason: "named twice in one write"}
		}
		seen[op.Path] = true
		if len(op.Value) > record.MaxInlineValue {
			return fmt.Errorf("%w: the value of %s is %d bytes, the limit is %d", ErrTooLarge, op.Path, len(op.Value), record.MaxInlineValue)
		}
		if op.Mode > record.MaxMode {
			return fmt.Errorf("%w: mode %#o of %s, the limit is 0777", ErrTooLarge, op.Mode, op.Path)
		}
		if total += len(op.Path) + len(op.Value) + 64; total > record.MaxWriteBytes {
			return fmt.Errorf("%w: more than %d MiB in one write", ErrTooLarge, record.MaxWriteBytes>>20)
		}
	}
	return nil
}

package crdtstore

import (
	"context"
	"fmt"
	"slices"

	"syncagent/crdtstore/fault"
	"syncagent/crdtstore/record"
)

// maxBundle is how many bytes of writes go into one bundle: a block minus its links, signature and frame.
const maxBundle = record.MaxBlock - record.MaxLinks*44 - 1024

// writeRequest is a caller waiting for its write. What the rows have no say in, the caller's goroutine has done.
type writeRequest struct {
	ops    []Op
	relay  *record.Write // signed by a client, in place of ops
	made   []madeEntry   // one for each slot
	done   chan writeResult
	chunks *chunks    // where pins are held until the answer
	pins   []chunkRef // of large values
}

// madeEntry is an entry of a local write and its slot.
type madeEntry struct {
	*record.Entry
	bytes []byte
	slot  record.Slot
}

// request checks operations and makes their entries.
func (s *Store) request(ops []Op) (*writeRequest, error) {
	if err := checkOps(ops); err != nil {
		return nil, err
	}
	req := &writeRequest{ops: ops, made: make([]madeEntry, len(ops)), done: make(chan writeResult, 1)}
	for i := range ops {
		e, err := s.entry(&ops[i])
		if err != nil {
			return nil, err
		}
		req.made[i] = madeEntry{e, e.Encode(), record.Slot{Entry: e.ID(), Tags: s.network.Tags(e.Path)}}
		if u := ops[i].Upload; u != nil {
			req.pins = append(req.pins, u.pins...)
		}
	}
	return req, nil
}

// answer ends the request. Its chunks are used by slots now, or not needed.
func (r *writeRequest) answer(result writeResult) {
	if r.pins != nil {
		r.chunks.unpin(r.pins)
	}
	r.done <- result
}

type writeResult struct {
	version record.Version
	err     error
}

// localWrite is a request that was taken into the turn.
type localWrite struct {
	req     *writeRequest
	write   *record.Write
	version record.Version
	size    int // bytes in the bundle
}

// put judges a local write and takes its slots: rights and preconditions by what the agent shows at this moment, each
// request after the ones before it in the turn. A refused request leaves no trace.
func (t *turn) put(req *writeRequest) error {
	if t.policy == nil {
		return ErrNoPolicy
	}
	if f := t.policy.Format(); f > record.Format {
		return fmt.Errorf("%w: %d, and this agent writes %d", ErrFormat, f, record.Format)
	}
	if fault := t.s.clockFault.Load(); fault != nil && *fault != "" {
		return fmt.Errorf("%w: %s", ErrClock, *fault)
	}
	if req.relay != nil {
		return t.relay(req)
	}
	hlc := record.HLCFromMilli(t.now)
	rules := t.rules()
	paths := make([]*pathState, len(req.ops))
	for i := range req.ops {
		op := &req.ops[i]
		tags := req.made[i].slot.Tags
		if !t.policy.MayWrite(t.s.self, tags) {
			return fmt.Errorf("write %s: %w", op.Path, ErrDenied)
		}
		p, top, err := t.top(tags[len(tags)-1], rules)
		if err != nil {
			return err
		}
		if top != nil {
			if !fault.Planted("write-below") {
				hlc = max(hlc, top.version.HLC.Next())
			}
		}
		if p, err = t.precondition(op, p, rules); err != nil {
			return err
		}
		paths[i] = p
	}
	w := &record.Write{Author: t.s.self, HLC: hlc, Slots: make([]record.Slot, len(req.made))}
	for i := range req.made {
		w.Slots[i] = req.made[i].slot
	}
	return t.add(req, w, paths)
}

// top loads a path and gives its highest allowed and due slot.
func (t *turn) top(key record.Tag, r *rules) (*pathState, *slot, error) {
	p, err := t.path(key, false)
	if err != nil {
		return nil, nil, err
	}
	top := highest(p.slots, r)
	if !p.sees(top) {
		if p, err = t.path(key, true); err != nil {
			return nil, nil, err
		}
		top = highest(p.slots, r)
	}
	return p, top, nil
}

// highest gives the highest allowed and due slot, shown or not: a local write has to be above it (G3).
func highest(slots []*slot, r *rules) *slot {
	for _, s := range slots {
		if r.due(s.version) && r.allowed(s) {
			return s
		}
	}
	return nil
}

// precondition holds an operation against what its path shows. It gives the path's state, loaded whole if that was needed.
func (t *turn) precondition(op *Op, p *pathState, r *rules) (*pathState, error) {
	if op.IfVersion == nil && !op.MustExist {
		return p, nil
	}
	shown := resolve(p.slots, r).shown
	if !p.sees(shown) {
		var err error
		if p, err = t.path(p.key, true); err != nil {
			return nil, err
		}
		shown = resolve(p.slots, r).shown
	}
	if shown != nil {
		if err := shown.load(t.elsewhere); err != nil {
			return nil, t.damaged(err)
		}
		if !shown.visible(t.now) {
			shown = nil
		}
	}
	if op.MustExist && shown == nil {
		return nil, fmt.Errorf("%s: %w", op.Path, ErrNotFound)
	}
	if op.IfVersion == nil {
		return p, nil
	}
	want, have := *op.IfVersion, record.Version{}
	if shown != nil {
		have = shown.version
	}
	if want.Index == AnyIndex {
		want.Index = have.Index
	}
	if want != have {
		return nil, fmt.Errorf("%s: %w: it has another version on this agent", op.Path, ErrPrecondition)
	}
	return p, nil
}

// add puts the slots of a local write where they belong, all or, after an error, none.
func (t *turn) add(req *writeRequest, w *record.Write, paths []*pathState) error {
	l := &localWrite{req: req, write: w, size: w.Size()}
	if l.size > maxBundle {
		return fmt.Errorf("%w: the write is %d bytes without its values, a block holds %d; use fewer or shorter paths",
			ErrTooLarge, l.size, maxBundle)
	}
	l.version = record.Version{HLC: w.HLC, Write: w.ID()}
	t.size += l.size
	t.plan(w.Slots, func(i int) []byte { return req.made[i].bytes })
	slots := make([]*slot, len(w.Slots))
	for i := range slots {
		s := &slot{version: l.version, author: w.Author, tags: w.Slots[i].Tags, entry: w.Slots[i].Entry, own: true, changed: true}
		s.version.Index = uint16(i)
		e := &req.made[i]
		s.describe(e.Entry)
		if err := t.keep(s, e.bytes, false); err != nil {
			return err
		}
		slots[i] = s
	}
	for i, s := range slots {
		paths[i].insert(s)
	}
	t.local = append(t.local, l)
	return nil
}

// entry makes the entry for an operation.
func (s *Store) entry(op *Op) (*record.Entry, error) {
	e := &record.Entry{Kind: record.KindPut, Mode: op.Mode, Path: op.Path, Value: op.Value}
	if u := op.Upload; u != nil {
		if e.Value = u.value; u.list.Size > 0 {
			e.Kind, e.Value = record.KindChunked, u.list.Encode()
		}
	}
	if op.Delete {
		e.Kind, e.Mode, e.Value = record.KindDelete, 0, nil
	} else if !op.Expires.IsZero() {
		e.Expires = uint64(max(op.Expires.UnixMilli(), 1))
	}
	if _, err := s.rand.Read(e.Salt[:]); err != nil {
		return nil, fmt.Errorf("make salt: %w", err)
	}
	return e, nil
}

// publish packs the turn's local writes into blocks. If go-ds-crdt refuses one, which only a bug can cause, all local
// writes of the turn are taken back and fail; the rest of the turn stands.
func (t *turn) publish() error {
	rest := t.local
	for len(rest) > 0 {
		n, slots, size := 0, 0, 0
		for _, l := range rest {
			if n == record.MaxBundleWrites || n > 0 && (slots+len(l.write.Slots) > record.MaxSlots || size+l.size > maxBundle) {
				break
			}
			n, slots, size = n+1, slots+len(l.write.Slots), size+l.size
		}
		if err := t.publishBundle(rest[:n]); err != nil {
			t.s.log.Error("own block refused", "error", err)
			return t.takeBack(err)
		}
		rest = rest[n:]
	}
	return nil
}

// publishBundle signs one bundle and has go-ds-crdt link it to all heads. No writes make a merge block.
func (t *turn) publishBundle(writes []*localWrite) error {
	if t.s.renew {
		if err := t.s.newIncarnation(t.rows); err != nil {
			return err
		}
	}
	last := t.dag.chains[t.s.chain]
	b := &record.Bundle{Origin: t.s.self, Incarnation: t.s.chain.incarnation, Seq: last.seq + 1, Prev: last.last}
	var entries []record.OutgoingEntry
	for _, l := range writes {
		b.Writes = append(b.Writes, l.write)
		for i := range l.req.made {
			entries = append(entries, record.OutgoingEntry{Tags: l.write.Slots[i].Tags, Bytes: l.req.made[i].bytes})
		}
	}
	b.Sign(t.s.key, t.s.network, t.dag.sortedHeads())
	block, err := t.s.engine.put(b.Encode())
	if err != nil {
		return err
	}
	t.accept(block)
	t.out = append(t.out, record.Outgoing{Block: block.Raw, Entries: entries})
	return nil
}

// takeBack removes the turn's local writes that are in no block. Blocks that were made before the failure stay: they
// are valid, and their writes are answered as done.
func (t *turn) takeBack(cause error) error {
	done := map[record.ID]bool{}
	for _, b := range t.fresh {
		if b.Bundle != nil && b.Origin == t.s.self {
			for _, w := range b.Writes {
				done[w.ID()] = true
			}
		}
	}
	kept := t.local[:0]
	for _, l := range t.local {
		if done[l.version.Write] {
			kept = append(kept, l)
			continue
		}
		for i := range l.write.Slots {
			p := t.paths[l.write.Slots[i].PathKey()]
			for j, s := range p.slots {
				if s.version.Write == l.version.Write {
					p.slots = append(p.slots[:j], p.slots[j+1:]...)
					if err := t.letGo(p, s); err != nil {
						return err
					}
					break
				}
			}
			p.path, p.dirty = "", true
		}
		failed := writeResult{err: fmt.Errorf("store the write: %w", cause)}
		l.req.answer(failed)
		t.repeats = slices.DeleteFunc(t.repeats, func(r repeat) bool {
			same := r.version.Write == l.version.Write
			if same {
				r.req.answer(failed)
			}
			return same
		})
	}
	t.local = kept
	return nil
}

// Write stores operations as one atomic write and returns its version (index 0) once it is durable here. Errors:
// *record.PathError, ErrTooLarge, ErrNoPolicy, ErrFormat, ErrDenied, ErrNotFound, ErrPrecondition, ErrDiskFull, ErrClosed. If ctx
// ends first the write may or may not have happened.
func (s *Store) Write(ctx context.Context, ops []Op) (record.Version, error) {
	req, err := s.request(ops)
	if err != nil {
		return record.Version{}, err
	}
	return s.write(ctx, req)
}

// write has the owner take a request. The owner keeps its pins: it may take it although the caller has given up.
func (s *Store) write(ctx context.Context, req *writeRequest) (record.Version, error) {
	req.chunks = s.chunks
	s.chunks.pin(req.pins)
	if err := s.send(ctx, req); err != nil {
		s.chunks.unpin(req.pins)
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
		if op.Upload != nil && op.Upload.path != op.Path {
			return &record.PathError{Path: op.Path, Reason: "the value was uploaded for another path"}
		}
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

package crdtstore

import (
	"context"
	"fmt"

	"syncagent/crdtstore/record"
)

// Relay publishes a write that a client signed with its own key, with its entries in the order of its slots, and
// returns its version once it is durable here. This agent cannot change it: the signature covers everything. Errors are
// those of Write; ErrDenied judges the author, not this agent; ErrPrecondition means that the write would not win over
// what this agent shows, or is dated too far ahead: ask HLCFor and sign again. A write that is held already is a
// success. The chunks of large values must be here, held by Uploads.
func (s *Store) Relay(ctx context.Context, w *record.Write, entries [][]byte) (record.Version, error) {
	req, err := s.relayRequest(w, entries)
	if err != nil {
		return record.Version{}, err
	}
	return s.write(ctx, req)
}

// relayRequest holds what can be said of a client's write without the rows.
func (s *Store) relayRequest(w *record.Write, entries [][]byte) (*writeRequest, error) {
	bad := func(format string, args ...any) (*writeRequest, error) {
		return nil, fmt.Errorf("%w: %s", record.ErrFormat, fmt.Sprintf(format, args...))
	}
	// What goes into a block must parse there.
	if parsed, err := record.ParseWrite(w.Append(nil), s.self); err != nil {
		return nil, err
	} else if parsed.Sig == nil || !parsed.Verify(s.network) {
		return bad("the author's signature does not fit")
	}
	if len(entries) != len(w.Slots) {
		return bad("%d entries for %d slots", len(entries), len(w.Slots))
	}
	req, total := &writeRequest{relay: w, made: make([]madeEntry, len(entries)), done: make(chan writeResult, 1)}, 0
	for i, data := range entries {
		e, err := record.ParseEntry(data)
		if err != nil {
			return nil, err
		}
		if e.ID() != w.Slots[i].Entry || !w.Slots[i].Matches(s.network, e.Path) {
			return bad("entry %d does not belong to its slot", i)
		}
		if total += len(data); total > record.MaxWriteBytes {
			return nil, fmt.Errorf("%w: more than %d MiB in one write", ErrTooLarge, record.MaxWriteBytes>>20)
		}
		l, _ := e.Chunks()
		refs := refsOf(w.Slots[i].PathKey(), l.Chunks)
		for _, ref := range refs {
			if !s.chunks.has(ref) {
				return bad("chunk %s of entry %d is not here", ref.id, i)
			}
		}
		req.pins = append(req.pins, refs...)
		req.made[i] = madeEntry{e, data, w.Slots[i]}
	}
	return req, nil
}

// HLCFor gives the time to sign a write of these paths with: above everything that this agent knows of them.
func (s *Store) HLCFor(paths []string) (record.HLC, error) {
	n, err := s.Snapshot()
	if err != nil {
		return 0, err
	}
	defer n.Close()
	hlc := record.HLCFromMilli(n.now)
	for _, path := range paths {
		slots, err := n.slots(s.network.PathKey(path))
		if err != nil {
			return 0, err
		}
		if top := highest(slots, n.rules()); top != nil {
			hlc = max(hlc, top.version.HLC.Next())
		}
	}
	return hlc, nil
}

// repeat is a request to publish a write that is held: a success as soon as that is durable.
type repeat struct {
	req     *writeRequest
	version record.Version
}

// relay judges a client's write and takes it into the turn.
func (t *turn) relay(req *writeRequest) error {
	w := req.relay
	version := record.Version{HLC: w.HLC, Write: w.ID()}
	if held, err := t.hasSlot(w.Slots[0].PathKey(), version); err != nil {
		return err
	} else if held {
		return t.repeat(req, version)
	}
	rules := t.rules()
	if !rules.due(version) {
		return fmt.Errorf("%w: the write is dated more than %s ahead of this agent; sign it again", ErrPrecondition, dueAhead)
	}
	paths := make([]*pathState, len(w.Slots))
	for i := range w.Slots {
		version.Index = uint16(i)
		if !t.policy.MayWrite(w.Author, w.Slots[i].Tags) || !t.policy.Allowed(w.Author, w.Slots[i].Tags, version) {
			return fmt.Errorf("write by %s: %w", w.Author, ErrDenied)
		}
		p, top, err := t.top(w.Slots[i].PathKey(), rules)
		if err != nil {
			return err
		}
		if top != nil && top.version.Compare(version) > 0 {
			return fmt.Errorf("%w: this agent knows a newer version of a path of the write; sign it again", ErrPrecondition)
		}
		paths[i] = p
	}
	return t.add(req, w, paths)
}

// repeat answers for a write that is held already. Its block may have come in this turn, or in one that is not synced yet,
// and without entries: they were on their way, or this agent may not read them. Whoever is told that the write is here
// relies on it, so what the client brings is kept like that of any relay.
func (t *turn) repeat(req *writeRequest, version record.Version) error {
	slots := req.relay.Slots
	t.plan(slots, func(i int) []byte { return req.made[i].bytes })
	for i := range slots {
		v := version
		v.Index = uint16(i)
		p, s, err := t.slot(slots[i].PathKey(), v)
		if err != nil {
			return err
		}
		if s == nil || s.has() || !t.policy.Allowed(s.author, s.tags, v) {
			continue // what does not count any more is not to be kept
		}
		s.own, p.dirty = true, true
		s.describe(req.made[i].Entry)
		if err := t.keep(s, req.made[i].bytes, false); err != nil {
			return err
		}
	}
	t.repeats = append(t.repeats, repeat{req, version})
	return nil
}

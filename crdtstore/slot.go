package crdtstore

import (
	"fmt"

	"syncagent/crdtstore/record"
)

// slotState says what is held of a slot's entry.
type slotState uint8

const (
	slotAbsent    slotState = iota // not held
	slotHeld                       // entry in the slot's row
	slotElsewhere                  // entry in a row of its own
	slotStub                       // expired: the stub is in the slot's row
	slotVoid                       // the entry's path does not give the slot's tags: never shown
)

// ownFlag marks, beside the state, a slot that this agent made or relayed: it keeps the entry even without the right
// to read it, so that others can have it.
const ownFlag = 0x80

// slot is one row s: a place in a held write.
type slot struct {
	version record.Version
	author  record.PublicKey
	tags    []record.Tag
	entry   record.ID
	state   slotState
	own     bool
	data    []byte // the entry's or stub's bytes, for held and stub, when loaded or new

	// What the entry says, when something of it is held.
	known   bool
	path    string
	kind    record.Kind
	mode    uint16
	expires uint64
	size    int64

	changed bool // must be written at the end of the turn
}

// holds tells whether the entry, or what is left of it, is here.
func (s *slot) holds() bool {
	return s.state == slotHeld || s.state == slotElsewhere || s.state == slotStub
}

// visible tells whether a path that shows this slot has something to show at time ms.
func (s *slot) visible(ms int64) bool {
	return s.kind != record.KindDelete && (s.expires == 0 || int64(s.expires) > ms)
}

// describe notes what the entry says.
func (s *slot) describe(e *record.Entry, size int64) {
	s.known, s.path, s.kind, s.mode, s.expires, s.size = true, e.Path, e.Kind, e.Mode, e.Expires, size
}

// drop forgets the entry.
func (s *slot) drop() {
	s.state, s.data, s.known, s.changed = slotAbsent, nil, false, true
}

// slotHead is the length of what stands before the tags in a row s.
const slotHead = 32 + 32 + 1 + 1

// encode gives the row's value: author entry state depth tags-but-the-last data. The last tag is in the key.
func (s *slot) encode() []byte {
	b := make([]byte, 0, slotHead+16*len(s.tags)+len(s.data))
	b = append(b, s.author[:]...)
	b = append(b, s.entry[:]...)
	state := byte(s.state)
	if s.own {
		state |= ownFlag
	}
	b = append(b, state, byte(len(s.tags)))
	for _, t := range s.tags[:len(s.tags)-1] {
		b = append(b, t[:]...)
	}
	return append(b, s.data...)
}

// decodeSlot reads a row s. Data shares memory with value.
func decodeSlot(path record.Tag, v record.Version, value []byte) (*slot, error) {
	if len(value) < slotHead {
		return nil, fmt.Errorf("%w: slot row of %d bytes", ErrCorrupt, len(value))
	}
	s := &slot{version: v}
	copy(s.author[:], value)
	copy(s.entry[:], value[32:])
	s.state, s.own = slotState(value[64]&^ownFlag), value[64]&ownFlag != 0
	depth := int(value[65])
	if depth < 1 || depth > record.MaxSegments || len(value) < slotHead+16*(depth-1) || s.state > slotVoid {
		return nil, fmt.Errorf("%w: slot row", ErrCorrupt)
	}
	s.tags = make([]record.Tag, depth)
	rest := value[slotHead:]
	for i := range depth - 1 {
		copy(s.tags[i][:], rest[16*i:])
	}
	s.tags[depth-1] = path
	s.data = rest[16*(depth-1):]
	return s, nil
}

// load reads what the entry says. Data must be there for held and stub; elsewhere is the entry's own row.
func (s *slot) load(elsewhere func(record.ID) ([]byte, error)) error {
	if s.known || !s.holds() {
		return nil
	}
	data := s.data
	if s.state == slotElsewhere {
		var err error
		if data, err = elsewhere(s.entry); err != nil {
			return err
		}
	}
	if s.state == slotStub {
		e, size, _, err := record.ParseStub(data)
		if err != nil {
			return fmt.Errorf("%w: stub of slot %s: %w", ErrCorrupt, s.version, err)
		}
		s.describe(e, int64(size))
		return nil
	}
	e, err := record.ParseEntry(data)
	if err != nil {
		return fmt.Errorf("%w: entry of slot %s: %w", ErrCorrupt, s.version, err)
	}
	s.describe(e, e.Size())
	return nil
}

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

// Flags beside the state in a row s.
const (
	ownFlag     = 0x80
	chunkedFlag = 0x40
	lackingFlag = 0x20
	tornFlag    = 0x10
	stateBits   = 0x0f
)

// slot is one row s: a place in a held write.
type slot struct {
	version record.Version
	author  record.PublicKey
	tags    []record.Tag
	entry   record.ID
	state   slotState
	// own marks a slot that this agent made or relayed: it keeps the entry even without the right to read it, so that
	// others can have it.
	own bool
	// chunked says that the entry is here and its value lies in chunks; lacking that not all of them came yet, so that
	// the slot is not held; torn that some were lost after they had come: it stays shown, and they are fetched again.
	chunked, lacking, torn bool

	data []byte // the entry's or stub's bytes, for held and stub, when loaded or new

	// What the entry says, when something of it is held.
	known   bool
	path    string
	kind    record.Kind
	expires uint64
	chunks  []record.ID // of the value, nil if it is not chunked

	changed bool // must be written at the end of the turn
	counted bool // the row before this turn had a chunked value
}

// has tells whether the entry, or what is left of it, is here.
func (s *slot) has() bool {
	return s.state == slotHeld || s.state == slotElsewhere || s.state == slotStub
}

// holds tells whether the entry is here with all its chunks, or what is left of it.
func (s *slot) holds() bool { return s.has() && !s.lacking }

// over tells whether the entry has expired at time ms: then nobody needs its value.
func (s *slot) over(ms int64) bool { return s.known && s.expires != 0 && int64(s.expires) <= ms }

// visible tells whether a path that shows this slot has something to show at time ms.
func (s *slot) visible(ms int64) bool {
	return s.kind != record.KindDelete && (s.expires == 0 || int64(s.expires) > ms)
}

// describe notes what the entry says. A stub has no value, and so no chunks.
func (s *slot) describe(e *record.Entry) {
	s.known, s.path, s.kind, s.expires = true, e.Path, e.Kind, e.Expires
	if l, ok := e.Chunks(); ok {
		s.chunks, s.chunked = l.Chunks, true
	}
}

// drop forgets the entry.
func (s *slot) drop() {
	s.state, s.data, s.known, s.changed = slotAbsent, nil, false, true
	s.unchunk()
}

// unchunk forgets the value in chunks. Which chunks they were stays known until the turn has counted them off.
func (s *slot) unchunk() { s.chunked, s.lacking, s.torn = false, false, false }

// slotHead is the length of what stands before the tags in a row s.
const slotHead = 32 + 32 + 1 + 1

// encode gives the row's value: author entry state depth tags-but-the-last data. The last tag is in the key.
func (s *slot) encode() []byte {
	b := make([]byte, 0, slotHead+16*len(s.tags)+len(s.data))
	b = append(b, s.author[:]...)
	b = append(b, s.entry[:]...)
	state := byte(s.state) | bit(s.own, ownFlag) | bit(s.chunked, chunkedFlag) | bit(s.lacking, lackingFlag) | bit(s.torn, tornFlag)
	b = append(b, state, byte(len(s.tags)))
	for _, t := range s.tags[:len(s.tags)-1] {
		b = append(b, t[:]...)
	}
	return append(b, s.data...)
}

func bit(on bool, b byte) byte {
	if on {
		return b
	}
	return 0
}

// decodeSlot reads a row s. Data shares memory with value.
func decodeSlot(path record.Tag, v record.Version, value []byte) (*slot, error) {
	if len(value) < slotHead {
		return nil, fmt.Errorf("%w: slot row of %d bytes", ErrCorrupt, len(value))
	}
	s := &slot{version: v}
	copy(s.author[:], value)
	copy(s.entry[:], value[32:])
	flags := value[64]
	s.state, s.own = slotState(flags&stateBits), flags&ownFlag != 0
	s.chunked, s.lacking, s.torn = flags&chunkedFlag != 0, flags&lackingFlag != 0, flags&tornFlag != 0
	s.counted = s.chunked
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
	if s.known || !s.has() {
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
		e, _, _, err := record.ParseStub(data)
		if err != nil {
			return fmt.Errorf("%w: stub of slot %s: %w", ErrCorrupt, s.version, err)
		}
		s.describe(e)
		return nil
	}
	e, err := record.ParseEntry(data)
	if err != nil {
		return fmt.Errorf("%w: entry of slot %s: %w", ErrCorrupt, s.version, err)
	}
	s.describe(e)
	return nil
}

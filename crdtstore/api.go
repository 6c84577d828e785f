package crdtstore

import (
	"errors"
	"time"

	"syncagent/crdtstore/record"
)

// Errors that callers tell apart. They come wrapped, with what and where.
var (
	ErrNotFound     = errors.New("not found")
	ErrDenied       = errors.New("denied by the policy")
	ErrNoPolicy     = errors.New("no policy yet")
	ErrPrecondition = errors.New("precondition failed")
	ErrTooLarge     = errors.New("over a limit")
	ErrClock        = errors.New("clock is off")
	ErrDiskFull     = errors.New("disk is nearly full")
	ErrLocked       = errors.New("data directory is in use by another process")
	ErrCorrupt      = errors.New("stored data is damaged")
	ErrVersion      = errors.New("store of an unknown version")
	ErrNetwork      = errors.New("data directory belongs to another network")
	ErrFormat       = errors.New("the policy asks for a newer format")
	ErrClosed       = errors.New("store is closed")
	ErrBadCursor    = errors.New("bad cursor")
)

// Op is one change of a write.
type Op struct {
	Path    string
	Delete  bool
	Value   []byte  // at most record.MaxInlineValue bytes
	Upload  *Upload // in place of Value: of any size; not to be closed before Write returned
	Mode    uint16  // permission bits, 0 means the mirror's default
	Expires time.Time
	// IfVersion, when not nil, must be the version this agent shows for the path; the zero version means "not there".
	// An index of AnyIndex matches any slot of the write.
	IfVersion *record.Version
	// MustExist refuses the write with ErrNotFound when this agent shows nothing at the path.
	MustExist bool
}

// AnyIndex stands for "any index" in Op.IfVersion.
const AnyIndex = 0xffff

// Item is one path as this agent shows it.
type Item struct {
	Path    string
	Version record.Version
	Author  record.PublicKey
	Mode    uint16
	Expires time.Time // zero: never
	Size    int64     // bytes
	Entry   record.ID
	Deleted bool   // only in events and history
	Value   []byte // nil unless asked for, and for a large value
	// Chunks are those of a large value, whether or not values were asked for. Store.Content reads it.
	Chunks []record.ID
}

// EventType says what a watch event tells.
type EventType uint8

// The types of watch events.
const (
	EventPut    EventType = iota + 1 // Item is shown now
	EventDelete                      // the path is gone: deleted, expired, or no longer readable or allowed
	EventSynced                      // the present state is complete
	EventReset                       // the cursor is of no use: forget what you have, the present state follows
	EventPolicy                      // a policy came into force
)

// Event is one message of a watch.
type Event struct {
	Type   EventType
	Cursor string // resume after this event with it; opaque
	More   bool   // further events of the same write follow; act when it is false
	Item   Item
}

// Stats is a reading of the store's counters.
type Stats struct {
	Entries     int64 // visible
	ViewDigest  [32]byte
	BlockDigest [32]byte
	Blocks      int64
	Heads       int
	Judging     bool  // the view is being put right after a policy change
	Unready     int   // writes of which entries are still missing
	Parked      int   // blocks waiting for blocks that they name
	Missing     int   // entries this agent may read, wants and lacks
	Withheld    int64 // slots it may not read
	Serial      uint64
	PolicyHash  [32]byte
	DiskFree    uint64 // bytes
	AgentTime   time.Time
	Incarnation uint64
}

package crdtstore

import "fmt"

// kv is the disk as the store sees it: ordered rows, consistent views, one atomic commit. It is a seam for tests;
// badgerKV is the real one.
type kv interface {
	// View gives a consistent state of all rows. It must be closed.
	View() view
	// Commit applies all rows or none. It need not be durable before Sync.
	Commit(*rows) error
	// Sync makes everything committed so far survive a power cut.
	Sync() error
	// Verify reads all that lies on the disk and gives an error that wraps ErrCorrupt if some of it is not what was
	// written.
	Verify() error
	Close() error
}

// view is one state of the rows. Not safe for concurrent use.
type view interface {
	// Get gives a copy of a row's value; ok is false if there is no such row.
	Get(key []byte) (value []byte, ok bool, err error)
	// Scan calls fn for the rows with this prefix from key start on (inclusive), ascending, or descending with down;
	// start nil means from the first (last). Key and value are valid during the call only. It ends when fn says false.
	Scan(prefix, start []byte, down bool, fn func(key, value []byte) (bool, error)) error
	Close()
}

// rows is a set of changes for one commit. A later change of a key replaces an earlier one.
type rows struct {
	m    map[string][]byte // nil deletes
	size int               // bytes of keys and values, counting replaced ones too
}

func newRows() *rows { return &rows{m: make(map[string][]byte)} }

func (r *rows) set(key, value []byte) {
	if value == nil {
		value = []byte{}
	}
	r.m[string(key)] = value
	r.size += len(key) + len(value)
}

func (r *rows) delete(key []byte) {
	r.m[string(key)] = nil
	r.size += len(key)
}

func (r *rows) empty() bool { return len(r.m) == 0 }

// mustGet is Get for a row that has to be there.
func mustGet(v view, key []byte) ([]byte, error) {
	value, ok, err := v.Get(key)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fmt.Errorf("%w: row %q is missing", ErrCorrupt, key[:1])
	}
	return value, nil
}

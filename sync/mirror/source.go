package mirror

import (
	"context"
	"errors"
	"io"
	"time"

	"syncagent/crdtstore/record"
)

// File is one path as the source shows it, without its content.
type File struct {
	Path    string
	Version record.Version
	Mode    uint16    // permission bits; 0 means the mirror's default
	Size    int64     // bytes
	Expires time.Time // zero: never
}

// Change is one message of a watch: the path is shown with a new version, or gone.
type Change struct {
	File
	Deleted bool
	More    bool // further changes of the same write follow; nothing is done before the last of them has come
}

// ErrReset is returned, perhaps wrapped, by Source.Watch when the cursor is of no use any more. The mirror lists again.
var ErrReset = errors.New("cursor is of no use, list again")

// Source is where a mirror's data come from: the store of an agent, or its API. Implementations are safe for concurrent
// use. Prefixes are clean (record.CleanPrefix) and cover the path itself and all below.
type Source interface {
	// List calls fn for every path under prefix, in any order, all of one state, and gives the cursor of that state.
	// An error of fn ends it and is returned. What is not listed is removed from the directory: a source that does not
	// have its data yet must return an error, never a part.
	List(ctx context.Context, prefix string, fn func(File) error) (cursor string, err error)

	// Fetch calls fn, one call at a time, for each of the paths that is there, in any order, with its present version
	// and its content, all of one state if it can. Paths that are gone are left out. The reader is used before fn
	// returns. What is wrong with one path alone is an error of its reader; an error of fn ends Fetch and is returned.
	// A call names at most 1,024 paths more than one write has.
	Fetch(ctx context.Context, paths []string, fn func(File, io.Reader) error) error

	// Unknown gives those of the paths of which the source has never heard of this version, or of a later one. It is
	// behind there: what it does not list may only be late.
	Unknown(ctx context.Context, versions map[string]record.Version) (map[string]struct{}, error)

	// Watch calls fn, one call at a time, for every change under prefix after the cursor, until ctx ends, fn fails or
	// the source does. It misses nothing, or else returns ErrReset.
	Watch(ctx context.Context, prefix, cursor string, fn func(Change) error) error
}

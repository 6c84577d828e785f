package mirror

import (
	"context"
	"errors"
	"io"
	"time"

	"syncagent/crdtstore/record"
)

// Mode is the direction of a mirror.
type Mode string

// The modes. In ModeBoth the later of two edits wins, by the modification time of the file and the clock of the source;
// the other one stays in the history of the path. An edit beats a removal.
const (
	ModePull Mode = "pull" // the directory follows the source
	ModePush Mode = "push" // the source follows the directory; only what the mirror put is ever deleted
	ModeBoth Mode = "both"
)

// Edit is one change that a mirror makes in its source.
type Edit struct {
	Path    string
	Delete  bool
	Value   []byte
	Content io.Reader      // in place of Value, if that has more than 256 KiB: such an edit comes alone, and is read once
	Mode    uint16         // permission bits, 0 for none
	Expires time.Time      // zero: never
	Shown   record.Version // what the source must show at the path; zero: nothing
}

// Errors of Sink.Write that concern one of the edits; any other is repeated later.
var (
	ErrConflict = errors.New("the source shows another version") // its change is on the way
	ErrRefused  = errors.New("the source refuses the path")      // denied, too large, no path
)

// Sink is a Source that can be written.
type Sink interface {
	// Write makes all edits as one atomic, durable write, or none of them. It gives the version of the first edit; the
	// others differ in the index, which counts up. A call has at most 1,000 edits and 8 MiB of values more than one.
	Write(ctx context.Context, edits []Edit) (record.Version, error)
}

package agent

import (
	"context"
	"io"
	"time"

	"syncagent/acl"
	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore"
	"syncagent/crdtstore/record"
	"syncagent/p2p"
)

// store is what the API needs of crdtstore.Store. All methods are safe for concurrent use.
type store interface {
	// Write makes the operations durable as one atomic write.
	Write(ctx context.Context, ops []crdtstore.Op) (record.Version, error)
	// Relay makes a write that a client signed durable; HLCFor gives the time to sign it with.
	Relay(ctx context.Context, w *record.Write, entries [][]byte) (record.Version, error)
	HLCFor(paths []string) (record.HLC, error)
	// Upload stores a large value for a write; Reuse takes that of an earlier version. What they give must be closed.
	Upload(ctx context.Context, path string, r io.Reader) (*crdtstore.Upload, error)
	Reuse(i *crdtstore.Item) (*crdtstore.Upload, error)
	// Content reads the value of an item of any size that was got with its value.
	Content(i *crdtstore.Item) io.ReadCloser
	// Snapshot opens one state of the store for reading; it must be closed.
	Snapshot() (snapshot, error)
	// Watch calls fn for every event until ctx ends or fn fails. A slow fn delays nobody else.
	Watch(ctx context.Context, o watchOptions, fn func(crdtstore.Event) error) error
	// SetPolicy takes a signed text and returns when it is in force, or why it is not.
	SetPolicy(ctx context.Context, signed []byte) error
	// Policy judges by the text in force; nil if there is none yet.
	Policy() policy
	// PolicyText is the signed text in force.
	PolicyText() []byte
	// PolicyTaken tells when a kept text came, by the hash of it; the zero time if that is not known.
	PolicyTaken(hash [32]byte) time.Time
	// RequestScrub has the next start rewrite the store; ResetClock sets agent time back to the host's.
	RequestScrub() error
	ResetClock(ctx context.Context) (back time.Duration, err error)
	// Policies are the signed texts that are kept, the one in force first.
	Policies() [][]byte
	Stats() crdtstore.Stats
	// Backup writes the state of this moment to w, without the entries that reader may not read.
	Backup(ctx context.Context, reader record.PublicKey, head crdtstore.BackupHead, w io.Writer, progress func(done, total int64)) (crdtstore.BackupHead, error)
}

// watchOptions says what to watch.
type watchOptions struct {
	prefixes []string
	since    string
	values   bool
	durable  bool                // tell only what survives a power cut
	reached  func(number uint64) // may be nil: told when everything up to a snapshot with this number is through
}

// snapshot is one state of the store. It is used by one goroutine.
type snapshot interface {
	Get(path string, value bool) (crdtstore.Item, error)
	List(prefix string, values bool, fn func(crdtstore.Item) error) error
	Count(prefix string) (int64, error)
	// History gives the known versions of a path, newest first. Size is -1 where the content is no longer held.
	History(path string, values bool) ([]crdtstore.Item, error)
	// Holds tells whether the write of a version is here and ready; the tag is the path key of its slot.
	Holds(k record.Tag, v record.Version) (bool, error)
	// Shown gives the version that decides what a path shows, zero if there is none; not visible: it is that of a delete.
	Shown(path string) (v record.Version, visible bool, err error)
	// Preview tells what another policy would change, Written what one key wrote.
	Preview(ctx context.Context, next *acl.Policy, fn func(crdtstore.PathChange) error) error
	Written(ctx context.Context, author record.PublicKey, since record.HLC, fn func(item crdtstore.Item, shown bool) error) error
	// Recent gives the last changes, newest first, without values.
	Recent(limit int) ([]crdtstore.Event, error)
	Cursor() string
	Number() uint64 // for watchOptions.reached
	Close()
}

// policy is what the API asks of acl.Policy.
type policy interface {
	MayReadPath(k record.PublicKey, path string) bool
	MayWritePath(k record.PublicKey, path string) bool
	MaySubjectRead(subject, path string) bool
	Known(k record.PublicKey) bool
	Live(k record.PublicKey) bool
	Alias(k record.PublicKey) string
	KeyOf(alias string) (record.PublicKey, bool)
	Serial() uint64
	Hash() [32]byte
}

// network is what the API needs of p2p.Node.
type network interface {
	Peers() []*apiv1.Peer
	Pause()
	Resume()
	Paused() bool
	Addrs() []string
	// Compare compares what both sides show and may read.
	Compare(ctx context.Context, peer record.PublicKey) (p2p.Comparison, error)
	// Follow asks a peer how far it is until all is at the stage, something holds it up, or ctx ends.
	Follow(ctx context.Context, peer record.PublicKey, of []p2p.Placed, want p2p.Stage) (p2p.Progress, error)
}

// mirrorState tells about the mirrors of the configuration.
type mirrorState interface {
	Status() ([]*apiv1.Mirror, []*apiv1.Trigger)
	// Confirm agrees to the removals that a mirror holds and gives their number.
	Confirm(name string) (removals int, err error)
	// Progress tells how far they are with a path that shows a version, which is a delete's if it is not visible.
	Progress(placed p2p.Placed, shown record.Version, visible bool) mirrorProgress
}

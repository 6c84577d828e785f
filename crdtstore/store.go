package crdtstore

import (
	"cmp"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"syncagent/acl"
	"syncagent/crdtstore/fault"
	"syncagent/crdtstore/record"
)

// Options say how to open a store. Zero values of the optional fields are fine.
type Options struct {
	Dir     string // data directory; the rows lie in Dir/store, large values in Dir/chunks
	Network record.NetworkID
	Key     ed25519.PrivateKey // this agent's identity
	Admins  []record.PublicKey // pinned: whose policies count

	// MinSerial and MinHash are the policy that was in force when this host joined: older ones never come into force
	// here. Optional.
	MinSerial uint64
	MinHash   [32]byte

	History time.Duration // optional: keep superseded entries longer than 7 days
	MinFree uint64        // optional: bytes of free disk below which writes are refused
	// PeerOrigins is how many chains of blocks each peer may open at once: origins and incarnations, and branches of
	// them; within an hour it may so again. Optional; 0: no limit.
	PeerOrigins int

	Clock Clock        // optional
	Rand  io.Reader    // optional: salts, incarnations
	Log   *slog.Logger // optional

	// Callbacks. They are called between two turns, so they must not block and not call back.
	OnCommit  func([]record.Outgoing)    // optional: own blocks that are durable
	OnPolicy  func()                     // optional: another policy came into force
	OnForeign func(age time.Duration)    // optional: a block of another agent was committed; age is since its first write, by both clocks
	OnWants   func()                     // optional: entries are wanted that were not wanted before
	Alarm     func(code, message string) // optional: something an operator must know

	kv        kv         // tests put theirs here
	chunks    chunkFiles // with it
	feedBytes uint64     // and a smaller feed
	window    int        // and smaller windows of paths
	pathBytes int        // and fewer of them in memory
	turnRows  int        // and smaller turns
}

// Store is one agent's replica: blocks, entries, and the view of them. Run must be running for anything to be written;
// reads work from Open to Close. All methods are safe for concurrent use.
type Store struct {
	network   record.NetworkID
	key       ed25519.PrivateKey
	self      record.PublicKey
	admins    []record.PublicKey
	feedMax   uint64 // bytes of the change feed
	window    int    // slots of a path, see pathWindow
	turnRows  int
	floor     *acl.Signed // no older policy comes into force
	history   time.Duration
	dir       string
	minFree   uint64
	clock     Clock
	rand      io.Reader
	log       *slog.Logger
	onCommit  func([]record.Outgoing)
	onPolicy  func()
	onForeign func(time.Duration)
	onWants   func()
	alarmFn   func(code, message string)

	lock   *os.File // of the data directory; nil for rows in memory
	kv     kv
	engine *engine
	run    uint64 // names this run in the change feed

	inbox   chan any // *writeRequest, *ingestRequest, *answerRequest, *policyRequest, *chunkNews
	stopped chan struct{}

	// Memory of the goroutine that owns the store.
	chain      chainID // own origin and incarnation
	renew      bool    // take a new incarnation before the next own block
	opened     int64   // agent time
	counters   counters
	index      *pathIndex
	paths      *pathCache
	headers    *lru.Cache[record.Digest, record.Header]
	aside      map[record.Digest]bool // blocks that go-ds-crdt did not take, in an earlier run
	parked     *parking
	early      *earlyEntries
	unready    map[record.ID]*unreadyWrite
	unreadyAt  map[record.Tag]map[record.ID]bool
	texts      []*acl.Signed
	rowsBy     []*acl.Policy // by which the rows may be while they are being put right; none: not known
	queue      queue
	wake       int64     // agent time at which a row t falls due, 0: none known
	minute     int64     // agent time of the last look at old unready writes
	headLimit  int       // heads above which a merge block is made; random per agent
	last       *dagState // after the last turn, told or not
	unsynced   bool
	lastSync   time.Duration
	pace       pace
	made       int          // local writes of the last turn
	share      int          // small foreign blocks that it could have taken of one peer
	passedOver bool         // the next local write did not fit beside what came from outside
	postponed  []record.Tag // paths of writes that are ready, but did not fit into the turn
	turn       *turn
	full       bool              // the reserve of free disk is used up
	carried    map[chunkRef]bool // chunks that are here while a store is built of a damaged one or a backup, else nil

	// Shared with the goroutine that concludes turns.
	openMu     sync.Mutex
	open       []*openTurn   // committed, not told yet
	left       chan struct{} // rung when there are some
	syncing    atomic.Int32  // how many of them go to disk
	told       chan struct{} // rung when there are none of those any more
	concluding sync.Mutex

	// Shared with readers.
	force      atomic.Pointer[inForce]
	dag        atomic.Pointer[dagState]
	stats      atomic.Pointer[Stats]
	wants      *wants
	chunks     *chunks
	uploads    chan struct{} // tokens
	storing    chan struct{} // tokens
	allowances allowances
	maxValue   atomic.Int64
	clockMu    sync.Mutex
	time       int64 // agent time, Unix milliseconds
	mono       time.Duration
	clockFault atomic.Pointer[string]
	committed  atomic.Uint64 // last number of the change feed that is committed
	syncMu     sync.Mutex
	synced     atomic.Uint64 // and that is known to be synced
	hopeless   atomic.Bool   // some value is, and an alarm says so
	bellMu     sync.Mutex
	bells      map[chan struct{}]struct{}
}

// Open opens the store in o.Dir, or makes it. It fails with ErrLocked, ErrNetwork or ErrCorrupt, wrapped.
func Open(o Options) (*Store, error) {
	s := &Store{
		network: o.Network, key: o.Key, self: record.KeyOf(o.Key), admins: o.Admins, history: max(o.History, horizon),
		dir: o.Dir, minFree: o.MinFree, clock: o.Clock, rand: o.Rand, log: o.Log, onCommit: o.OnCommit,
		onPolicy: o.OnPolicy, onForeign: o.OnForeign, onWants: o.OnWants, alarmFn: o.Alarm, kv: o.kv,
		feedMax: cmp.Or(o.feedBytes, feedBytesKept), window: cmp.Or(o.window, pathWindow), turnRows: cmp.Or(o.turnRows, turnRows),
		floor: &acl.Signed{Serial: o.MinSerial, Hash: o.MinHash},
		inbox: make(chan any, 256), stopped: make(chan struct{}), left: make(chan struct{}, 1), told: make(chan struct{}, 1),
		index: newPathIndex(), share: turnShare, parked: newParking(), early: newEarlyEntries(), wants: newWants(),
		unready: make(map[record.ID]*unreadyWrite), unreadyAt: make(map[record.Tag]map[record.ID]bool),
		bells: make(map[chan struct{}]struct{}), uploads: make(chan struct{}, uploadsAtOnce), storing: make(chan struct{}, chunksAtOnce),
	}
	if o.chunks == nil {
		o.chunks = newChunkDir(filepath.Join(o.Dir, "chunks"))
	}
	s.chunks = newChunks(o.chunks)
	s.allowances.set(o.PeerOrigins)
	s.LimitValues(defaultMaxValue)
	if s.clock == nil {
		s.clock = systemClock{time.Now()}
	}
	if s.rand == nil {
		s.rand = rand.Reader
	} else {
		s.rand = &sharedReader{r: s.rand}
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	var err error
	if s.headers, err = lru.New[record.Digest, record.Header](4096); err != nil {
		return nil, err
	}
	if s.paths, err = newPathCache(cmp.Or(o.pathBytes, pathBytes)); err != nil {
		return nil, err
	}
	if err := s.openAll(); err != nil {
		return nil, errors.Join(err, s.unlock())
	}
	return s, nil
}

// openAll reads the rows and the chunks. After an error nothing is open, but the directory may be locked.
func (s *Store) openAll() error {
	if s.kv == nil {
		var err error
		if s.lock, err = lockDir(s.dir); err != nil {
			return err
		}
		if err := os.RemoveAll(filepath.Join(s.dir, restoring)); err != nil { // of a restore that was cut off
			return fmt.Errorf("open store: %w", err)
		}
		if free, ok := diskFree(s.dir); ok && s.minFree > 0 && free < s.minFree/4 {
			return fmt.Errorf("open store %s: %w: %d MiB free, %d MiB wanted", s.dir, ErrDiskFull, free>>20, s.minFree>>20)
		}
		if err := s.openDir(filepath.Join(s.dir, "store")); err != nil {
			return err
		}
	} else if err := s.load(); err != nil {
		return errors.Join(err, s.closeAll())
	}
	if err := s.loadChunks(); err != nil {
		return errors.Join(err, s.closeAll())
	}
	return nil
}

// sharedReader lets several goroutines read, as the system's source of randomness does by itself.
type sharedReader struct {
	mu sync.Mutex
	r  io.Reader
}

func (s *sharedReader) Read(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.r.Read(b)
}

// tryOpen opens the rows in dir and reads them. After an error nothing is open.
func (s *Store) tryOpen(dir string) error {
	b, err := openScrubbed(dir, s.log)
	if err != nil {
		return err
	}
	s.kv = b
	if err := s.load(); err != nil {
		err = errors.Join(err, s.closeAll())
		s.forget()
		return err
	}
	return nil
}

// forget drops what load read, so that another store can be loaded.
func (s *Store) forget() {
	s.engine, s.kv, s.texts, s.counters, s.wake = nil, nil, nil, counters{}, 0
	s.unready, s.unreadyAt = make(map[record.ID]*unreadyWrite), make(map[record.Tag]map[record.ID]bool)
	s.postponed = nil
	s.wants = newWants()
	s.chunks = newChunks(s.chunks.files)
	s.force.Store(nil)
}

func (s *Store) closeAll() error {
	if s.engine != nil {
		if err := s.engine.close(); err != nil {
			return errors.Join(err, s.kv.Close())
		}
	}
	return s.kv.Close()
}

// Close releases the data directory. Run must have returned, and all snapshots must be closed.
func (s *Store) Close() error {
	return errors.Join(s.kv.Sync(), s.closeAll(), s.unlock())
}

// durable makes sure that a row of the change feed, and all before it, survive a power cut. Many watches that ask at
// once share one sync.
func (s *Store) durable(number uint64) error {
	if s.synced.Load() >= number {
		return nil
	}
	s.syncMu.Lock()
	defer s.syncMu.Unlock()
	committed := s.committed.Load()
	if s.synced.Load() >= number {
		return nil
	}
	if err := s.kv.Sync(); err != nil {
		return err
	}
	fault.Point("watch.synced")
	s.noteSynced(committed)
	return nil
}

// noteSynced raises the number up to which the change feed is known to be synced.
func (s *Store) noteSynced(number uint64) {
	for old := s.synced.Load(); old < number && !s.synced.CompareAndSwap(old, number); old = s.synced.Load() {
	}
}

// RefuseWrites makes local writes fail with an error that wraps ErrClock, for as long as reason is not empty: a wrong
// clock would put them behind, or far ahead of, everybody else's.
func (s *Store) RefuseWrites(reason string) { s.clockFault.Store(&reason) }

func (s *Store) alarm(code, message string) {
	if s.alarmFn != nil {
		s.alarmFn(code, message)
	}
}

// Policy gives the policy in force, nil if there is none yet. A nil policy denies everything.
func (s *Store) Policy() *acl.Policy {
	if f := s.force.Load(); f != nil {
		return f.policy
	}
	return nil
}

// inForce is the policy by which all reads judge, and the count of switches that it came with.
type inForce struct {
	policy     *acl.Policy
	generation uint64
}

// Stats gives the counters as of the last turn.
func (s *Store) Stats() Stats {
	st := *s.stats.Load()
	st.Missing = s.wants.len()
	st.DiskFree, _ = diskFree(s.dir)
	st.AgentTime = s.AgentTime()
	return st
}

// Incarnation names the store; a lost or rolled-back store takes another one.
func (s *Store) Incarnation() uint64 { return s.stats.Load().Incarnation }

// bell gives a channel of size one that is rung after every change of the feed.
func (s *Store) bell() (ring <-chan struct{}, cancel func()) {
	c := make(chan struct{}, 1)
	s.bellMu.Lock()
	defer s.bellMu.Unlock()
	s.bells[c] = struct{}{}
	return c, func() {
		s.bellMu.Lock()
		defer s.bellMu.Unlock()
		delete(s.bells, c)
	}
}

func (s *Store) ring() {
	if fault.Planted("bell-lost") {
		return
	}
	s.bellMu.Lock()
	defer s.bellMu.Unlock()
	for c := range s.bells {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

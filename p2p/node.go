package p2p

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"syncagent/crdtstore/record"
)

const (
	maxPeers    = 64 // members that we dial; others may still dial us
	dialTimeout = 5 * time.Second
	stopTimeout = 1500 * time.Millisecond
)

// The protocols. Their numbers change only if hello itself does.
const (
	protoSync   = "/syncagent/sync/1"
	protoEntry  = "/syncagent/entry/1"
	protoPolicy = "/syncagent/policy/1"
)

// Options say how a Node is made. Key and Network are required.
type Options struct {
	Key       ed25519.PrivateKey
	Network   record.NetworkID
	Name      string   // told to peers; at most 63 visible ASCII characters, else it is left out
	Version   string   // of the program, told to peers
	Listen    []string // multiaddrs; none: dial only
	Announce  []string // addresses to tell others in place of those listened on: multiaddrs or host:port
	Bootstrap []string // see SetBootstrap
	// PeerBytes is how many bytes a second each peer may make this agent receive, unpack and serve for long, 64 times as
	// many at once. More comes and goes more slowly. 0: no limit.
	PeerBytes     int64
	PeersFile     string // known addresses are remembered here; empty: not remembered
	Log           *slog.Logger
	Registerer    prometheus.Registerer // nil: no metrics
	Libp2pMetrics bool                  // also those of libp2p, some 400 series
	// Alarm is told of what an operator has to look at; nil ignores it. It must not block.
	Alarm func(code, message string)
	// Progress tells a member how far this agent is with versions of paths, at least as far as want, and nothing of what
	// the member may not read; nil: no question is answered. It is asked often and must not wait.
	Progress func(asker record.PublicKey, of []Placed, want Stage) Progress
	// Listing calls fn for every entry that this agent shows and reader may read, and counts the others; nil: it lists
	// nothing. An error of fn ends it.
	Listing func(reader record.PublicKey, fn func(Shown) error) (withheld int64, err error)
	// HostOptions go to libp2p after our own. It is a seam for tests, which put a network in memory below the host.
	HostOptions []libp2p.Option
}

// The codes that go to Options.Alarm.
const (
	AlarmDiverged = "diverged"     // two replicas differ and neither lacks a block
	AlarmInvalid  = "invalid-data" // a member sent what breaks the block rule
)

// Node is the network side of an agent. Its methods are safe for concurrent use.
type Node struct {
	o        Options
	log      *slog.Logger
	self     record.PublicKey
	host     host.Host
	gate     *gater
	book     *book
	announce []ma.Multiaddr
	replica  Replica // set by Run before anything else runs
	stats    counters
	outbox   *mailbox[Outgoing]
	recent   *recent
	budgets  *budgets

	dialBell    chan struct{} // somebody may have to be dialled
	bookBell    chan struct{} // an address is new
	policyBell  chan struct{} // standings and policies have to be looked at
	reconciling sync.Mutex    // one at a time does so
	syncBell    chan struct{} // a session may need a sync
	comparing   chan struct{} // a token: going over all entries for a comparison that a peer asks for
	wantsBell   chan struct{} // the replica wants entries or chunks
	chunkTurns  chan struct{} // tokens
	received    atomic.Int64  // bytes of frames and messages
	changed     atomic.Int64  // uptime when the replica got its last block

	mu       sync.Mutex
	targets  []target
	sessions map[peer.ID]*session
	leaving  map[peer.ID]bool         // told that they are no members any more
	faults   map[peer.ID]string       // why peers could not be reached
	diverged int                      // members that differ without a reason
	needed   map[record.PublicKey]int // whom somebody waits for, and how many do
	running  bool
	closed   bool
	handlers sync.WaitGroup // streams and sessions
}

// New makes the node and listens on all addresses of the options, or says which one is not to be had: see ErrPortInUse.
// Until Run nobody is admitted.
func New(o Options) (*Node, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Alarm == nil {
		o.Alarm = func(string, string) {}
	}
	if o.Progress == nil {
		o.Progress = func(_ record.PublicKey, of []Placed, _ Stage) Progress { return Progress{Of: make([]Reached, len(of))} }
	}
	if o.Listing == nil {
		o.Listing = func(record.PublicKey, func(Shown) error) (int64, error) { return 0, nil }
	}
	if len(o.Key) != ed25519.PrivateKeySize {
		return nil, errors.New("identity key is missing")
	}
	if len(o.Name) > maxNameLen || !printable(o.Name) {
		o.Name = ""
	}
	if len(o.Version) > maxVersionLen || !printable(o.Version) {
		o.Version = ""
	}
	n := &Node{
		o: o, log: o.Log, self: record.KeyOf(o.Key), gate: newGater(o.Log),
		dialBell: make(chan struct{}, 1), bookBell: make(chan struct{}, 1), policyBell: make(chan struct{}, 1),
		syncBell: make(chan struct{}, 1), wantsBell: make(chan struct{}, 1), comparing: make(chan struct{}, 1), chunkTurns: make(chan struct{}, chunkPeers),
		sessions: map[peer.ID]*session{}, leaving: map[peer.ID]bool{}, needed: map[record.PublicKey]int{}, faults: map[peer.ID]string{}, outbox: newMailbox[Outgoing](maxOutbox, maxOutboxBytes), recent: newRecent(), budgets: newBudgets(o.PeerBytes),
	}
	n.gate.onBan = func(p peer.ID) { go n.closePeer(p) }
	var listenOn []ma.Multiaddr
	for _, s := range o.Listen {
		a, err := parseListen(s)
		if err != nil {
			return nil, err
		}
		listenOn = append(listenOn, a)
	}
	for _, s := range o.Announce {
		t, err := parseTarget(s)
		if err != nil {
			return nil, fmt.Errorf("announce %w", err)
		}
		n.announce = append(n.announce, t.addr)
	}
	if err := n.SetBootstrap(o.Bootstrap); err != nil {
		return nil, err
	}
	var err error
	if n.book, err = openBook(o.PeersFile); err != nil {
		n.log.Warn("known peers not read, they will be learned again", "err", err)
	}
	var libp2pMetrics prometheus.Registerer
	if o.Libp2pMetrics {
		libp2pMetrics = o.Registerer
	}
	if n.host, err = newHost(o.Key, n.gate, o.Version, libp2pMetrics, o.HostOptions); err != nil {
		return nil, err
	}
	if err := errors.Join(listen(n.host, listenOn), n.register(o.Registerer)); err != nil {
		_ = n.host.Close()
		return nil, err
	}
	return n, nil
}

// SetBootstrap replaces the addresses that are dialled whatever the policy says: multiaddrs of TCP or QUIC with or
// without /p2p/ID, or host:port. Peers behind them that are no members get hello and policies and nothing else.
func (n *Node) SetBootstrap(addrs []string) error {
	var targets []target
	var errs []error
	ids, texts := map[peer.ID]struct{}{}, map[string]struct{}{}
	for _, s := range addrs {
		t, err := parseTarget(s)
		if err != nil {
			errs = append(errs, fmt.Errorf("bootstrap %w", err))
			continue
		}
		if t.id == n.self.PeerID() {
			continue // one list for all hosts names this one too
		}
		if t.id != "" {
			ids[t.id] = struct{}{}
		}
		texts[t.text] = struct{}{}
		targets = append(targets, t)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	n.gate.pin(ids, texts)
	n.mu.Lock()
	n.targets = targets
	n.mu.Unlock()
	ring(n.dialBell)
	ring(n.policyBell)
	return nil
}

// Run serves and syncs until ctx ends, then closes everything within 2 seconds. It may be called once. The error is
// nil after a clean stop.
func (n *Node) Run(ctx context.Context, r Replica) error {
	n.mu.Lock()
	if n.running || n.closed {
		n.mu.Unlock()
		return errors.New("network node cannot run twice")
	}
	n.running, n.replica = true, r
	n.mu.Unlock()

	n.noteBlocks()
	if err := n.refreshAddrs(); err != nil {
		return errors.Join(err, n.Close())
	}
	g, gctx := errgroup.WithContext(ctx)
	t, err := n.joinTopic(gctx)
	if err != nil && ctx.Err() != nil {
		return n.Close() // told to stop before it had begun
	}
	if err != nil {
		return errors.Join(err, n.Close())
	}
	n.handle(gctx, protoPolicy, bootstrap, n.servePolicy)
	n.handle(gctx, protoSync, member, n.serveSync)
	n.handle(gctx, protoEntry, member, n.serveEntries)
	n.host.Network().Notify(&network.NotifyBundle{
		ConnectedF:    func(_ network.Network, c network.Conn) { n.closeOlder(c); n.connected(gctx, c.RemotePeer()) },
		DisconnectedF: func(_ network.Network, c network.Conn) { n.disconnected(c.RemotePeer()) },
	})
	n.gate.open(r.Rights)

	g.Go(func() error { return n.dialLoop(gctx) })
	g.Go(func() error { return n.policyLoop(gctx) })
	g.Go(func() error { return n.syncLoop(gctx) })
	g.Go(func() error { return n.wantsLoop(gctx) })
	g.Go(func() error { return n.tickLoop(gctx) })
	g.Go(func() error { return n.publishLoop(gctx, t) })
	g.Go(func() error { return n.receiveLoop(gctx, t) })
	<-gctx.Done()
	stopErr := n.Close()
	err = g.Wait()
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		err = nil
	}
	return errors.Join(err, stopErr)
}

// Close stops listening and closes all connections. Run calls it; call it yourself only if Run was never called.
func (n *Node) Close() error {
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		return nil
	}
	n.closed = true
	n.mu.Unlock()
	done := make(chan error, 1)
	go func() {
		err := n.host.Close()
		n.handlers.Wait()
		done <- errors.Join(err, n.book.save())
	}()
	select {
	case err := <-done:
		return err
	case <-time.After(stopTimeout):
		return errors.New("close network: not all connections ended in time")
	}
}

// enter counts a goroutine that Close waits for; false after Close.
func (n *Node) enter() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return false
	}
	n.handlers.Add(1)
	return true
}

// Self is the identity of this agent.
func (n *Node) Self() record.PublicKey { return n.self }

// Addrs gives the addresses to reach this agent at, each with its peer ID.
func (n *Node) Addrs() []string {
	var out []string
	for _, a := range n.ownAddrs() {
		out = append(out, a.String()+"/p2p/"+n.self.String())
	}
	return out
}

func (n *Node) ownAddrs() []ma.Multiaddr {
	if len(n.announce) > 0 {
		return n.announce
	}
	addrs, err := n.host.Network().InterfaceListenAddresses()
	if err != nil {
		addrs = n.host.Network().ListenAddresses()
	}
	return usable(addrs)
}

func (n *Node) refreshAddrs() error {
	return n.book.signOwn(n.o.Key, n.self.PeerID(), n.ownAddrs())
}

// Pause closes all connections and refuses and makes no new ones until Resume.
func (n *Node) Pause() {
	n.gate.setPaused(true)
	for _, p := range n.host.Network().Peers() {
		n.closePeer(p)
	}
	n.log.Info("peers paused")
}

// Resume ends Pause.
func (n *Node) Resume() {
	n.gate.setPaused(false)
	ring(n.dialBell)
	n.log.Info("peers resumed")
}

// Paused tells whether Pause is in force.
func (n *Node) Paused() bool { return n.gate.isPaused() }

// PolicyChanged tells the node that another policy is in force or that there are new texts to hand on: connections of
// those who lost their membership are closed, and all others are told.
func (n *Node) PolicyChanged() { ring(n.policyBell) }

// WantsChanged tells the node that the replica wants entries or chunks.
func (n *Node) WantsChanged() { ring(n.wantsBell) }

func (n *Node) closePeer(p peer.ID) {
	if err := n.host.Network().ClosePeer(p); err != nil {
		n.log.Debug("connection not closed cleanly", "peer", p, "err", err)
	}
}

// noteBlocks remembers that the replica has changed.
func (n *Node) noteBlocks() { n.changed.Store(int64(uptime())) }

// quietFor tells how long the replica has not changed.
func (n *Node) quietFor() time.Duration { return uptime() - time.Duration(n.changed.Load()) }

var started = time.Now()

// uptime is a clock that no clock step moves.
func uptime() time.Duration { return time.Since(started) }

// ring wakes whoever waits for the bell; a bell that rings already is enough.
func ring(bell chan struct{}) {
	select {
	case bell <- struct{}{}:
	default:
	}
}

// wait sleeps for d; false if ctx ended before.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

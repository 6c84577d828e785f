package p2p

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"syncagent/crdtstore/fault"
	"syncagent/crdtstore/record"
)

const (
	silentAfter   = 5 * time.Second // then the peer is pinged
	closeAfter    = 3 * time.Second // then, without a sign of life, its connections are closed
	measureEvery  = 30 * time.Second
	controlRetry  = 300 * time.Millisecond
	controlFaults = 5 // control streams that fail in a row, then the connection is closed
)

// session is a connected peer. It lives as long as at least one connection does.
type session struct {
	id       peer.ID
	key      record.PublicKey
	standing standing // when it connected; a change closes the connection, because pubsub asks only once
	since    time.Time
	cancel   context.CancelFunc

	inbound   atomic.Int32
	lastHeard atomic.Int64 // uptime

	hintBell   chan struct{} // send our digest
	policyBell chan struct{} // swap policies
	fetchBell  chan struct{} // ask for entries
	chunkBell  chan struct{} // ask for chunks

	pushes *mailbox[[]byte]  // payloads of push frames
	inbox  *mailbox[*gossip] // from the topic

	progressAsks chan struct{} // tokens
	serving      chan struct{} // token of the request for blocks that is answered
	comparing    chan struct{} // token of the comparison that is answered

	mu sync.Mutex
	peerState
}

// peerState is what we know of a connected peer.
type peerState struct {
	hello     *hello
	skew      time.Duration // their agent time minus ours
	rtt       time.Duration
	digest    [32]byte
	hasDigest bool
	serial    uint64
	vector    []record.Position // as of its last answer to a pull
	lastSync  time.Time
	lastFresh time.Time // when a block of its own came by gossip or push

	records    [][]byte // addresses to tell it
	needSync   bool     // its digest differs from ours
	urgent     bool     // do not wait for quiet
	askBack    bool     // the next hint asks for its digest
	needSince  time.Time
	gaps       []record.Digest
	syncAfter  time.Time // back-off
	syncFaults int
	tellView   bool // the next hint says what we show
	// differsSince is since when it shows something else that it should not; zero: it does not.
	differsSince time.Time
	sameRounds   int // syncs in a row in which neither side lacked anything and yet the digests differed
	fetchAfter   time.Time
	fetchMiss    int
}

func (s *session) touch() { s.lastHeard.Store(int64(uptime())) }

func (s *session) silentFor() time.Duration { return uptime() - time.Duration(s.lastHeard.Load()) }

// hears counts what comes from a peer on a stream, and holds up the stream while the peer is over its budget. A few
// greetings and signs of life always pass: who is over it is slow, not dead.
func (n *Node) hears(ctx context.Context, s *session) func(kind byte, bytes int) {
	return func(kind byte, bytes int) {
		s.touch()
		n.received.Add(int64(bytes))
		if (kind == frameHello || kind >= frameDigest && kind <= frameView) && bytes <= fewBytes && n.budgets.of(s.id).signs.Allow() {
			return
		}
		n.spend(ctx, s, bytes)
	}
}

// addRecord has an address told to the peer.
func (s *session) addRecord(signed []byte) {
	s.mu.Lock()
	if len(s.records) < maxPeerRecords {
		s.records = append(s.records, signed)
	}
	s.mu.Unlock()
	ring(s.hintBell)
}

// connected makes the session of a peer, if there is none yet.
func (n *Node) connected(ctx context.Context, p peer.ID) {
	key, err := record.PublicKeyOf(p)
	if err != nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed || n.sessions[p] != nil || n.leaving[p] || n.host.Network().Connectedness(p) != network.Connected {
		return
	}
	st := n.gate.standing(p) // under the lock: a policy that comes later finds the session
	if st == stranger {      // lost its right while it connected
		go n.closePeer(p)
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	s := &session{id: p, key: key, standing: st, since: time.Now(), cancel: cancel,
		hintBell: make(chan struct{}, 1), policyBell: make(chan struct{}, 1), fetchBell: make(chan struct{}, 1),
		chunkBell: make(chan struct{}, 1), progressAsks: make(chan struct{}, progressAsks), serving: make(chan struct{}, 1),
		comparing: make(chan struct{}, 1),
		pushes:    newMailbox[[]byte](maxPushes, maxPushBytes), inbox: newMailbox[*gossip](maxInbox, maxInboxBytes)}
	s.touch()
	ring(s.fetchBell) // what was wanted before it came
	n.sessions[p] = s
	if st == member && !fault.Planted("no-sync") {
		s.want(true) // before it says what it holds: most who connect lack something, and that is a round trip less
		ring(n.syncBell)
	}
	n.handlers.Add(1)
	go func() {
		defer n.handlers.Done()
		n.runSession(ctx, s)
	}()
	n.log.Info("peer connected", "peer", p, "member", st == member)
}

// closeOlder closes the connections that a new one follows: a peer dials only when it has none, so those are dead, and our
// streams would go on over them until they time out. Two at one time come of both sides dialling, and stay.
func (n *Node) closeOlder(c network.Conn) {
	for _, old := range n.host.Network().ConnsToPeer(c.RemotePeer()) {
		if c.Stat().Opened.Sub(old.Stat().Opened) > closeAfter {
			n.log.Debug("connection closed, a new one came", "peer", c.RemotePeer())
			go func() { _ = old.Close() }()
		}
	}
}

// disconnected ends the session when no connection is left.
func (n *Node) disconnected(p peer.ID) {
	n.mu.Lock()
	s := n.sessions[p]
	if s == nil || n.host.Network().Connectedness(p) == network.Connected {
		n.mu.Unlock()
		return
	}
	delete(n.sessions, p)
	n.mu.Unlock()
	s.cancel()
	if n.hasDiverged() {
		n.tellDiverged()
	}
	n.log.Info("peer disconnected", "peer", p, "after", time.Since(s.since).Round(time.Millisecond))
	s.mu.Lock()
	greeted := s.hello != nil
	s.mu.Unlock()
	if !greeted && !n.Paused() {
		n.gate.hungUp(p, n.o.Name, n.self)
	}
	ring(n.dialBell)
}

func (n *Node) session(p peer.ID) *session {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.sessions[p]
}

// members gives the sessions of members in random order.
func (n *Node) members() []*session {
	n.mu.Lock()
	var out []*session
	for _, s := range n.sessions {
		if s.standing == member {
			out = append(out, s)
		}
	}
	n.mu.Unlock()
	rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// runSession drives what we begin with a peer, until its context ends.
func (n *Node) runSession(ctx context.Context, s *session) {
	defer s.cancel()
	var parts sync.WaitGroup
	parts.Go(func() { n.policySwaps(ctx, s) })
	if s.standing == member {
		parts.Go(func() { n.controls(ctx, s) })
		parts.Go(func() { n.watchSilence(ctx, s) })
		parts.Go(func() { n.fetches(ctx, s) })
		parts.Go(func() { n.chunkFetches(ctx, s) })
		parts.Go(func() { n.pushLoop(ctx, s) })
		parts.Go(func() { n.gossipLoop(ctx, s) })
	}
	parts.Wait()
}

// controls keeps one control stream open.
func (n *Node) controls(ctx context.Context, s *session) {
	for faults := 0; ctx.Err() == nil; {
		began := time.Now()
		err := n.control(ctx, s)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > time.Minute {
			faults = 0
		}
		if faults++; faults >= controlFaults {
			n.log.Warn("peer does not answer, connection closed", "peer", s.id, "err", err)
			n.closePeer(s.id)
			return
		}
		n.log.Debug("control stream ended", "peer", s.id, "err", err)
		wait(ctx, controlRetry+rand.N(controlRetry))
	}
}

// control runs one control stream: our digest whenever it changed, pings when the peer is silent.
func (n *Node) control(ctx context.Context, s *session) error {
	f, done, err := n.openStream(ctx, s, protoSync)
	if err != nil {
		return err
	}
	defer done()
	if err := f.write(framePeers, encodeRecords(n.recordsFor(s.id))); err != nil {
		return err
	}
	if err := f.write(frameDigest, n.digestNote(true).encode()); err != nil {
		return err
	}
	broken := make(chan error, 1)
	go func() { broken <- n.readControl(s, f) }()
	defer func() { done(); n.blame(s, <-broken) }()

	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var pinged, measured time.Time
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-broken:
			broken <- err
			return err
		case <-s.hintBell:
			s.mu.Lock()
			ask, records, view := s.askBack, s.records, s.tellView
			s.askBack, s.records, s.tellView = false, nil, false
			s.mu.Unlock()
			if len(records) > 0 {
				if err := f.write(framePeers, encodeRecords(records)); err != nil {
					return err
				}
			}
			if err := f.write(frameDigest, n.digestNote(ask).encode()); err != nil {
				return err
			}
			if view {
				if err := f.write(frameView, n.viewNote().encode()); err != nil {
					return err
				}
			}
		case now := <-tick.C:
			due := s.silentFor() >= silentAfter && now.Sub(pinged) >= silentAfter || now.Sub(measured) >= measureEvery
			if !due {
				continue
			}
			pinged, measured = now, now
			if err := f.write(framePing, be.AppendUint64(nil, uint64(uptime()))); err != nil {
				return err
			}
		}
	}
}

// watchSilence closes the connections of a peer that is silent although it was pinged, or cannot be: a dead connection may take
// what is written for long, or let a stream that is being opened wait.
func (n *Node) watchSilence(ctx context.Context, s *session) {
	for wait(ctx, time.Second) {
		if silent := s.silentFor(); silent >= silentAfter+closeAfter {
			n.log.Info("peer is silent, connection closed", "peer", s.id, "for", silent.Round(time.Second))
			n.closePeer(s.id)
			return
		}
	}
}

// readControl takes the answers on a control stream.
func (n *Node) readControl(s *session, f *frames) error {
	for {
		kind, payload, err := f.read(0)
		if err != nil {
			return err
		}
		switch kind {
		case framePong:
			if len(payload) != 16 {
				return frameError("pong of %d bytes", len(payload))
			}
			s.mu.Lock()
			s.rtt = max(uptime()-time.Duration(be.Uint64(payload)), 0)
			s.mu.Unlock()
			n.noteSkew(s, int64(be.Uint64(payload[8:])))
		case frameDigest:
			d, err := parseDigestNote(payload)
			if err != nil {
				return err
			}
			n.noteDigest(s, d)
		}
	}
}

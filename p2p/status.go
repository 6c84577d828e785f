package p2p

import (
	"cmp"
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"

	"syncagent/crdtstore/record"
)

// PeerStatus is what the node knows of a peer.
type PeerStatus struct {
	Peer        record.PublicKey
	Alias       string // by the policy, else empty
	Name        string // what it calls itself
	Member      bool
	Connected   bool
	Addr        string // of the connection, else one that is known
	RTT         time.Duration
	Lag         int  // blocks that it had at the last sync and we lack
	Equal       bool // its last digest is ours
	LastSync    time.Time
	Serial      uint64        // of its policy, as last told
	Version     string        // of its program
	Skew        time.Duration // its agent time minus ours
	Incarnation uint64        // of its store
	Fault       string        // why the last attempt to reach it failed; empty while it is connected
}

// Peers gives all members but ourselves and all connected peers, ordered by alias.
func (n *Node) Peers() []PeerStatus {
	n.mu.Lock()
	running := n.running
	sessions := make(map[record.PublicKey]*session, len(n.sessions))
	for _, s := range n.sessions {
		sessions[s.key] = s
	}
	faults := maps.Clone(n.faults)
	n.mu.Unlock()
	if !running {
		return nil
	}
	rights := n.replica.Rights()
	digest, vector := n.replica.BlockDigest(), n.replica.Vector()
	var out []PeerStatus
	for _, k := range rights.Members() {
		if k == n.self || sessions[k] != nil {
			continue
		}
		p := PeerStatus{Peer: k, Alias: rights.Alias(k), Member: true, Fault: faults[k.PeerID()]}
		if r, ok := n.book.get(k.PeerID()); ok && len(r.addrs) > 0 {
			p.Addr = r.addrs[0].String()
		}
		out = append(out, p)
	}
	for k, s := range sessions {
		p := PeerStatus{Peer: k, Alias: rights.Alias(k), Member: rights.Member(k), Connected: true}
		if conns := n.host.Network().ConnsToPeer(s.id); len(conns) > 0 {
			p.Addr = conns[0].RemoteMultiaddr().String()
		}
		s.mu.Lock()
		p.RTT, p.LastSync, p.Serial, p.Skew = s.rtt, s.lastSync, s.serial, s.skew
		p.Equal = s.hasDigest && s.digest == digest
		if !p.Equal {
			p.Lag = lag(vector, s.vector)
		}
		if s.hello != nil {
			p.Name, p.Version, p.Incarnation = s.hello.Name, s.hello.Version, s.hello.Incarnation
		}
		s.mu.Unlock()
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b PeerStatus) int {
		return cmp.Or(cmp.Compare(a.Alias, b.Alias), record.CompareKeys(a.Peer, b.Peer))
	})
	return out
}

// lag counts the blocks that theirs covers and ours does not.
func lag(ours, theirs []record.Position) int {
	type chain struct {
		origin      record.PublicKey
		incarnation uint64
	}
	have := make(map[chain]uint64, len(ours))
	for _, p := range ours {
		have[chain{p.Origin, p.Incarnation}] = p.Seq
	}
	total := uint64(0)
	for _, p := range theirs {
		if h := have[chain{p.Origin, p.Incarnation}]; p.Seq > h {
			total += p.Seq - h
		}
	}
	return int(min(total, 1<<31))
}

// tickLoop does what comes round by time: our digest to all when it changed and to somebody anyhow, the address book.
func (n *Node) tickLoop(ctx context.Context) error {
	tick := time.NewTicker(hintEvery)
	defer tick.Stop()
	told := n.replica.BlockDigest()
	nextAsk := time.Now().Add(jittered(syncEvery))
	nextView := time.Now().Add(jittered(viewEvery))
	nextSave := time.Now()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-n.bookBell: // at once: should all agents be killed now, they still find each other
			n.saveBook()
			continue
		case <-tick.C:
		}
		n.reconcile(ctx)
		now := time.Now()
		if d := n.replica.BlockDigest(); d != told {
			told = d
			for _, s := range n.members() {
				ring(s.hintBell)
			}
		}
		if now.After(nextAsk) {
			nextAsk = now.Add(jittered(syncEvery))
			if all := n.members(); len(all) > 0 {
				s := all[0]
				s.mu.Lock()
				s.askBack = true
				s.mu.Unlock()
				ring(s.hintBell)
			}
		}
		if now.After(nextView) {
			nextView = now.Add(jittered(viewEvery))
			for _, s := range n.members() {
				s.mu.Lock()
				s.tellView = true
				s.mu.Unlock()
				ring(s.hintBell)
			}
		}
		if now.After(nextSave) {
			nextSave = now.Add(syncEvery)
			if err := n.refreshAddrs(); err != nil {
				n.log.Warn("own addresses not signed", "err", err)
			}
			n.book.forget(func(id peer.ID) bool { return id == n.self.PeerID() || n.gate.standing(id) != stranger || n.Paused() })
			n.saveBook()
		}
	}
}

func (n *Node) saveBook() {
	if err := n.book.save(); err != nil {
		n.log.Warn("known peers not saved", "err", err)
	}
}

func jittered(d time.Duration) time.Duration { return d*3/4 + rand.N(d/2) }

// counters are the node's metrics.
type counters struct {
	garbage prometheus.Counter
	dropped prometheus.Counter
	entries prometheus.Counter
	chunks  prometheus.Counter
	limited *prometheus.CounterVec
	syncs   *prometheus.CounterVec
	blocks  *prometheus.CounterVec
}

// register makes the metrics; without a registerer they count for nobody.
func (n *Node) register(r prometheus.Registerer) error {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "syncagent", Name: name, Help: help})
	}
	vec := func(name, help, label string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "syncagent", Name: name, Help: help}, []string{label})
	}
	n.stats = counters{
		garbage: counter("peer_garbage_total", "Malformed messages and frames from peers."),
		dropped: counter("publish_dropped_total", "Own blocks and pushes dropped because a queue was full; sync brings them."),
		entries: counter("entries_fetched_total", "Entries that peers gave when asked."),
		chunks:  counter("chunks_fetched_total", "Chunks of large values that peers gave when asked."),
		syncs:   vec("syncs_total", "Syncs with a peer that we began.", "result"),
		limited: vec("limited_total", "Times that a peer met a limit: it was held up, a message dropped, a stream ended, a block put off.", "limit"),
		blocks:  vec("blocks_received_total", "New blocks from peers.", "road"),
	}
	for _, limit := range []string{limitBytes, limitGossip, limitStreams, limitPolicies, limitOrigins} {
		n.stats.limited.WithLabelValues(limit) // shown from the start
	}
	if r == nil {
		return nil
	}
	connected := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "syncagent", Name: "peers_connected",
		Help: "Members connected now."}, func() float64 { return float64(len(n.members())) })
	received := prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: "syncagent", Name: "peer_received_bytes_total",
		Help: "Bytes of frames and gossip messages from peers."}, func() float64 { return float64(n.received.Load()) })
	for _, c := range []prometheus.Collector{n.stats.garbage, n.stats.dropped, n.stats.entries, n.stats.chunks, n.stats.limited, n.stats.syncs, n.stats.blocks, connected, received} {
		if err := r.Register(c); err != nil {
			return err
		}
	}
	return nil
}

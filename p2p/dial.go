package p2p

import (
	"context"
	"encoding/binary"
	"errors"
	"hash/maphash"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"

	"syncagent/crdtstore/fault"
	"syncagent/crdtstore/record"
)

const (
	redialMin    = 200 * time.Millisecond
	redialMax    = 3 * time.Second
	redialReset  = 15 * time.Second // without an attempt, then the back-off starts anew
	selfRetry    = time.Minute      // an address that turned out to be our own
	maxDialing   = 16
	dialLookEach = time.Second
)

// dialer remembers the attempts. One goroutine owns it; attempts run beside and report.
type dialer struct {
	states map[string]*dialState // by bootstrap text or peer ID
	seed   maphash.Seed          // which members a large fleet's agent picks
	active int
}

// dialState is one address or peer that is or was not connected.
type dialState struct {
	busy    bool
	backoff time.Duration
	last    time.Time // end of the last attempt
	next    time.Time
	id      peer.ID // who was found there
	warned  bool
}

// dialResult is the outcome of an attempt.
type dialResult struct {
	key  string
	id   peer.ID
	self bool
	err  error
}

// redialAfter is the back-off: full jitter up to a bound that doubles from redialMin to redialMax, for ever.
func redialAfter(bound time.Duration) (delay, next time.Duration) {
	return rand.N(bound) + time.Millisecond, min(bound*2, redialMax)
}

// dialLoop dials everybody who should be connected and is not.
func (n *Node) dialLoop(ctx context.Context) error {
	d := &dialer{states: map[string]*dialState{}, seed: maphash.MakeSeed()}
	results := make(chan dialResult, maxDialing)
	var running sync.WaitGroup
	defer running.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case r := <-results:
			n.noteDial(d, r)
		case <-n.dialBell:
		case <-timer.C:
		}
		soonest := time.Now().Add(dialLookEach)
		for _, t := range n.wanted(d) {
			st := d.state(t.text)
			switch {
			case st.busy:
			case st.next.After(time.Now()):
				if st.next.Before(soonest) {
					soonest = st.next
				}
			case d.active < maxDialing:
				st.busy = true
				d.active++
				running.Go(func() {
					r := n.dial(ctx, t.target, t.addrs)
					select {
					case results <- r:
					case <-ctx.Done():
					}
				})
			}
		}
		timer.Reset(time.Until(soonest))
	}
}

// candidate is somebody to dial now, if its back-off is over.
type candidate struct {
	target
	addrs []ma.Multiaddr
}

// wanted lists who should be connected and is not.
func (n *Node) wanted(d *dialer) []candidate {
	if n.Paused() {
		return nil
	}
	n.mu.Lock()
	targets := slices.Clone(n.targets)
	needed := slices.Collect(maps.Keys(n.needed))
	n.mu.Unlock()
	rights := n.replica.Rights()
	members := d.pick(rights.Members(), n.self)
	for _, k := range needed {
		if rights.Member(k) && !slices.Contains(members, k) {
			members = append(members, k)
		}
	}
	var out []candidate
	for _, t := range targets {
		id := t.id
		if id == "" {
			id = d.state(t.text).id
		}
		if id == "" || n.host.Network().Connectedness(id) != network.Connected {
			out = append(out, candidate{target: t, addrs: []ma.Multiaddr{t.addr}})
		}
	}
	for _, k := range members {
		id := k.PeerID()
		r, ok := n.book.get(id)
		if !ok || len(r.addrs) == 0 || n.host.Network().Connectedness(id) == network.Connected {
			continue
		}
		out = append(out, candidate{target: target{text: id.String(), id: id}, addrs: r.addrs})
	}
	d.prune(targets)
	return out
}

// pick gives all members of a small network, and a part of a large one that is random but stays the same.
func (d *dialer) pick(members []record.PublicKey, self record.PublicKey) []record.PublicKey {
	members = slices.DeleteFunc(slices.Clone(members), func(k record.PublicKey) bool { return k == self })
	if len(members) <= maxPeers {
		return members
	}
	rank := func(k record.PublicKey) uint64 { return maphash.Bytes(d.seed, k[:]) }
	slices.SortFunc(members, func(a, b record.PublicKey) int {
		var x, y [8]byte
		binary.BigEndian.PutUint64(x[:], rank(a))
		binary.BigEndian.PutUint64(y[:], rank(b))
		return slices.Compare(x[:], y[:])
	})
	return members[:maxPeers]
}

func (d *dialer) state(key string) *dialState {
	st := d.states[key]
	if st == nil {
		st = &dialState{backoff: redialMin}
		d.states[key] = st
	}
	return st
}

// prune forgets peers that were not dialled for long, so that the map does not grow with all who ever were members.
func (d *dialer) prune(keep []target) {
	if len(d.states) < 4*maxPeers {
		return
	}
	for key, st := range d.states {
		pinned := slices.ContainsFunc(keep, func(t target) bool { return t.text == key })
		if !pinned && !st.busy && time.Since(st.last) > time.Minute {
			delete(d.states, key)
		}
	}
}

// dial makes one attempt. An address without a peer ID is asked who it is first, each time: addresses move.
func (n *Node) dial(ctx context.Context, t target, addrs []ma.Multiaddr) dialResult {
	r := dialResult{key: t.text, id: t.id}
	if t.id == "" {
		id, at, err := probe(ctx, n.o.Key, t.addr)
		if err != nil {
			r.err = err
			return r
		}
		if id == n.self.PeerID() {
			r.self = true
			return r
		}
		n.gate.setProbed(t.text, id)
		r.id, addrs = id, []ma.Multiaddr{at}
	}
	if s, ok := n.host.Network().(*swarm.Swarm); ok {
		s.Backoff().Clear(r.id) // the library's own back-off grows to minutes
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	r.err = n.host.Connect(ctx, peer.AddrInfo{ID: r.id, Addrs: addrs})
	return r
}

// noteDial takes the outcome of an attempt.
func (n *Node) noteDial(d *dialer, r dialResult) {
	now := time.Now()
	st := d.state(r.key)
	d.active--
	st.busy = false
	if r.id != "" {
		st.id = r.id
	}
	if now.Sub(st.last) > redialReset {
		st.backoff = redialMin
	}
	n.noteFault(st.id, r.err)
	var delay time.Duration
	delay, st.backoff = redialAfter(st.backoff)
	st.last, st.next = now, now.Add(delay)
	if fault.Planted("no-redial") {
		st.next = now.Add(24 * time.Hour)
	}
	switch {
	case r.self:
		st.next = now.Add(selfRetry)
		n.log.Debug("bootstrap address is our own", "addr", r.key)
	case r.err == nil:
		st.warned = false
	case !st.warned:
		st.warned = true
		n.log.Warn("peer not reachable, trying on", "addr", r.key, "err", r.err)
	default:
		n.log.Debug("peer not reachable", "addr", r.key, "err", r.err)
	}
}

// noteFault remembers why a peer could not be reached, until it can.
func (n *Node) noteFault(id peer.ID, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if id == "" || err == nil || n.sessions[id] != nil || len(n.faults) > 16*maxPeers && n.faults[id] == "" {
		delete(n.faults, id)
		return
	}
	n.faults[id] = dialFault(err)
}

// dialFault gives the causes of a failed attempt in one line: the library's text has a line for each address.
func dialFault(err error) string {
	dial, ok := errors.AsType[*swarm.DialError](err)
	if errors.Is(err, context.DeadlineExceeded) { // QUIC to a host where nobody is ends so, whatever TCP came to
		return "no answer in time"
	}
	if !ok || len(dial.DialErrors) == 0 {
		return strings.Join(strings.Fields(err.Error()), " ")
	}
	var causes []string
	for _, d := range dial.DialErrors {
		cause := d.Cause
		for next := errors.Unwrap(cause); next != nil; next = errors.Unwrap(next) {
			cause = next
		}
		if text := cause.Error(); !slices.Contains(causes, text) {
			causes = append(causes, text)
		}
	}
	return strings.Join(causes, ", ")
}

// recordsFor picks address records to tell a peer: ours and those of members.
func (n *Node) recordsFor(to peer.ID) [][]byte {
	var out [][]byte
	for _, k := range n.replica.Rights().Members() {
		id := k.PeerID()
		if r, ok := n.book.get(id); ok && id != to && id != n.self.PeerID() {
			out = append(out, r.signed)
		}
	}
	rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out[:min(len(out), maxPeerRecords)]
}

// forwardRecord tells the connected members of an address that is new to us.
func (n *Node) forwardRecord(signed []byte, from peer.ID) {
	ring(n.bookBell)
	ring(n.dialBell)
	for _, s := range n.members() {
		if s.id != from {
			s.addRecord(signed)
		}
	}
}

// noteRecords takes addresses that a member tells of other members.
func (n *Node) noteRecords(payload []byte) error {
	records, err := parseRecords(payload)
	if err != nil {
		return err
	}
	for _, signed := range records {
		id, _, err := openRecord(signed)
		if err != nil {
			return err
		}
		if k, err := record.PublicKeyOf(id); err == nil && k != n.self && n.replica.Rights().Member(k) {
			if _, isNew, _ := n.book.add(signed); isNew {
				ring(n.bookBell)
				ring(n.dialBell)
			}
		}
	}
	return nil
}

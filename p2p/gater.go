package p2p

import (
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"syncagent/crdtstore/fault"
	"syncagent/crdtstore/record"
)

const (
	refusedLogEvery = time.Minute // per peer
	maxRefused      = 1024        // peers whose last log line is remembered
	hangUpsToLog    = 3
	maxStrikes      = 20 // faults of a peer within strikeWindow, then it is out for banTime
	strikeWindow    = time.Minute
	banTime         = time.Minute
)

// standing is what a peer may do here.
type standing int

const (
	stranger  standing = iota
	bootstrap          // pinned: hello and policies only
	member             // everything
)

// gater is the allow-list that every connection has to pass, in both directions.
type gater struct {
	log *slog.Logger

	mu      sync.Mutex
	rights  func() Rights // nil until the replica is there
	pinned  map[peer.ID]struct{}
	probed  map[string]peer.ID // who answered at a bootstrap address without a peer ID
	paused  bool
	refused map[peer.ID]time.Time // when a line about the peer was logged
	hangUps map[peer.ID]int
	strikes map[peer.ID]*strikes
	onBan   func(peer.ID)
}

type strikes struct {
	count  int
	since  time.Time
	banned time.Time // until
}

func newGater(log *slog.Logger) *gater {
	return &gater{log: log, pinned: map[peer.ID]struct{}{}, probed: map[string]peer.ID{},
		refused: map[peer.ID]time.Time{}, hangUps: map[peer.ID]int{}, strikes: map[peer.ID]*strikes{}}
}

// standing tells what the policy in force and the config let the peer do.
func (g *gater) standing(p peer.ID) standing {
	g.mu.Lock()
	rights, paused := g.rights, g.paused
	_, pinned := g.pinned[p]
	for _, id := range g.probed {
		pinned = pinned || id == p
	}
	s := g.strikes[p]
	banned := s != nil && time.Now().Before(s.banned)
	g.mu.Unlock()
	if rights == nil || paused || banned {
		return stranger
	}
	if k, err := record.PublicKeyOf(p); err != nil {
		return stranger
	} else if rights().Member(k) {
		return member
	}
	if pinned {
		return bootstrap
	}
	return stranger
}

// strike notes a fault of a peer. Too many and it is out for a while; its connections are closed.
func (g *gater) strike(p peer.ID) {
	now := time.Now()
	g.mu.Lock()
	s := g.strikes[p]
	if s == nil {
		maps.DeleteFunc(g.strikes, func(_ peer.ID, s *strikes) bool {
			return now.Sub(s.since) > strikeWindow && now.After(s.banned)
		})
		s = &strikes{since: now}
		g.strikes[p] = s
	}
	if now.Sub(s.since) > strikeWindow {
		s.count, s.since = 0, now
	}
	s.count++
	ban := s.count >= maxStrikes && now.After(s.banned)
	if ban {
		s.count, s.banned = 0, now.Add(banTime)
	}
	onBan := g.onBan
	g.mu.Unlock()
	if ban {
		g.log.Warn("peer refused for a while, it sent too much garbage", "peer", p, "for", banTime)
		if onBan != nil {
			onBan(p)
		}
	}
}

// refuse logs, at most once a minute for each peer, how the peer can be admitted.
func (g *gater) refuse(p peer.ID, addr ma.Multiaddr) {
	g.mu.Lock()
	rights, paused := g.rights, g.paused
	g.mu.Unlock()
	// Without a policy nobody is a member: that says nothing about the peer.
	if rights == nil || paused || rights().Serial() == 0 || g.quietly(p) {
		return
	}
	g.log.Warn("host refused, it is no member", "peer", p, "addr", addr,
		"hint", "to admit it: syncagent acl admit 'identity NAME "+p.String()+"'")
}

// open begins to admit peers by the policy.
func (g *gater) open(rights func() Rights) {
	g.mu.Lock()
	g.rights = rights
	g.mu.Unlock()
}

// quietly tells whether a line about the peer was logged within the last minute; if not, it is noted as logged.
func (g *gater) quietly(p peer.ID) bool {
	now := time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	if last, known := g.refused[p]; known && now.Sub(last) < refusedLogEvery {
		return true
	}
	maps.DeleteFunc(g.refused, func(_ peer.ID, t time.Time) bool { return now.Sub(t) >= refusedLogEvery })
	if len(g.refused) >= maxRefused {
		return true
	}
	g.refused[p] = now
	return false
}

// hungUp notes that a peer closed the connection before it said hello. When it does so again and again, the line that
// admits us there is logged.
func (g *gater) hungUp(p peer.ID, name string, self record.PublicKey) {
	g.mu.Lock()
	if len(g.hangUps) >= maxRefused {
		clear(g.hangUps)
	}
	g.hangUps[p]++
	count := g.hangUps[p]
	g.mu.Unlock()
	if count < hangUpsToLog || g.quietly("hang-up of "+p) {
		return
	}
	if name == "" {
		name = "NAME"
	}
	g.log.Warn("peer hangs up at once, perhaps this host is not admitted yet", "peer", p,
		"hint", "on a host with the admin key: syncagent acl admit 'identity "+name+" "+self.String()+"'")
}

// greeted ends the count of hungUp.
func (g *gater) greeted(p peer.ID) {
	g.mu.Lock()
	delete(g.hangUps, p)
	g.mu.Unlock()
}

// otherNetwork logs that a peer belongs to another network.
func (g *gater) otherNetwork(p peer.ID, network record.NetworkID) {
	if !g.quietly(p) {
		g.log.Warn("peer belongs to another network", "peer", p, "network", network)
	}
}

func (g *gater) setPaused(paused bool) {
	g.mu.Lock()
	g.paused = paused
	g.mu.Unlock()
}

func (g *gater) isPaused() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.paused
}

// pin replaces the peer IDs of the configured bootstrap addresses and forgets probes of addresses that are gone.
func (g *gater) pin(ids map[peer.ID]struct{}, addrs map[string]struct{}) {
	g.mu.Lock()
	g.pinned = ids
	maps.DeleteFunc(g.probed, func(a string, _ peer.ID) bool { _, ok := addrs[a]; return !ok })
	g.mu.Unlock()
}

// setProbed notes who answered at an address without a peer ID.
func (g *gater) setProbed(addr string, id peer.ID) {
	g.mu.Lock()
	g.probed[addr] = id
	g.mu.Unlock()
}

func (g *gater) InterceptPeerDial(p peer.ID) bool { return g.standing(p) != stranger }

func (g *gater) InterceptAddrDial(peer.ID, ma.Multiaddr) bool { return true }

func (g *gater) InterceptAccept(network.ConnMultiaddrs) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.rights != nil && !g.paused
}

func (g *gater) InterceptSecured(dir network.Direction, p peer.ID, addrs network.ConnMultiaddrs) bool {
	if g.standing(p) != stranger || fault.Planted("admit-strangers") {
		return true
	}
	if dir == network.DirInbound {
		g.refuse(p, addrs.RemoteMultiaddr())
	}
	return false
}

func (g *gater) InterceptUpgraded(network.Conn) (bool, control.DisconnectReason) { return true, 0 }

package p2p

import (
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"syncagent/crdtstore/record"
)

const recentBlocks = 8192

// recent remembers which blocks came lately, within bounds. It is safe for concurrent use.
type recent struct {
	mu      sync.Mutex
	blocks  map[record.Digest]peer.ID // who gossiped it last; empty: it came by a push or a sync
	order   []arrival
	forgot  time.Duration // when the youngest block came that is remembered no more
	origins map[record.PublicKey]time.Time
}

type arrival struct {
	block record.Digest
	at    time.Duration // uptime
}

func newRecent() *recent {
	return &recent{blocks: map[record.Digest]peer.ID{}, origins: map[record.PublicKey]time.Time{}, forgot: -time.Hour}
}

// came notes a block that did not come by gossip.
func (r *recent) came(d record.Digest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.note(d, "")
}

// see notes a gossiped block.
func (r *recent) see(d record.Digest, origin record.PublicKey, from peer.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.note(d, from)
	if _, known := r.origins[origin]; known || len(r.origins) < 1024 {
		r.origins[origin] = time.Now()
	}
}

func (r *recent) note(d record.Digest, from peer.ID) {
	if _, known := r.blocks[d]; !known {
		if len(r.order) >= recentBlocks {
			delete(r.blocks, r.order[0].block)
			r.forgot, r.order = r.order[0].at, r.order[1:]
		}
		r.order = append(r.order, arrival{d, uptime()})
	} else if from == "" {
		return
	}
	r.blocks[d] = from
}

// unseen drops blocks that came by gossip in the meantime. Should one have been lost after all, the next digest tells.
func (r *recent) unseen(ds []record.Digest) []record.Digest {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.DeleteFunc(ds, func(d record.Digest) bool { return r.blocks[d] != "" })
}

// told takes blocks that a peer gossips apart: how many of them it gossiped before, how many may still have to be passed
// on, as they came otherwise or are its own, and which are not remembered. Complete says that the latter did not come
// within onItsWay.
func (r *recent) told(blocks []*record.Block, from peer.ID) (before, otherwise int, unknown []record.Digest, complete bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range blocks {
		switch by, known := r.blocks[b.Digest]; {
		case !known:
			unknown = append(unknown, b.Digest)
		case by == from:
			before++
		case by == "" || b.Origin.PeerID() == from: // who passed it on before its origin may have left its entries out
			otherwise++
		default:
			r.blocks[b.Digest] = from
		}
	}
	return before, otherwise, unknown, r.forgot < uptime()-onItsWay
}

// pace gives the interval between own messages under load: the more agents publish, the longer.
func (r *recent) pace(now time.Time) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	for k, t := range r.origins {
		if now.Sub(t) > time.Second {
			delete(r.origins, k)
		}
	}
	return time.Second / time.Duration(max(paceTotal/(1+len(r.origins)), paceLeast))
}

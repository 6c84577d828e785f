package crdtstore

import (
	"time"

	"syncagent/crdtstore/record"
)

// A block costs every agent a signature and a turn, however little is in it. So while blocks of others come faster than
// this host takes them, local writes wait for more to share their block. Nobody is told to slow down: all meet the same
// load, and each makes two thirds of what it would make with equal parts, until blocks flow again. Who makes less than half
// of such a part does not wait: the load is another's, who floods perhaps. Nor does who makes more than twice as many as
// anybody else: nobody shares that load.
const (
	paceWindow = 25 * time.Millisecond // for which blocks are counted
	paceBlocks = 4                     // fewer of them are no traffic: a quiet network never waits
	paceLag    = 2 * time.Millisecond  // from delivery to commit; more, and there are too many
	minSpacing = time.Millisecond      // between own blocks, once they are spaced
	maxSpacing = 20 * time.Millisecond
)

// pace spaces own blocks by how those of others flow. Times are readings of the monotonic clock. The owner of the store
// uses it.
type pace struct {
	spacing time.Duration
	own     time.Duration // when the last own block was committed
	window
}

type window struct {
	began   time.Duration
	blocks  int // own ones too
	mine    int
	origins map[record.PublicKey]int // blocks of each other
	lag     time.Duration            // of all requests together
	done    int                      // requests
}

// took notes what a turn took.
func (p *pace) took(now time.Duration, foreign []*record.Block, own bool, done []*ingestRequest) {
	p.adjust(now)
	for _, b := range foreign {
		p.origins[b.Origin]++
	}
	p.blocks += len(foreign)
	if own {
		p.blocks++
		p.mine++
		p.own = now
	}
	for _, r := range done {
		if r.done != nil {
			p.lag += now - r.came
			p.done++
		}
	}
}

// adjust sets the spacing by a window that is over: much more while too many come, a little less while they flow.
func (p *pace) adjust(now time.Duration) {
	past := now - p.began
	if p.origins != nil && past < paceWindow {
		return
	}
	makers := 1 + len(p.origins)
	switch {
	case past > time.Second: // nothing happened for long
		p.spacing = 0
	case p.blocks >= paceBlocks && p.lag > paceLag*time.Duration(p.done) && 2*p.mine*makers >= p.blocks && p.mine <= 2*p.most():
		equal := past * time.Duration(makers) / time.Duration(p.blocks)
		p.spacing = min(max(4*p.spacing, minSpacing), equal*3/2, maxSpacing)
	default:
		if p.spacing = p.spacing * 7 / 8; p.spacing < minSpacing {
			p.spacing = 0
		}
	}
	p.window = window{began: now, origins: make(map[record.PublicKey]int)}
}

// most is how many blocks the busiest other made.
func (w *window) most() (n int) {
	for _, blocks := range w.origins {
		n = max(n, blocks)
	}
	return n
}

// wait is how long the waiting local writes are still to wait for more.
func (p *pace) wait(now time.Duration) time.Duration {
	p.adjust(now)
	return p.spacing - (now - p.own)
}

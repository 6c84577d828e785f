package agent

import (
	"context"
	"slices"
	"time"

	"syncagent/crdtstore/record"
	"syncagent/p2p"
)

const (
	catchUpAtMost = 5 * time.Second
	catchUpLook   = 20 * time.Millisecond
)

// catchUp waits until this agent has heard of what others wrote while it was down: it has synced with one of the members.
// A host that is alone in its network does not wait, one that reaches nobody not for long.
func catchUp(ctx context.Context, members func() []record.PublicKey, peers func() []p2p.PeerStatus, atMost time.Duration) {
	for began := time.Now(); time.Since(began) < atMost; {
		switch n := len(members()); {
		case n == 0:
			began = time.Now() // no policy yet: it says who the others are
		case n == 1 || slices.ContainsFunc(peers(), func(p p2p.PeerStatus) bool { return p.Member && !p.LastSync.IsZero() }):
			return
		}
		if !sleep(ctx, catchUpLook) {
			return
		}
	}
}

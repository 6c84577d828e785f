package agent

import (
	"testing"
	"testing/synctest"
	"time"

	"syncagent/crdtstore/record"
	"syncagent/p2p"
)

// catchUp ends with the first sync, and without one when it has to.
func TestCatchUp(t *testing.T) {
	two := []record.PublicKey{{1}, {2}}
	synced := p2p.PeerStatus{Member: true, LastSync: time.Unix(1, 0)}
	for _, c := range []struct {
		name     string
		members  []record.PublicKey
		policyAt time.Duration // when members are known
		peer     p2p.PeerStatus
		syncAt   time.Duration // when the peer is there
		want     time.Duration
	}{
		{"alone", two[:1], 0, synced, time.Hour, 0},
		{"synced", two, 0, synced, time.Second, time.Second},
		{"nobody comes", two, 0, synced, time.Hour, catchUpAtMost},
		{"connected is not synced", two, 0, p2p.PeerStatus{Member: true, Connected: true}, 0, catchUpAtMost},
		{"a bootstrap peer that is no member", two, 0, p2p.PeerStatus{LastSync: time.Unix(1, 0)}, 0, catchUpAtMost},
		{"no policy for a minute", two, time.Minute, synced, time.Minute + time.Second, time.Minute + time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				members := func() []record.PublicKey {
					if time.Since(began) < c.policyAt {
						return nil
					}
					return c.members
				}
				peers := func() []p2p.PeerStatus {
					if time.Since(began) < c.syncAt {
						return nil
					}
					return []p2p.PeerStatus{c.peer}
				}
				catchUp(t.Context(), members, peers, catchUpAtMost)
				if took := time.Since(began); took != c.want {
					t.Errorf("it took %s, want %s", took, c.want)
				}
			})
		})
	}
}

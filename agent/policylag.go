package agent

import (
	"cmp"
	"fmt"
	"time"

	apiv1 "syncagent/agent/api/v1"
)

const alarmPolicyDiffers = "policy-differs"

// policyLag is how long connected members may go by different policies: they swap them at once, and say every ten seconds
// which one they have.
const policyLag = 30 * time.Second

// policyGuard raises an alarm about every connected peer that goes by another policy for too long: one of the two does not
// take what the admins of the other sign, so a revocation may not hold there.
type policyGuard struct {
	peers  func() []*apiv1.Peer
	serial func() uint64 // 0: none
	alarms *Alarms
	since  map[string]time.Time // by the peer's ID
}

func (r *running) policySerial() uint64 {
	if p := r.store.Policy(); p != nil {
		return p.Serial()
	}
	return 0
}

func (g *policyGuard) look(now time.Time) {
	own, differ := g.serial(), map[string]time.Time{}
	for _, p := range g.peers() {
		id, name, theirs := p.GetPeerId(), cmp.Or(p.GetAlias(), p.GetPeerId()), p.GetPolicySerial()
		if !p.GetConnected() || own == 0 || theirs == 0 || theirs == own {
			g.alarms.Clear(alarmPolicyDiffers, name)
			continue
		}
		since, known := g.since[id]
		if !known {
			since = now
		}
		differ[id] = since
		if now.Sub(since) >= policyLag {
			g.alarms.Raise(alarmPolicyDiffers, name, fmt.Sprintf("it goes by the policy with serial %d, this host by %d", theirs, own))
		}
	}
	g.since = differ
}

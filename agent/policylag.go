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
	lags   map[string]lag // by the peer's ID
}

// lag is a pair of serials, and since when it is that. What a peer has told is some seconds old, so while serials change
// nothing is wrong.
type lag struct {
	own, theirs uint64
	since       time.Time
}

func (g *policyGuard) look(now time.Time) {
	own, lags, late := g.serial(), map[string]lag{}, map[string]string{}
	for _, p := range g.peers() {
		id, theirs := p.GetPeerId(), p.GetPolicySerial()
		if !p.GetConnected() || own == 0 || theirs == 0 || theirs == own {
			continue
		}
		l := g.lags[id]
		if l.own != own || l.theirs != theirs {
			l = lag{own, theirs, now}
		}
		lags[id] = l
		if now.Sub(l.since) >= policyLag {
			late[cmp.Or(p.GetAlias(), id)] = fmt.Sprintf("it goes by the policy with serial %d, this host by %d", theirs, own)
		}
	}
	g.lags = lags
	for _, a := range g.alarms.List() {
		if a.Code == alarmPolicyDiffers && late[a.Subject] == "" {
			g.alarms.Clear(a.Code, a.Subject)
		}
	}
	for name, message := range late {
		g.alarms.Raise(alarmPolicyDiffers, name, message)
	}
}

func (r *running) policySerial() uint64 {
	if p := r.store.Policy(); p != nil {
		return p.Serial()
	}
	return 0
}

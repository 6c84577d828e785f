package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"syncagent/acl"
	"syncagent/crdtstore/record"
)

const (
	alarmNoPolicy  = "no-policy"
	alarmNoMember  = "no-member"
	alarmBadPolicy = "bad-policy"
)

// judgeSelf raises an alarm when the policy in force, which may be nil, does not let this host replicate: nobody else
// can tell a host that was removed.
func (a *Agent) judgeSelf(p *acl.Policy) {
	if p == nil {
		return
	}
	a.alarms.Clear(alarmNoPolicy, "")
	a.alarms.Clear(alarmBadPolicy, "") // the file is for who has none
	self := record.KeyOf(a.key)
	switch {
	case p.Member(self):
		a.alarms.Clear(alarmNoMember, "")
	case p.Revoked(self):
		a.alarms.Raise(alarmNoMember, "", fmt.Sprintf("the policy with serial %d revokes this host's key: what it wrote is void, and no peer connects", p.Serial()))
	default:
		a.alarms.Raise(alarmNoMember, "", fmt.Sprintf("by the policy with serial %d this host is no member: no peer connects, it gets and gives nothing", p.Serial()))
	}
}

// takeFirstPolicy gives an agent that has no policy the one that init wrote beside its configuration.
func (r *running) takeFirstPolicy(ctx context.Context) {
	if p := r.store.Policy(); p != nil {
		r.agent.judgeSelf(p)
		return
	}
	alarms := r.agent.alarms
	text, err := os.ReadFile(r.config.PolicyFile())
	if err == nil {
		err = r.store.SetPolicy(ctx, text)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		alarms.Raise(alarmBadPolicy, "", fmt.Sprintf("%s: %v", r.config.PolicyFile(), err))
	}
	if r.store.Policy() == nil {
		alarms.Raise(alarmNoPolicy, "", "no policy yet: nothing can be read or written, and peers are not connected")
	}
}

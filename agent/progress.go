package agent

import (
	"cmp"
	"fmt"

	"syncagent/crdtstore/record"
	"syncagent/p2p"
	"syncagent/sync/trigger"
)

// progress tells how far this agent is with versions of paths. It is asked again and again, so it waits for nothing.
type progress struct {
	self    record.PublicKey
	network record.NetworkID
	store   store
	mirrors mirrorState
}

// of answers a member, or this agent itself. Of what the asker may not read it says nothing.
func (p *progress) of(asker record.PublicKey, list []p2p.Placed, want p2p.Stage) p2p.Progress {
	out := p2p.Progress{Of: make([]p2p.Reached, len(list))}
	rights := p.store.Policy()
	snap, err := p.store.Snapshot()
	if err != nil || rights == nil {
		return out // the agent stops, or has no policy yet
	}
	defer snap.Close()
	for i, placed := range list {
		if record.Reserved(placed.Path) || asker != p.self && !rights.MayReadPath(asker, placed.Path) {
			continue
		}
		reached, fault, err := p.one(snap, placed, want)
		if err != nil {
			fault = "its store cannot be read" // it has an alarm
		}
		out.Of[i], out.Fault = reached, cmp.Or(out.Fault, fault)
	}
	return out
}

// one tells about one path, and what holds it up on the way to want.
func (p *progress) one(snap snapshot, placed p2p.Placed, want p2p.Stage) (r p2p.Reached, fault string, err error) {
	visible := false
	if r.Shown, visible, err = snap.Shown(placed.Path); err != nil {
		return r, "", err
	}
	stored, err := snap.Holds(p.network.PathKey(placed.Path), placed.Version)
	if err != nil || !stored {
		return r, "", err
	}
	state := p.mirrors.Progress(placed, r.Shown, visible)
	r.Stage, r.Unmirrored = max(state.stage, p2p.StageStored), !state.mirrored
	if r.Stage < want || want == p2p.StageNone {
		fault = state.fault
	}
	return r, fault, nil
}

// mirrorProgress is how far all mirrors of the configuration are with one path.
type mirrorProgress struct {
	mirrored bool // at least one holds the path
	stage    p2p.Stage
	fault    string
}

// Progress implements mirrorState.
func (m *mirrors) Progress(placed p2p.Placed, shown record.Version, visible bool) mirrorProgress {
	all := mirrorProgress{stage: p2p.StageTriggered}
	for _, one := range m.list {
		stage, fault, mirrored := one.progress(placed, shown, visible)
		if mirrored {
			all.mirrored = true
			all.stage, all.fault = min(all.stage, stage), cmp.Or(all.fault, fault)
		}
	}
	if !all.mirrored {
		all.stage = p2p.StageNone
	}
	return all
}

// progress tells how far one mirror is; mirrored is false if it does not hold the path.
func (one *configMirror) progress(placed p2p.Placed, shown record.Version, visible bool) (stage p2p.Stage, fault string, mirrored bool) {
	s, mirrored := one.Mirror.Progress(placed.Path)
	if !mirrored {
		return 0, "", false
	}
	if one.paused {
		return p2p.StageNone, "mirror " + one.title + ": it is paused", true
	}
	there := s.Version.Compare(placed.Version) >= 0
	if !visible { // then no file must be there
		there = s.Version.IsZero()
	}
	current := shown.Compare(placed.Version) >= 0
	if s.Fault != "" && !there && (s.FaultOf.IsZero() || s.FaultOf.Compare(placed.Version) >= 0) {
		return p2p.StageNone, fmt.Sprintf("mirror %s: %s", one.title, s.Fault), true
	}
	if !there || !current || s.Trial {
		return p2p.StageNone, "", true
	}
	if one.triggers != nil {
		if why := one.triggers.Failed(trigger.Change{Path: placed.Path, Write: placed.Version.WriteString()}); why != "" {
			return p2p.StageMirrored, why, true
		}
	}
	if len(s.Due) > 0 {
		return p2p.StageMirrored, "", true
	}
	return p2p.StageTriggered, "", true
}

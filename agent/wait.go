package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore"
	"syncagent/crdtstore/record"
	"syncagent/p2p"
)

const (
	defaultWait = 10 * time.Second
	maxWait     = 10 * time.Minute
)

// Wait serves those who want to know that a write has arrived elsewhere.
func (k *kv) Wait(ctx context.Context, r *connect.Request[apiv1.WaitRequest]) (*connect.Response[apiv1.WaitResponse], error) {
	paths, stage, timeout, err := waitOf(r.Msg)
	if err != nil {
		return nil, err
	}
	c, rights := callerOf(ctx), k.store.Policy()
	for _, path := range paths {
		if rights == nil || !c.rights.reads(rights, path) && !c.rights.writes(rights, path) {
			return nil, fmt.Errorf("wait for %s: %w", path, crdtstore.ErrDenied)
		}
	}
	placed, err := k.place(paths, r.Msg.GetVersion())
	if err != nil {
		return nil, err
	}
	hosts := k.audience(placed)
	goal := goal{stage: stage, count: int(r.Msg.GetAgents())}
	if goal.hosts, err = goal.choose(hosts, r.Msg.GetHosts()); err != nil {
		return nil, err
	}
	if goal.count > len(hosts) {
		return nil, &Error{Code: CodePrecondition, Message: fmt.Sprintf("%d agents are asked for, and %d may read %s", goal.count, len(hosts), paths[0]),
			Hint: "syncagent acl show tells who may"}
	}
	ctx, cancel := k.streaming(ctx)
	defer cancel()
	ctx, cancelTimeout := context.WithTimeout(ctx, timeout)
	defer cancelTimeout()
	k.follow(ctx, hosts, stage, goal.settled)
	return connect.NewResponse(goal.answer(hosts, c, k.store.Policy())), nil
}

// waitOf reads a request.
func waitOf(r *apiv1.WaitRequest) (paths []string, stage p2p.Stage, timeout time.Duration, err error) {
	paths = r.GetPaths()
	if r.GetPath() != "" || len(paths) == 0 {
		paths = slices.Insert(slices.Clone(paths), 0, r.GetPath())
	}
	for _, path := range paths {
		if err := checkWritable(path); err != nil {
			return nil, 0, 0, err
		}
	}
	timeout = defaultWait
	if t := r.GetTimeout(); t != nil {
		timeout = t.AsDuration()
	}
	stage = max(p2p.Stage(r.GetStage()), p2p.StageStored)
	switch {
	case timeout <= 0 || timeout > maxWait || r.GetAgents() < 0:
		err = badRequest("want a number of agents that is not negative, and a timeout of at most %s", maxWait)
	case r.GetStage() < 0 || stage > p2p.StageTriggered:
		err = badRequest("no stage %d", r.GetStage())
	case len(paths) > record.MaxSlots:
		err = badRequest("%d paths, a write has at most %d", len(paths), record.MaxSlots)
	case len(r.GetHosts()) > 0 && r.GetAgents() > 0:
		err = badRequest("want hosts or a number of agents, not both")
	}
	return paths, stage, timeout, err
}

// place completes the version of a write by the index that it has at each path, and checks that it is here.
func (k *kv) place(paths []string, text string) ([]p2p.Placed, error) {
	want, err := preconditionOf(text, false)
	if err == nil && want == nil {
		err = badRequest("name a version")
	}
	if err == nil && want.Index != crdtstore.AnyIndex && len(paths) > 1 {
		err = badRequest("the version has an index, which is that of one path")
	}
	if err != nil {
		return nil, err
	}
	snap, err := k.store.Snapshot()
	if err != nil {
		return nil, err
	}
	defer snap.Close()
	placed := make([]p2p.Placed, len(paths))
	for i, path := range paths {
		v := *want
		if v.Index == crdtstore.AnyIndex {
			v.Index = uint16(i) // most often they come in the order of the write
		}
		for tried := 1; ; tried++ {
			holds, err := snap.Holds(k.network.PathKey(path), v)
			if err != nil {
				return nil, err
			}
			if holds {
				break
			}
			if want.Index != crdtstore.AnyIndex || tried == record.MaxSlots {
				return nil, unknownVersion(path, text)
			}
			v.Index = (v.Index + 1) % record.MaxSlots
		}
		placed[i] = p2p.Placed{Path: path, Version: v}
	}
	return placed, nil
}

// goal is what a Wait is for: count agents at a stage, or all of hosts, or all that can get there.
type goal struct {
	stage p2p.Stage
	count int
	hosts []*hostProgress
}

// choose finds the hosts that somebody named.
func (g *goal) choose(all []*hostProgress, names []string) (chosen []*hostProgress, err error) {
	for _, name := range names {
		i := slices.IndexFunc(all, func(h *hostProgress) bool { return h.name == name || h.key.String() == name })
		if i < 0 {
			return nil, &Error{Code: CodePrecondition, Message: fmt.Sprintf("no member %s that may read one of the paths", name),
				Hint: "those that may: " + strings.Join(namesOf(all), ", ")}
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

func namesOf(hosts []*hostProgress) (names []string) {
	for _, h := range hosts {
		names = append(names, h.name)
	}
	return names
}

// reached counts the hosts that got there. One without a mirror is not counted where mirrors are waited for.
func (g *goal) reached(hosts []*hostProgress) (n int) {
	for _, h := range hosts {
		if h.counts(g.stage) {
			n++
		}
	}
	return n
}

// met tells whether it has come about.
func (g *goal) met(hosts []*hostProgress) bool {
	switch {
	case len(g.hosts) > 0:
		return g.reached(g.hosts) == len(g.hosts)
	case g.count > 0:
		return g.reached(hosts) >= g.count
	}
	idle := 0
	for _, h := range hosts {
		if h.idle(g.stage) {
			idle++
		}
	}
	n := g.reached(hosts)
	return n > 0 && n+idle == len(hosts)
}

// settled tells whether waiting can change nothing more.
func (g *goal) settled(hosts []*hostProgress) bool {
	if g.met(hosts) {
		return true
	}
	if len(g.hosts) > 0 {
		hosts = g.hosts
	}
	return !slices.ContainsFunc(hosts, func(h *hostProgress) bool {
		return !h.counts(g.stage) && !h.idle(g.stage) && h.last.Fault == ""
	})
}

func (g *goal) answer(hosts []*hostProgress, c *caller, p policy) *apiv1.WaitResponse {
	out := &apiv1.WaitResponse{Done: g.met(hosts)}
	for _, h := range hosts {
		if h.counts(g.stage) {
			out.Stored = append(out.Stored, h.name)
		} else {
			out.Lacking = append(out.Lacking, h.name)
		}
		out.Hosts = append(out.Hosts, h.message(c, p))
	}
	return out
}

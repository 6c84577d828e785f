package agent

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"connectrpc.com/connect"

	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore"
	"syncagent/crdtstore/record"
	"syncagent/p2p"
)

const (
	maxRollout     = 10_000 // paths
	defaultRollout = 3 * time.Second
	questionPaths  = 256 // in one question to a peer
)

// hostProgress is how far one agent is with those of some versions whose paths it may read.
type hostProgress struct {
	key    record.PublicKey
	name   string
	placed []p2p.Placed
	last   p2p.Progress // empty: nothing is known
	err    error        // why nothing is known, or no more
}

// audience gives all members that may read one of the paths, this agent first, the others by name.
func (k *kv) audience(placed []p2p.Placed) []*hostProgress {
	hosts := []*hostProgress{{key: k.self, name: k.name, placed: placed}}
	rights := k.store.Policy()
	for _, peer := range k.peers.Peers() {
		key, err := record.ParsePublicKey(peer.GetPeerId())
		if err != nil || rights == nil {
			continue
		}
		h := &hostProgress{key: key, name: nameOf(peer)}
		for _, p := range placed {
			if rights.MayReadPath(key, p.Path) {
				h.placed = append(h.placed, p)
			}
		}
		if len(h.placed) > 0 {
			hosts = append(hosts, h)
		}
	}
	slices.SortStableFunc(hosts[1:], func(a, b *hostProgress) int { return cmp.Compare(a.name, b.name) })
	return hosts
}

// follow asks all hosts at the same time how far they are, until enough says so or ctx ends. Enough is called by one at
// a time, after each answer.
func (k *kv) follow(ctx context.Context, hosts []*hostProgress, want p2p.Stage, enough func([]*hostProgress) bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, h := range hosts {
		all.Go(func() {
			last, err := k.ask(ctx, h, want)
			mu.Lock()
			defer mu.Unlock()
			if h.last, h.err = last, err; enough(hosts) {
				cancel()
			}
		})
	}
	all.Wait()
}

// ask follows one host.
func (k *kv) ask(ctx context.Context, h *hostProgress, want p2p.Stage) (all p2p.Progress, err error) {
	placed := h.placed
	if want == p2p.StageStored {
		placed = placed[:1] // a write is stored as a whole
	}
	for part := range slices.Chunk(placed, questionPaths) {
		var p p2p.Progress
		if h.key == k.self {
			p = k.followSelf(ctx, part, want)
		} else {
			p, err = k.peers.Follow(ctx, h.key, part, want)
		}
		all.Of, all.Fault = append(all.Of, p.Of...), cmp.Or(all.Fault, p.Fault)
		if err != nil || all.Fault != "" {
			return all, err
		}
	}
	return all, nil
}

// followSelf is Follow for this agent.
func (k *kv) followSelf(ctx context.Context, placed []p2p.Placed, want p2p.Stage) p2p.Progress {
	for began := time.Now(); ; {
		p := k.progress.of(k.self, placed, want)
		pause := min(max(time.Since(began)/10, 2*time.Millisecond), 250*time.Millisecond)
		if p.Fault != "" || p.Done(want) || !sleep(ctx, pause) {
			return p
		}
	}
}

// sleep waits for d; false if ctx ended before.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// complete tells whether the host has answered for all it was asked.
func (h *hostProgress) complete(want p2p.Stage) bool {
	return len(h.last.Of) == len(h.placed) || want == p2p.StageStored && len(h.last.Of) > 0
}

// counts tells whether the host is one of those that got to a stage.
func (h *hostProgress) counts(want p2p.Stage) bool {
	return h.complete(want) && h.last.Done(want) && !h.idle(want)
}

// idle tells whether the host has nothing to do: mirrors are waited for, and none of it holds any of the paths.
func (h *hostProgress) idle(want p2p.Stage) bool {
	return want > p2p.StageStored && h.complete(want) && h.last.Done(want) && h.unmirrored()
}

func (h *hostProgress) unmirrored() bool {
	return len(h.last.Of) > 0 && !slices.ContainsFunc(h.last.Of, func(r p2p.Reached) bool { return !r.Unmirrored })
}

// faultElsewhere stands for what may name paths.
const faultElsewhere = "a mirror or a trigger there fails; syncagent status on that host tells why"

// message tells a caller no version that is shown where it may not read. What holds a host up may name other paths of
// its mirrors, and is for who may know them all.
func (h *hostProgress) message(c *caller, p policy) *apiv1.HostProgress {
	out := &apiv1.HostProgress{Name: h.name, PeerId: h.key.String(), Unmirrored: h.unmirrored(), Error: h.last.Fault, Paths: int64(len(h.placed))}
	if out.Error != "" && !c.control && !c.rights.reads(p, "/") {
		out.Error = faultElsewhere
	}
	if h.err != nil {
		out.Error = cmp.Or(out.Error, h.err.Error())
	}
	var shown record.Version
	lowest := p2p.StageTriggered
	for i, r := range h.last.Of {
		if r.Stage >= p2p.StageStored {
			out.Stored++
		}
		if r.Stage >= p2p.StageMirrored {
			out.Mirrored++
		}
		if r.Stage >= p2p.StageTriggered {
			out.Triggered++
		}
		if !r.Unmirrored || out.Unmirrored || r.Stage < p2p.StageStored {
			lowest = min(lowest, r.Stage)
		}
		if r.Shown.Compare(shown) > 0 && c.rights.reads(p, h.placed[i].Path) {
			shown = r.Shown
		}
	}
	if len(h.last.Of) > 0 {
		out.Stage = apiv1.Stage(lowest)
	}
	if !shown.IsZero() {
		out.Version = shown.String()
	}
	return out
}

// Rollout tells how far all agents are with what this one shows.
func (k *kv) Rollout(ctx context.Context, r *connect.Request[apiv1.RolloutRequest]) (*connect.Response[apiv1.RolloutResponse], error) {
	timeout := defaultRollout
	if t := r.Msg.GetTimeout(); t != nil {
		timeout = t.AsDuration()
	}
	if timeout <= 0 || timeout > maxWait {
		return nil, badRequest("want a timeout of at most %s", maxWait)
	}
	b, err := k.open(ctx, r.Msg.GetPath())
	if err != nil {
		return nil, err
	}
	placed, deleted, err := shownBelow(ctx, b)
	b.Close()
	if err != nil {
		return nil, err
	}
	out := &apiv1.RolloutResponse{Paths: int64(len(placed)), Deleted: deleted}
	var newest record.Version
	for _, p := range placed {
		if p.Version.Compare(newest) > 0 {
			newest = p.Version
		}
	}
	out.Version = newest.String()
	ctx, cancel := k.streaming(ctx)
	defer cancel()
	ctx, cancelTimeout := context.WithTimeout(ctx, timeout)
	defer cancelTimeout()
	hosts := k.audience(placed)
	k.follow(ctx, hosts, p2p.StageNone, func([]*hostProgress) bool { return false })
	for _, h := range hosts {
		out.Hosts = append(out.Hosts, h.message(callerOf(ctx), k.store.Policy()))
	}
	return connect.NewResponse(out), nil
}

// shownBelow gives the versions that are shown at and below a prefix, or that of the delete if it is a path whose entry
// was deleted.
func shownBelow(ctx context.Context, b *reading) (placed []p2p.Placed, deleted bool, err error) {
	err = b.list(ctx, false, func(i crdtstore.Item) error {
		if len(placed) == maxRollout {
			return &Error{Code: CodeTooLarge, Message: fmt.Sprintf("more than %d entries at and below %s", maxRollout, b.prefix),
				Hint: "name a prefix further down"}
		}
		placed = append(placed, p2p.Placed{Path: i.Path, Version: i.Version})
		return nil
	})
	if err != nil || len(placed) > 0 || b.prefix == "/" {
		return placed, false, err
	}
	v, _, err := b.Shown(b.prefix)
	if err == nil && v.IsZero() {
		err = fmt.Errorf("%s: %w", b.prefix, crdtstore.ErrNotFound)
	}
	return []p2p.Placed{{Path: b.prefix, Version: v}}, true, err
}

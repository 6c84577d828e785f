package agent

import (
	"context"
	"fmt"
	"sync"
	"time"

	"connectrpc.com/connect"

	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore"
	"syncagent/crdtstore/record"
)

const (
	defaultWait = 10 * time.Second
	maxWait     = 10 * time.Minute
)

// Wait serves those who want to know that a write is on more disks than this one.
func (k *kv) Wait(ctx context.Context, r *connect.Request[apiv1.WaitRequest]) (*connect.Response[apiv1.WaitResponse], error) {
	path := r.Msg.GetPath()
	if err := checkWritable(path); err != nil {
		return nil, err
	}
	if c, p := callerOf(ctx), k.store.Policy(); p == nil || !c.rights.reads(p, path) && !c.rights.writes(p, path) {
		return nil, fmt.Errorf("wait for %s: %w", path, crdtstore.ErrDenied)
	}
	timeout := defaultWait
	if t := r.Msg.GetTimeout(); t != nil {
		timeout = t.AsDuration()
	}
	agents := int(r.Msg.GetAgents())
	if timeout <= 0 || timeout > maxWait || agents < 0 {
		return nil, badRequest("want a number of agents that is not negative, and a timeout of at most %s", maxWait)
	}
	tag := k.network.PathKey(path)
	version, err := k.findVersion(path, r.Msg.GetVersion())
	if err != nil {
		return nil, err
	}
	w := k.newWait(path, agents)
	if agents > len(w.names) {
		return nil, &Error{Code: CodePrecondition, Message: fmt.Sprintf("%d agents are asked for, and %d may read %s", agents, len(w.names), path),
			Hint: "syncagent acl show tells who may"}
	}
	ctx, cancel := k.streaming(ctx)
	defer cancel()
	ctx, cancelTimeout := context.WithTimeout(ctx, timeout)
	defer cancelTimeout()
	w.done = cancelTimeout
	w.report(k.self)
	if ctx.Err() == nil {
		k.peers.Stored(ctx, w.peers, tag, version, w.report)
	}
	return connect.NewResponse(w.answer()), nil
}

// findVersion completes the version of a write by the index that it has at a path, and checks that it is here.
func (k *kv) findVersion(path, text string) (record.Version, error) {
	want, err := preconditionOf(text, false)
	if err == nil && want == nil {
		err = badRequest("name a version")
	}
	if err != nil {
		return record.Version{}, err
	}
	if want.Index == crdtstore.AnyIndex { // paths of a write are numbered in its order; most have one
		for want.Index = 0; want.Index < record.MaxSlots; want.Index++ {
			holds, err := k.store.Holds(k.network.PathKey(path), *want)
			if err != nil || holds {
				return *want, err
			}
		}
		return record.Version{}, unknownVersion(path, text)
	}
	holds, err := k.store.Holds(k.network.PathKey(path), *want)
	if err == nil && !holds {
		err = unknownVersion(path, text)
	}
	return *want, err
}

// waiting gathers who has a write.
type waiting struct {
	self   record.PublicKey
	agents int
	peers  []record.PublicKey          // in the order of their names, without this agent
	names  map[record.PublicKey]string // of all that may read the path, this agent among them
	done   func()

	mu     sync.Mutex
	stored map[record.PublicKey]bool
}

func (k *kv) newWait(path string, agents int) *waiting {
	w := &waiting{self: k.self, agents: agents, names: map[record.PublicKey]string{k.self: k.name}, stored: map[record.PublicKey]bool{}}
	p := k.store.Policy()
	for _, peer := range k.peers.Peers() {
		key, err := record.ParsePublicKey(peer.GetPeerId())
		if err != nil || p == nil || !p.MayReadPath(key, path) {
			continue
		}
		w.peers = append(w.peers, key)
		w.names[key] = nameOf(peer)
	}
	if agents == 0 {
		w.agents = len(w.names)
	}
	return w
}

func (w *waiting) report(k record.PublicKey) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stored[k] = true
	if len(w.stored) >= w.agents {
		w.done()
	}
}

func (w *waiting) answer() *apiv1.WaitResponse {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := &apiv1.WaitResponse{Done: len(w.stored) >= w.agents}
	for _, k := range append([]record.PublicKey{w.self}, w.peers...) {
		if w.stored[k] {
			out.Stored = append(out.Stored, w.names[k])
		} else {
			out.Lacking = append(out.Lacking, w.names[k])
		}
	}
	return out
}

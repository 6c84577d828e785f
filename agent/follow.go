package agent

import (
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	apiv1 "syncagent/agent/api/v1"
)

const (
	followRetry    = 200 * time.Millisecond // doubled up to followRetryMax
	followRetryMax = 3 * time.Second
	// behindFor is how long an agent may show less than another one did before its state is told all the same: agents
	// that reach each other are equal long before.
	behindFor = 30 * time.Second
	// maxDead bounds what is kept of deletes. Without it an agent that is behind shows a path once more.
	maxDead = 100_000
)

// Follow is KV.Watch, but goes on when the agent is lost: with the same one when it comes back, else with the next
// that the client knows. It calls fn for every event, and ends when ctx does, fn fails, or the first connection cannot
// be made.
//
// A cursor is good with one agent only. Where another one goes on, Follow compares its state with what fn was told, and
// tells the difference as one write. An agent that is behind takes nothing back: what it does not have yet is not told
// as deleted, nor an older version as a change, unless it stays so for 30 seconds. For that it keeps path and version of
// everything that is watched. A watch that began with a cursor does not know the state: the first change of agents
// then gives EVENT_TYPE_RESET as ever.
func (c *Client) Follow(ctx context.Context, r *apiv1.WatchRequest, fn func(*apiv1.Event) error) error {
	f := &follower{client: c, fn: fn, dead: map[string]string{}, request: proto.CloneOf(r)}
	if r.GetSince() == "" {
		f.told = map[string]string{}
	}
	for wait := followRetry; ; wait = min(2*wait, followRetryMax) {
		err := f.stream(ctx)
		switch {
		case f.failed != nil:
			return f.failed
		case !f.connected || !lost(ctx, err):
			return err
		case f.heard:
			wait = followRetry
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait/2 + rand.N(wait/2)):
		}
	}
}

// follower is a watch over several streams.
type follower struct {
	client    *Client
	request   *apiv1.WatchRequest // with the cursor to go on from
	fn        func(*apiv1.Event) error
	failed    error // of fn
	connected bool  // once
	heard     bool  // on this stream
	synced    bool  // fn knows that it has the whole state

	told   map[string]string       // version of each path as fn knows it; nil: not known
	dead   map[string]string       // of paths that fn was told to be gone, for agents that have not heard of it
	write  []*apiv1.Event          // of the write that is coming in
	replay map[string]*apiv1.Event // the state of another agent, as far as it came; nil: none is coming
	behind map[string]*apiv1.Event // what this agent shows where fn knows of a later version
}

// stream follows one stream to its end.
func (f *follower) stream(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f.heard, f.write, f.replay = false, nil, nil
	if f.connected && f.told != nil && f.request.GetSince() == "" {
		f.replay = map[string]*apiv1.Event{} // the first state broke off in the middle
	}
	s, err := f.client.KV.Watch(ctx, connect.NewRequest(f.request))
	if err != nil {
		return err
	}
	messages := make(chan *apiv1.WatchResponse)
	go func() {
		defer close(messages)
		for s.Receive() {
			select {
			case messages <- s.Msg():
			case <-ctx.Done():
				return
			}
		}
	}()
	defer func() {
		cancel()
		for range messages { // until the goroutine is gone
		}
		_ = s.Close() // its error is s.Err
	}()
	var late <-chan time.Time
	for {
		select {
		case m, ok := <-messages:
			if !ok {
				return s.Err()
			}
			f.connected, f.heard = true, true
			for _, e := range m.GetEvents() {
				if f.failed = f.event(ctx, e); f.failed != nil {
					return f.failed
				}
			}
			if len(f.behind) > 0 && late == nil {
				late = time.After(behindFor)
			}
		case <-late:
			late = nil
			if f.failed = f.believe(); f.failed != nil {
				return f.failed
			}
		}
	}
}

// unchanged stands for the event of a path that tells nothing new: a state may be large.
var unchanged = &apiv1.Event{}

// event takes the next event of a stream.
func (f *follower) event(ctx context.Context, e *apiv1.Event) error {
	switch {
	case e.GetType() == apiv1.EventType_EVENT_TYPE_RESET && f.told != nil && f.connected:
		f.replay = map[string]*apiv1.Event{}
		return nil
	case e.GetType() == apiv1.EventType_EVENT_TYPE_RESET:
		f.told = map[string]string{} // all of the state follows
	case f.replay != nil && e.GetType() == apiv1.EventType_EVENT_TYPE_PUT:
		path := e.GetEntry().GetPath()
		if f.told[path] == e.GetEntry().GetVersion() {
			e = unchanged
		}
		f.replay[path] = e
		return nil
	case f.replay != nil && e.GetType() == apiv1.EventType_EVENT_TYPE_SYNCED:
		if err := f.compare(ctx, e.GetCursor()); err != nil || f.synced {
			return err
		}
	}
	f.synced = f.synced || e.GetType() == apiv1.EventType_EVENT_TYPE_SYNCED
	f.write = append(f.write, e)
	if e.GetMore() {
		return nil
	}
	return f.tell(e.GetCursor())
}

// tell hands on the events of a write but those that fn knows of.
func (f *follower) tell(cursor string) error {
	events := f.write[:0]
	for _, e := range f.write {
		if f.news(e) {
			events = append(events, e)
		}
	}
	f.write = nil
	for i, e := range events {
		if e.More = i+1 < len(events); !e.More {
			e.Cursor = cursor
		}
		if err := f.fn(e); err != nil {
			return err
		}
	}
	if cursor != "" {
		f.request.Since = cursor
	}
	return nil
}

// news notes what an event says of its path. It is none while the agent is behind there.
func (f *follower) news(e *apiv1.Event) bool {
	path, version, put := e.GetEntry().GetPath(), e.GetEntry().GetVersion(), e.GetType() == apiv1.EventType_EVENT_TYPE_PUT
	if path == "" || f.told == nil {
		return true
	}
	if f.behind[path] != nil {
		if version != "" && version < max(f.told[path], f.dead[path]) {
			f.behind[path] = e
			return false
		}
		delete(f.behind, path)
		if put && version == f.told[path] || !put && version != "" && version == f.dead[path] {
			return false // it has caught up
		}
	}
	delete(f.dead, path)
	if put {
		f.told[path] = version
		return true
	}
	delete(f.told, path)
	if len(f.dead) >= maxDead {
		clear(f.dead)
	}
	f.dead[path] = version
	return true
}

// compare tells how the state of another agent differs from what fn knows, as one write.
func (f *follower) compare(ctx context.Context, cursor string) error {
	state := f.replay
	f.replay, f.behind = nil, map[string]*apiv1.Event{}
	if err := f.absent(ctx, state); err != nil {
		return err
	}
	for path, e := range state {
		switch {
		case e == unchanged:
		case e.GetEntry().GetVersion() < max(f.told[path], f.dead[path]):
			f.behind[path] = e
		default:
			f.write = append(f.write, e)
		}
	}
	slices.SortFunc(f.write, func(a, b *apiv1.Event) int { return strings.Compare(a.GetEntry().GetPath(), b.GetEntry().GetPath()) })
	return f.tell(cursor)
}

// absent makes the events of the paths that another agent does not show. Where that has not even heard of the version that
// fn knows, it is behind.
func (f *follower) absent(ctx context.Context, state map[string]*apiv1.Event) error {
	var asked []*apiv1.KnownRequest_Version
	for path, version := range f.told {
		if state[path] == nil {
			asked = append(asked, &apiv1.KnownRequest_Version{Path: path, Version: version})
		}
	}
	answers, err := f.client.Known(ctx, asked)
	if err != nil {
		return err
	}
	for i, a := range answers {
		e := &apiv1.Event{Type: apiv1.EventType_EVENT_TYPE_DELETE, Entry: a.GetDeleted()}
		if e.Entry == nil {
			e.Entry = &apiv1.Entry{Path: asked[i].GetPath(), Deleted: true}
		}
		if a.GetKnown() {
			f.write = append(f.write, e)
		} else {
			f.behind[asked[i].GetPath()] = e
		}
	}
	return nil
}

// believe tells what an agent shows that stayed behind: it is no delay, its policy differs.
func (f *follower) believe() error {
	for _, e := range f.behind {
		f.write = append(f.write, e)
	}
	f.behind = nil
	return f.tell("")
}

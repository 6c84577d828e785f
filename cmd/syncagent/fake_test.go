package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"connectrpc.com/connect"
	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/protobuf/proto"

	apiv1 "syncagent/agent/api/v1"
	"syncagent/agent/api/v1/apiv1connect"
	"syncagent/crdtstore/record"
)

// fakeAgent answers the API from a map. It lets the command line meet what a real agent rarely does: a write that is
// refused after others went through, a stream that breaks. Paths below /denied are denied, a write that has a path
// ending in /poison fails.
type fakeAgent struct {
	apiv1connect.UnimplementedAgentHandler
	apiv1connect.UnimplementedKVHandler

	mu      sync.Mutex
	clock   int
	entries map[string]*apiv1.Entry
	events  []*apiv1.Event
	changed chan struct{} // closed and replaced at every change
}

func newFakeAgent() *fakeAgent {
	return &fakeAgent{entries: map[string]*apiv1.Entry{}, changed: make(chan struct{})}
}

// fakeAgentCmd is the script command `fakeagent SOCKET`.
func fakeAgentCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: fakeagent SOCKET")
	}
	f := newFakeAgent()
	l, err := net.Listen("unix", ts.MkAbs(args[0]))
	ts.Check(err)
	mux := http.NewServeMux()
	mux.Handle(apiv1connect.NewKVHandler(f))
	mux.Handle(apiv1connect.NewAgentHandler(f))
	s := &http.Server{Handler: mux}
	go s.Serve(l) //nolint:errcheck // it ends when the script does
	ts.Defer(func() { s.Close() })
	ts.Setenv("SYNCAGENT_SOCKET", filepath.Join(ts.Getenv("WORK"), args[0]))
}

func apiError(code connect.Code, name, format string, args ...any) error {
	err := connect.NewError(code, fmt.Errorf(format, args...))
	detail, derr := connect.NewErrorDetail(&apiv1.ErrorInfo{Code: name, Message: fmt.Sprintf(format, args...), Hint: "the fake's hint"})
	if derr == nil {
		err.AddDetail(detail)
	}
	return err
}

// Upload takes no value.
func (f *fakeAgent) Upload(_ context.Context, s *connect.ClientStream[apiv1.UploadRequest]) (*connect.Response[apiv1.WriteResponse], error) {
	for s.Receive() {
	}
	return nil, apiError(connect.CodeInvalidArgument, "too_large", "over the fake's limits.value")
}

// write applies ops as one write, or none of them. The caller holds mu.
func (f *fakeAgent) write(ops []*apiv1.Op) (*connect.Response[apiv1.WriteResponse], error) {
	for _, op := range ops {
		path, ifVersion := op.GetPut().GetPath(), op.GetPut().GetIfVersion()
		if d := op.GetDelete(); d != nil {
			path, ifVersion = d.GetPath(), d.GetIfVersion()
			if f.entries[path] == nil && !d.GetAllowMissing() {
				return nil, apiError(connect.CodeNotFound, "not_found", "%s: not found", path)
			}
		}
		switch {
		case record.Covers("/denied", path):
			return nil, apiError(connect.CodePermissionDenied, "denied", "%s: denied by the policy", path)
		case strings.HasSuffix(path, "/poison"):
			return nil, apiError(connect.CodeInternal, "internal", "%s: the fake refuses it", path)
		case ifVersion != "" && !strings.HasPrefix(f.entries[path].GetVersion(), ifVersion),
			op.GetPut().GetIfAbsent() && f.entries[path] != nil:
			return nil, apiError(connect.CodeFailedPrecondition, "precondition", "%s: precondition failed", path)
		}
	}
	f.clock++
	hlc := fmt.Sprintf("%016x", f.clock)
	version := hlc + "-" + strings.Repeat("a", 64)
	for i, op := range ops {
		e := &apiv1.Entry{Hlc: hlc, Version: fmt.Sprintf("%s-%03x", version, i), Author: "12D3KooWFake", Alias: "fake"}
		event := &apiv1.Event{Entry: e, Cursor: fmt.Sprint(len(f.events) + 1), More: i < len(ops)-1}
		if p := op.GetPut(); p != nil {
			e.Path, e.Size, e.Mode = p.GetPath(), int64(len(p.GetValue())), p.Mode
			event.Type = apiv1.EventType_EVENT_TYPE_PUT
			f.entries[e.Path] = proto.CloneOf(e)
			f.entries[e.Path].Value = append([]byte{}, p.GetValue()...)
		} else {
			e.Path, e.Deleted = op.GetDelete().GetPath(), true
			event.Type = apiv1.EventType_EVENT_TYPE_DELETE
			delete(f.entries, e.Path)
		}
		f.events = append(f.events, event)
	}
	close(f.changed)
	f.changed = make(chan struct{})
	return connect.NewResponse(&apiv1.WriteResponse{Version: version, Hlc: hlc, Paths: int64(len(ops))}), nil
}

func (f *fakeAgent) Put(_ context.Context, r *connect.Request[apiv1.PutRequest]) (*connect.Response[apiv1.WriteResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.write([]*apiv1.Op{{Op: &apiv1.Op_Put{Put: r.Msg}}})
}

func (f *fakeAgent) Delete(_ context.Context, r *connect.Request[apiv1.DeleteRequest]) (*connect.Response[apiv1.WriteResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.write([]*apiv1.Op{{Op: &apiv1.Op_Delete{Delete: r.Msg}}})
}

func (f *fakeAgent) Batch(_ context.Context, r *connect.Request[apiv1.BatchRequest]) (*connect.Response[apiv1.WriteResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.write(r.Msg.GetOps())
}

func (f *fakeAgent) Get(_ context.Context, r *connect.Request[apiv1.GetRequest]) (*connect.Response[apiv1.GetResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.entries[r.Msg.GetPath()]
	if e == nil {
		return nil, apiError(connect.CodeNotFound, "not_found", "%s: not found", r.Msg.GetPath())
	}
	return connect.NewResponse(&apiv1.GetResponse{Entry: e}), nil
}

// Known knows of the last version of each path only.
func (f *fakeAgent) Known(_ context.Context, r *connect.Request[apiv1.KnownRequest]) (*connect.Response[apiv1.KnownResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := &apiv1.KnownResponse{}
	for _, v := range r.Msg.GetVersions() {
		i := slices.IndexFunc(f.events, func(e *apiv1.Event) bool {
			return e.GetEntry().GetPath() == v.GetPath() && e.GetEntry().GetVersion() >= v.GetVersion()
		})
		out.Answers = append(out.Answers, &apiv1.KnownResponse_Answer{Known: i >= 0})
	}
	return connect.NewResponse(out), nil
}

// below gives what is at and below a prefix, sorted, and the cursor of that state.
func (f *fakeAgent) below(prefixes ...string) (found []*apiv1.Entry, cursor string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, path := range slices.Sorted(maps.Keys(f.entries)) {
		if slices.ContainsFunc(prefixes, func(p string) bool { return record.Covers(p, path) }) {
			found = append(found, f.entries[path])
		}
	}
	return found, fmt.Sprint(len(f.events))
}

func withoutValues(entries []*apiv1.Entry) []*apiv1.Entry {
	bare := make([]*apiv1.Entry, len(entries))
	for i, e := range entries {
		bare[i] = proto.CloneOf(e)
		bare[i].Value = nil
	}
	return bare
}

func (f *fakeAgent) List(_ context.Context, r *connect.Request[apiv1.ListRequest], stream *connect.ServerStream[apiv1.ListResponse]) error {
	found, cursor := f.below(r.Msg.GetPrefix())
	if err := stream.Send(&apiv1.ListResponse{Cursor: cursor}); err != nil {
		return err
	}
	if !r.Msg.GetValues() {
		found = withoutValues(found)
	}
	for chunk := range slices.Chunk(found, 10) {
		if err := stream.Send(&apiv1.ListResponse{Entries: chunk}); err != nil {
			return err
		}
	}
	if r.Msg.GetPrefix() == "/breaks" {
		return connect.NewError(connect.CodeUnavailable, errors.New("broken"))
	}
	return nil
}

func (f *fakeAgent) Count(_ context.Context, r *connect.Request[apiv1.CountRequest]) (*connect.Response[apiv1.CountResponse], error) {
	found, _ := f.below(r.Msg.GetPrefix())
	return connect.NewResponse(&apiv1.CountResponse{Count: int64(len(found))}), nil
}

func (f *fakeAgent) Watch(ctx context.Context, r *connect.Request[apiv1.WatchRequest], stream *connect.ServerStream[apiv1.WatchResponse]) error {
	next := 0
	if _, err := fmt.Sscan(r.Msg.GetSince(), &next); err != nil {
		found, cursor := f.below(r.Msg.GetPrefixes()...)
		events := []*apiv1.Event{}
		if r.Msg.GetSince() != "" {
			events = append(events, &apiv1.Event{Type: apiv1.EventType_EVENT_TYPE_RESET, Cursor: "0"})
		}
		for _, e := range withoutValues(found) {
			events = append(events, &apiv1.Event{Type: apiv1.EventType_EVENT_TYPE_PUT, Entry: e, Cursor: "0"})
		}
		events = append(events, &apiv1.Event{Type: apiv1.EventType_EVENT_TYPE_SYNCED, Cursor: cursor})
		if err := stream.Send(&apiv1.WatchResponse{Events: events}); err != nil {
			return err
		}
		_, _ = fmt.Sscan(cursor, &next)
	}
	for {
		f.mu.Lock()
		fresh, changed := f.events[next:], f.changed
		f.mu.Unlock()
		if len(fresh) > 0 {
			next += len(fresh)
			if err := stream.Send(&apiv1.WatchResponse{Events: fresh}); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

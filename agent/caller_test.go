package agent

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"

	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore"
	"syncagent/crdtstore/record"
)

// onlyBelow are rights at prefixes, until the policy has another serial.
type onlyBelow struct{ read, write, later []string }

func covered(prefixes []string, path string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return record.Covers(p, path) })
}

func (o onlyBelow) reads(p policy, path string) bool {
	if p.Serial() > 1 {
		return covered(o.later, path)
	}
	return covered(o.read, path)
}
func (o onlyBelow) writes(_ policy, path string) bool { return covered(o.write, path) }

// clientOf gives a client whose requests are those of c.
func (s *testServer) clientOf(t *testing.T, c *caller) *Client {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	all := s.fullHandler()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- serve(ctx, l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			all.ServeHTTP(w, r.WithContext(withCaller(r.Context(), c)))
		}), quiet())
	}()
	client, err := Dial(socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		client.Close()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return client
}

func pathsOf(entries []*apiv1.Entry) (paths []string) {
	for _, e := range entries {
		paths = append(paths, e.GetPath())
	}
	return paths
}

// listOf gives the paths that a client lists.
func listOf(t *testing.T, c *Client, prefix string) (paths []string, err error) {
	t.Helper()
	stream, err := c.KV.List(t.Context(), connect.NewRequest(&apiv1.ListRequest{Prefix: prefix}))
	if err != nil {
		return nil, err
	}
	defer stream.Close() //nolint:errcheck // its error is stream.Err
	for stream.Receive() {
		paths = append(paths, pathsOf(stream.Msg().GetEntries())...)
	}
	return paths, stream.Err()
}

// A caller gets from every door of the API what its rights allow, and nothing else.
func TestCallerIsNarrowed(t *testing.T) {
	s, ctx := startServer(t), t.Context()
	for _, path := range []string{"/certs/web/key", "/certs2/key", "/drop/box", "/hush/key", "/open"} {
		if _, err := s.client.KV.Put(ctx, put(path, "v")); err != nil {
			t.Fatal(err)
		}
	}
	version := s.fake.items["/hush/key"].Version.String()
	c := s.clientOf(t, &caller{name: "test", mark: "m", rights: onlyBelow{read: []string{"/certs", "/hush/none"}, write: []string{"/certs", "/drop"}}})
	get := func(path string) error {
		_, err := c.KV.Get(ctx, connect.NewRequest(&apiv1.GetRequest{Path: path}))
		return err
	}
	list := func(prefix string) error { _, err := listOf(t, c, prefix); return err }
	count := func(prefix string) error {
		_, err := c.KV.Count(ctx, connect.NewRequest(&apiv1.CountRequest{Prefix: prefix}))
		return err
	}
	history := func(path string) error {
		_, err := c.KV.History(ctx, connect.NewRequest(&apiv1.HistoryRequest{Path: path}))
		return err
	}
	watch := func(prefixes ...string) error {
		stream, err := c.KV.Watch(ctx, connect.NewRequest(&apiv1.WatchRequest{Prefixes: prefixes}))
		if err != nil {
			return err
		}
		defer stream.Close() //nolint:errcheck // its error is stream.Err
		stream.Receive()
		return stream.Err()
	}
	restore := func(path string) error {
		_, err := c.KV.Restore(ctx, connect.NewRequest(&apiv1.RestoreRequest{Path: path, Version: version}))
		return err
	}
	putting := func(r *apiv1.PutRequest) error { _, err := c.KV.Put(ctx, connect.NewRequest(r)); return err }
	deleting := func(path string, missing bool) error {
		_, err := c.KV.Delete(ctx, connect.NewRequest(&apiv1.DeleteRequest{Path: path, AllowMissing: missing}))
		return err
	}
	batch := func(paths ...string) error {
		r := &apiv1.BatchRequest{}
		for _, path := range paths {
			r.Ops = append(r.Ops, &apiv1.Op{Op: &apiv1.Op_Put{Put: &apiv1.PutRequest{Path: path}}})
		}
		_, err := c.KV.Batch(ctx, connect.NewRequest(r))
		return err
	}
	wait := func(path string) error {
		_, err := c.KV.Wait(ctx, connect.NewRequest(&apiv1.WaitRequest{Path: path, Version: version, Agents: 1}))
		return err
	}
	preview := func() error {
		stream, err := c.Policy.Preview(ctx, connect.NewRequest(&apiv1.PreviewRequest{Text: []byte("syncagent-policy 1\n")}))
		if err != nil {
			return err
		}
		defer stream.Close() //nolint:errcheck // its error is stream.Err
		stream.Receive()
		return stream.Err()
	}
	written := func() error {
		stream, err := c.Policy.Written(ctx, connect.NewRequest(&apiv1.WrittenRequest{Author: record.PublicKey{9}.String()}))
		if err != nil {
			return err
		}
		defer stream.Close() //nolint:errcheck // its error is stream.Err
		stream.Receive()
		return stream.Err()
	}
	backup := func() error {
		stream, err := c.Agent.Backup(ctx, connect.NewRequest(&apiv1.BackupRequest{}))
		if err != nil {
			return err
		}
		defer stream.Close() //nolint:errcheck // its error is stream.Err
		stream.Receive()
		return stream.Err()
	}
	const ok = Code("")
	for _, test := range []struct {
		name string
		err  error
		code Code
	}{
		{"get", get("/certs/web/key"), ok},
		{"get of a neighbour with a longer name", get("/certs2/key"), CodeDenied},
		{"get in another case", get("/CERTS/web/key"), CodeDenied},
		{"get what may only be written", get("/drop/box"), CodeDenied},
		{"get nothing that may be read", get("/certs/none"), CodeNotFound},
		{"list", list("/certs"), ok},
		{"list what may not be read", list("/hush"), CodeDenied},
		{"list what may only be written", list("/drop"), CodeDenied},
		{"count what may not be read", count("/certs2"), CodeDenied},
		{"history", history("/certs/web/key"), ok},
		{"history of what may not be read", history("/hush/key"), CodeDenied},
		{"watch what may not be read", watch("/hush"), CodeDenied},
		{"watch more than may be read", watch("/certs", "/hush"), CodeDenied},
		{"restore what may not be read", restore("/drop/box"), CodeDenied},
		{"restore what may not be written", restore("/hush/key"), CodeDenied},
		{"wait", wait("/drop/box"), ok},
		{"wait for what is not its own", wait("/hush/key"), CodeDenied},
		{"put", putting(&apiv1.PutRequest{Path: "/certs/web/key"}), ok},
		{"put what may not be read", putting(&apiv1.PutRequest{Path: "/drop/box"}), ok},
		{"put elsewhere", putting(&apiv1.PutRequest{Path: "/open"}), CodeDenied},
		{"probe by a version", putting(&apiv1.PutRequest{Path: "/drop/box", IfVersion: version}), CodeDenied},
		{"probe by absence", putting(&apiv1.PutRequest{Path: "/drop/box", IfAbsent: true}), CodeDenied},
		{"probe by a delete", deleting("/drop/none", false), CodeDenied},
		{"delete what may not be read", deleting("/drop/box", true), ok},
		{"delete elsewhere", deleting("/hush/key", true), CodeDenied},
		{"batch", batch("/certs/1", "/drop/1"), ok},
		{"batch of allowed and denied", batch("/certs/2", "/hush/2"), CodeDenied},
		{"preview", preview(), CodeDenied},
		{"written", written(), CodeDenied},
		{"policy show", func() error { _, err := c.Policy.Show(ctx, connect.NewRequest(&apiv1.ShowRequest{})); return err }(), CodeDenied},
		{"policy log", func() error { _, err := c.Policy.Log(ctx, connect.NewRequest(&apiv1.LogRequest{})); return err }(), CodeDenied},
		{"policy apply", func() error { _, err := c.Policy.Apply(ctx, connect.NewRequest(&apiv1.ApplyRequest{})); return err }(), CodeDenied},
		{"backup", backup(), CodeDenied},
		{"pause", func() error {
			_, err := c.Agent.PausePeers(ctx, connect.NewRequest(&apiv1.PausePeersRequest{}))
			return err
		}(), CodeDenied},
		{"resume", func() error {
			_, err := c.Agent.ResumePeers(ctx, connect.NewRequest(&apiv1.ResumePeersRequest{}))
			return err
		}(), CodeDenied},
		{"confirm", func() error {
			_, err := c.Agent.ConfirmMirror(ctx, connect.NewRequest(&apiv1.ConfirmMirrorRequest{}))
			return err
		}(), CodeDenied},
		{"reload", func() error { _, err := c.Agent.Reload(ctx, connect.NewRequest(&apiv1.ReloadRequest{})); return err }(), CodeDenied},
	} {
		got := ok
		if test.err != nil {
			got = ErrorOf(test.err).Code
		}
		if got != test.code {
			t.Errorf("%s: %q (%v), want %q", test.name, got, test.err, test.code)
		}
	}
	if paths, err := listOf(t, c, "/"); err != nil || !slices.Equal(paths, []string{"/certs/1", "/certs/web/key"}) {
		t.Errorf("list of everything: %q %v", paths, err)
	}
	n, err := c.KV.Count(ctx, connect.NewRequest(&apiv1.CountRequest{Prefix: "/"}))
	if err != nil || n.Msg.GetCount() != 2 {
		t.Errorf("count of everything: %v %v", n, err)
	}
	s.service.alarms.Raise("mirror-failing", "certs", "/hush/key cannot be written")
	for client, want := range map[*Client]bool{c: false, s.client: true} {
		status, err := client.Agent.Status(ctx, connect.NewRequest(&apiv1.StatusRequest{}))
		if err != nil || len(status.Msg.GetAlarms()) != 1 || strings.Contains(status.Msg.String(), "/hush") != want {
			t.Errorf("status with names: want %v, got %v %v", want, status.Msg, err)
		}
	}
	if _, err := s.client.KV.Delete(ctx, connect.NewRequest(&apiv1.DeleteRequest{Path: "/hush/key"})); err != nil {
		t.Fatal(err)
	}
	answers, err := c.Known(ctx, []*apiv1.KnownRequest_Version{{Path: "/hush/key", Version: version}, {Path: "/hush/never", Version: version}})
	if err != nil || answers[0].String() != answers[1].String() {
		t.Errorf("what may not be read, and nothing, are told apart: %v %v", answers, err)
	}
	if _, there := s.fake.items["/certs/2"]; there {
		t.Error("half of a batch was written")
	}
}

// Who came through no door may do nothing, so a handler without a caller fails closed.
func TestNobodyMayDoNothing(t *testing.T) {
	c, p := callerOf(context.Background()), fakePolicy{serial: 1}
	if c.rights.reads(p, "/a") || c.rights.writes(p, "/a") || c.mayControl("x") == nil || c.mayKnowPolicy() == nil || c.mayKnowAll(p, "x") == nil {
		t.Error("nobody may do something")
	}
}

// Without a policy nobody may read, and who steers the agent must still be able to try one before it comes into force.
func TestOnlyWhoSteersKnowsAllWithoutAPolicy(t *testing.T) {
	steers, reads := &caller{rights: everything{}, control: true}, &caller{rights: everything{}}
	if err := steers.mayKnowAll(nil, "x"); err != nil {
		t.Error(err)
	}
	if reads.mayKnowAll(nil, "x") == nil {
		t.Error("a caller that does not steer the agent may know all without a policy")
	}
}

// A watch shows its caller what it may read: parts of a write, and after a policy the present state anew.
func TestWatchOfANarrowedCaller(t *testing.T) {
	s, ctx := startServer(t), t.Context()
	if _, err := s.client.KV.Put(ctx, put("/gained/old", "v")); err != nil {
		t.Fatal(err)
	}
	narrow := &caller{name: "test", mark: "m", rights: onlyBelow{read: []string{"/a", "/lost"}, later: []string{"/a", "/gained"}}}
	c := s.clientOf(t, narrow)
	stream, err := c.KV.Watch(ctx, connect.NewRequest(&apiv1.WatchRequest{Prefixes: []string{"/"}, Values: true}))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close() //nolint:errcheck // nothing to lose
	cursor := ""
	want := func(events ...string) {
		t.Helper()
		var got []string
		for len(got) < len(events) && stream.Receive() {
			for _, e := range stream.Msg().GetEvents() {
				word := strings.ToLower(strings.TrimPrefix(e.GetType().String(), "EVENT_TYPE_"))
				got = append(got, strings.TrimSpace(fmt.Sprintf("%s %s", word, e.GetEntry().GetPath())))
				if e.GetMore() {
					got[len(got)-1] += " more"
				}
				cursor = e.GetCursor()
			}
		}
		if !slices.Equal(got, events) {
			t.Fatalf("events %q, want %q (%v)", got, events, stream.Err())
		}
	}
	write := func(paths ...string) {
		t.Helper()
		ops := make([]crdtstore.Op, len(paths))
		for i, path := range paths {
			ops[i].Path = path
		}
		if _, err := s.fake.Write(ctx, ops); err != nil {
			t.Fatal(err)
		}
	}
	want("synced")
	write("/a/1", "/gained/1", "/a/2", "/gained/2")
	want("put /a/1 more", "put /a/2")
	write("/gained/3")
	write("/lost/1")
	want("put /lost/1")

	// The end of a write too large for one message is not for this caller: what it sees last still says that it is all.
	large := make([]byte, streamBytes)
	if _, err := s.fake.Write(ctx, []crdtstore.Op{{Path: "/lost/1", Value: large}, {Path: "/lost/2", Value: large}, {Path: "/gained/5"}}); err != nil {
		t.Fatal(err)
	}
	want("put /lost/1 more", "put /lost/2")

	s.fake.mu.Lock()
	s.fake.policy = fakePolicy{serial: 2}
	s.fake.events = append(s.fake.events, crdtstore.Event{Type: crdtstore.EventPolicy})
	s.fake.ring()
	s.fake.mu.Unlock()
	want("policy", "reset", "put /a/1", "put /a/2", "put /gained/1", "put /gained/2", "put /gained/3", "put /gained/5", "put /gained/old", "synced")
	write("/lost/2", "/gained/4")
	want("put /gained/4")

	resume := func(since string, events ...string) {
		t.Helper()
		if stream, err = c.KV.Watch(ctx, connect.NewRequest(&apiv1.WatchRequest{Prefixes: []string{"/"}, Since: since})); err != nil {
			t.Fatal(err)
		}
		defer stream.Close() //nolint:errcheck // nothing to lose
		want(events...)
	}
	own := cursor
	write("/lost/3")
	write("/a/next")
	resume(own, "put /a/next")
	resume(strings.TrimSuffix(own, ".m"), // of somebody with other rights
		"reset", "put /a/1", "put /a/2", "put /a/next", "put /gained/1", "put /gained/2", "put /gained/3", "put /gained/4", "put /gained/5", "put /gained/old", "synced")
}

package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "syncagent/agent/api/v1"
	"syncagent/agent/api/v1/apiv1connect"
	"syncagent/crdtstore"
	"syncagent/crdtstore/record"
)

func put(path, value string) *connect.Request[apiv1.PutRequest] {
	return connect.NewRequest(&apiv1.PutRequest{Path: path, Value: []byte(value)})
}

func TestKVRoundTrip(t *testing.T) {
	s, ctx := startServer(t), t.Context()
	mode := uint32(0o640)
	written, err := s.client.KV.Put(ctx, connect.NewRequest(&apiv1.PutRequest{
		Path: "/a/b", Value: []byte("\x00\xff"), Mode: &mode, Expiry: &apiv1.PutRequest_Ttl{Ttl: durationpb.New(time.Hour)},
	}))
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.client.KV.Get(ctx, connect.NewRequest(&apiv1.GetRequest{Path: "/a/b"}))
	if err != nil {
		t.Fatal(err)
	}
	e := got.Msg.GetEntry()
	if string(e.GetValue()) != "\x00\xff" || e.GetMode() != 0o640 || e.GetSize() != 2 || e.GetAlias() != "web1" ||
		!strings.HasPrefix(e.GetVersion(), written.Msg.GetVersion()) || e.GetHlc() != written.Msg.GetHlc() ||
		time.Until(e.GetExpires().AsTime()) < 59*time.Minute {
		t.Errorf("%v", e)
	}
	if _, err := s.client.KV.Put(ctx, put("/a/empty", "")); err != nil {
		t.Fatal(err)
	}
	got, err = s.client.KV.Get(ctx, connect.NewRequest(&apiv1.GetRequest{Path: "/a/empty"}))
	if err != nil || got.Msg.GetEntry().Value == nil || got.Msg.GetEntry().Mode != nil || got.Msg.GetEntry().Expires != nil {
		t.Errorf("empty value: %v %v", got, err)
	}
	n, err := s.client.KV.Count(ctx, connect.NewRequest(&apiv1.CountRequest{Prefix: "/a/"}))
	if err != nil || n.Msg.GetCount() != 2 {
		t.Errorf("count: %v %v", n, err)
	}
	_, err = s.client.KV.Delete(ctx, connect.NewRequest(&apiv1.DeleteRequest{Path: "/a/b"}))
	if err != nil {
		t.Error(err)
	}
	_, err = s.client.KV.Delete(ctx, connect.NewRequest(&apiv1.DeleteRequest{Path: "/a/b"}))
	if ErrorOf(err).Code != CodeNotFound {
		t.Error(err)
	}
	_, err = s.client.KV.Delete(ctx, connect.NewRequest(&apiv1.DeleteRequest{Path: "/a/b", AllowMissing: true}))
	if err != nil {
		t.Error(err)
	}
}

// Every kind of refusal comes through the wire with its code, a message and where there should be one a hint.
func TestKVErrors(t *testing.T) {
	s, ctx := startServer(t), t.Context()
	s.fake.policy = fakePolicy{serial: 1, denied: []string{"/secret"}}
	s.fake.items["/x"] = crdtstore.Item{Path: "/x", Version: record.Version{HLC: 5}}
	s.fake.items["/secret/there"] = crdtstore.Item{Path: "/secret/there", Version: record.Version{HLC: 5}}
	zero, big := uint32(0), uint32(0o1000)
	get := func(path string) error {
		_, err := s.client.KV.Get(ctx, connect.NewRequest(&apiv1.GetRequest{Path: path}))
		return err
	}
	putting := func(r *apiv1.PutRequest) error {
		_, err := s.client.KV.Put(ctx, connect.NewRequest(r))
		return err
	}
	batch := func(ops ...*apiv1.Op) error {
		_, err := s.client.KV.Batch(ctx, connect.NewRequest(&apiv1.BatchRequest{Ops: ops}))
		return err
	}
	opPut := func(path string) *apiv1.Op {
		return &apiv1.Op{Op: &apiv1.Op_Put{Put: &apiv1.PutRequest{Path: path}}}
	}
	version := record.Version{HLC: 4}.String()
	for name, test := range map[string]struct {
		err  error
		code Code
	}{
		"missing":           {get("/nothing"), CodeNotFound},
		"denied there":      {get("/secret/there"), CodeDenied},
		"denied missing":    {get("/secret/missing"), CodeDenied},
		"sys":               {get("/.sys/x"), CodeDenied},
		"bad path":          {get("/a//b"), CodeBadPath},
		"relative":          {get("a"), CodeBadPath},
		"dots":              {get("/a/../b"), CodeBadPath},
		"slash":             {get("/a/"), CodeBadPath},
		"long":              {get("/" + strings.Repeat("a/", 600) + "a"), CodeBadPath},
		"put sys":           {putting(&apiv1.PutRequest{Path: "/.sys/x"}), CodeDenied},
		"put large":         {putting(&apiv1.PutRequest{Path: "/a", Value: make([]byte, record.MaxInlineValue+1)}), CodeTooLarge},
		"put mode 0":        {putting(&apiv1.PutRequest{Path: "/a", Mode: &zero}), CodeBadRequest},
		"put mode":          {putting(&apiv1.PutRequest{Path: "/a", Mode: &big}), CodeBadRequest},
		"put ttl":           {putting(&apiv1.PutRequest{Path: "/a", Expiry: &apiv1.PutRequest_Ttl{Ttl: durationpb.New(-1)}}), CodeBadRequest},
		"put expires":       {putting(&apiv1.PutRequest{Path: "/a", Expiry: &apiv1.PutRequest_Expires{Expires: timestamppb.New(time.Unix(1, 0))}}), CodeBadRequest},
		"put version":       {putting(&apiv1.PutRequest{Path: "/x", IfVersion: version}), CodePrecondition},
		"put bad version":   {putting(&apiv1.PutRequest{Path: "/x", IfVersion: "7"}), CodeBadRequest},
		"put absent":        {putting(&apiv1.PutRequest{Path: "/x", IfAbsent: true}), CodePrecondition},
		"put both":          {putting(&apiv1.PutRequest{Path: "/x", IfAbsent: true, IfVersion: version}), CodeBadRequest},
		"batch empty":       {batch(), CodeBadRequest},
		"batch nothing":     {batch(&apiv1.Op{}), CodeBadRequest},
		"batch twice":       {batch(opPut("/a"), opPut("/a")), CodeBadRequest},
		"batch path":        {batch(opPut("/a"), opPut("b")), CodeBadPath},
		"batch long":        {batch(make([]*apiv1.Op, record.MaxSlots+1)...), CodeTooLarge},
		"count denied":      {last(s.client.KV.Count(ctx, connect.NewRequest(&apiv1.CountRequest{Prefix: "/secret/x"}))), CodeDenied},
		"count sys":         {last(s.client.KV.Count(ctx, connect.NewRequest(&apiv1.CountRequest{Prefix: "/.sys"}))), CodeDenied},
		"policy nonsense":   {last(s.client.Policy.Apply(ctx, connect.NewRequest(&apiv1.ApplyRequest{Signed: []byte("x")}))), CodeBadPolicy},
		"policy low serial": {last(s.client.Policy.Apply(ctx, connect.NewRequest(&apiv1.ApplyRequest{Signed: []byte("serial 0")}))), CodePrecondition},
		"watch nothing":     {s.watchError(ctx, &apiv1.WatchRequest{}), CodeBadRequest},
		"watch sys":         {s.watchError(ctx, &apiv1.WatchRequest{Prefixes: []string{"/.sys"}}), CodeDenied},
		"watch denied":      {s.watchError(ctx, &apiv1.WatchRequest{Prefixes: []string{"/x", "/secret/x"}}), CodeDenied},
		"watch bad cursor":  {s.watchError(ctx, &apiv1.WatchRequest{Prefixes: []string{"/"}, Since: "zzz"}), CodeBadCursor},
		"list denied":       {s.listError(ctx, "/secret/x"), CodeDenied},
		"list bad":          {s.listError(ctx, "//"), CodeBadPath},
	} {
		t.Run(name, func(t *testing.T) {
			if test.err == nil {
				t.Fatal("no error")
			}
			e := ErrorOf(test.err)
			if e.Code != test.code || e.Message == "" {
				t.Errorf("code %s, want %s: %v", e.Code, test.code, test.err)
			}
		})
	}
	s.fake.policy = nil
	if e := ErrorOf(get("/a")); e.Code != CodeNoPolicy || e.Hint == "" {
		t.Errorf("no policy: %+v", e)
	}
	s.fake.policy = fakePolicy{}
	for _, r := range codeRows {
		if r.is == nil || errors.Is(r.is, context.Canceled) || errors.Is(r.is, context.DeadlineExceeded) {
			continue
		}
		s.fake.fail = fmt.Errorf("put: %w", r.is)
		if e := ErrorOf(putting(&apiv1.PutRequest{Path: "/a"})); e.Code != r.code || e.Hint != r.hint {
			t.Errorf("%v: %+v", r.is, e)
		}
	}
	s.fake.fail = errBroken
	if e := ErrorOf(putting(&apiv1.PutRequest{Path: "/a"})); e.Code != CodeInternal {
		t.Errorf("%+v", e)
	}
}

func last[T any](_ T, err error) error { return err }

func (s *testServer) watchError(ctx context.Context, r *apiv1.WatchRequest) error {
	stream, err := s.client.KV.Watch(ctx, connect.NewRequest(r))
	if err != nil {
		return err
	}
	defer stream.Close() //nolint:errcheck // its error is in Err
	for stream.Receive() {
	}
	return stream.Err()
}

func (s *testServer) listError(ctx context.Context, prefix string) error {
	stream, err := s.client.KV.List(ctx, connect.NewRequest(&apiv1.ListRequest{Prefix: prefix}))
	if err != nil {
		return err
	}
	defer stream.Close() //nolint:errcheck // its error is in Err
	for stream.Receive() {
	}
	return stream.Err()
}

// A list of more than one message gives every entry once, in order, with its own value.
func TestListStream(t *testing.T) {
	s, ctx := startServer(t), t.Context()
	const n = 2500
	for i := range n {
		path := fmt.Sprintf("/l/%05d", i)
		s.fake.items[path] = crdtstore.Item{Path: path, Version: record.Version{HLC: 1}, Value: []byte(path + strings.Repeat("x", 300)), Size: 308}
	}
	s.fake.items["/.sys/hidden"] = crdtstore.Item{Path: "/.sys/hidden", Version: record.Version{HLC: 1}}
	stream, err := s.client.KV.List(ctx, connect.NewRequest(&apiv1.ListRequest{Values: true}))
	if err != nil {
		t.Fatal(err)
	}
	i, messages, cursor := 0, 0, ""
	for stream.Receive() {
		messages++
		cursor += stream.Msg().GetCursor()
		for _, e := range stream.Msg().GetEntries() {
			want := fmt.Sprintf("/l/%05d", i)
			if e.GetPath() != want || !strings.HasPrefix(string(e.GetValue()), want) {
				t.Fatalf("entry %d is %s with %.10q", i, e.GetPath(), e.GetValue())
			}
			i++
		}
	}
	if stream.Err() != nil || i != n || messages < 3 || cursor != "0" {
		t.Errorf("%d entries in %d messages, cursor %q, %v", i, messages, cursor, stream.Err())
	}
	count, err := s.client.KV.Count(ctx, connect.NewRequest(&apiv1.CountRequest{}))
	if err != nil || count.Msg.GetCount() != n {
		t.Errorf("count %v %v", count, err)
	}
}

// events reads a watch until it has n events.
func events(t *testing.T, stream *connect.ServerStreamForClient[apiv1.WatchResponse], n int) (list []*apiv1.Event, messages int) {
	t.Helper()
	for len(list) < n {
		if !stream.Receive() {
			t.Fatalf("stream ended after %d of %d events: %v", len(list), n, stream.Err())
		}
		messages++
		list = append(list, stream.Msg().GetEvents()...)
	}
	return list, messages
}

func TestWatchStream(t *testing.T) {
	s := startServer(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := s.client.KV.Put(ctx, put("/w/a", "1")); err != nil {
		t.Fatal(err)
	}
	stream, err := s.client.KV.Watch(ctx, connect.NewRequest(&apiv1.WatchRequest{Prefixes: []string{"/w/"}, Values: true}))
	if err != nil {
		t.Fatal(err)
	}
	list, _ := events(t, stream, 2)
	if list[0].GetType() != apiv1.EventType_EVENT_TYPE_PUT || string(list[0].GetEntry().GetValue()) != "1" ||
		list[1].GetType() != apiv1.EventType_EVENT_TYPE_SYNCED || list[1].GetEntry() != nil {
		t.Errorf("present state: %v", list)
	}
	ops := []*apiv1.Op{{Op: &apiv1.Op_Delete{Delete: &apiv1.DeleteRequest{Path: "/w/a"}}}}
	for i := range 99 {
		ops = append(ops, &apiv1.Op{Op: &apiv1.Op_Put{Put: &apiv1.PutRequest{Path: fmt.Sprintf("/w/%d", i), Value: []byte("v")}}})
	}
	if _, err := s.client.KV.Batch(ctx, connect.NewRequest(&apiv1.BatchRequest{Ops: ops})); err != nil {
		t.Fatal(err)
	}
	list, messages := events(t, stream, 100)
	if messages != 1 {
		t.Errorf("one write came in %d messages", messages)
	}
	for i, e := range list {
		if e.GetMore() != (i < 99) || e.GetEntry().GetDeleted() != (i == 0) {
			t.Fatalf("event %d: %v", i, e)
		}
	}
	again, err := s.client.KV.Watch(ctx, connect.NewRequest(&apiv1.WatchRequest{Prefixes: []string{"/w"}, Since: list[49].GetCursor()}))
	if err != nil {
		t.Fatal(err)
	}
	resumed, _ := events(t, again, 50)
	if len(resumed) != 50 || resumed[0].GetEntry().GetPath() != list[50].GetEntry().GetPath() || resumed[0].GetEntry().Value != nil {
		t.Errorf("resumed with %d events, first %v", len(resumed), resumed[0])
	}
}

// Open watches do not hold up a stop; they are told that the agent stops.
func TestStopWithOpenWatches(t *testing.T) {
	s := startServer(t)
	streams := make([]*connect.ServerStreamForClient[apiv1.WatchResponse], 20)
	for i := range streams {
		var err error
		streams[i], err = s.client.KV.Watch(context.Background(), connect.NewRequest(&apiv1.WatchRequest{Prefixes: []string{"/"}}))
		if err != nil {
			t.Fatal(err)
		}
		events(t, streams[i], 1)
	}
	start := time.Now()
	s.stop()
	if took := time.Since(start); took > stopTimeout {
		t.Errorf("stopping took %v", took)
	}
	for _, stream := range streams {
		if stream.Receive() || ErrorOf(stream.Err()).Code != CodeStopping {
			t.Errorf("a watch ended with %v", stream.Err())
		}
	}
}

// A watch ends when its caller leaves, even if nothing happens that would have to be told.
func TestWatchEndsWhenItsCallerLeaves(t *testing.T) {
	s := startServer(t)
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := s.client.http.Transport.(*failover).all[0].transport.Clone()
	transport.Protocols = protocols
	defer transport.CloseIdleConnections()
	for name, client := range map[string]apiv1connect.KVClient{
		"connect": s.client.KV, "grpc": newKVClient(&http.Client{Transport: transport}, connect.WithGRPC()),
	} {
		ctx, cancel := context.WithCancel(t.Context())
		stream, err := client.Watch(ctx, connect.NewRequest(&apiv1.WatchRequest{Prefixes: []string{"/"}}))
		if err != nil {
			t.Fatal(err)
		}
		events(t, stream, 1)
		if s.watches.inside.Load() != 1 {
			t.Errorf("%s: %d watches", name, s.watches.inside.Load())
		}
		cancel()
		waitUntil(t, name+": the watch ended", func() bool { return s.watches.inside.Load() == 0 })
	}
}

// A caller that never reads cannot hold up a stop either.
func TestStopWithStuckReader(t *testing.T) {
	s := startServer(t)
	for i := range 200 {
		path := fmt.Sprintf("/big/%d", i)
		s.fake.items[path] = crdtstore.Item{Path: path, Version: record.Version{HLC: 1}, Value: make([]byte, 200<<10)}
	}
	stream, err := s.client.KV.List(context.Background(), connect.NewRequest(&apiv1.ListRequest{Values: true}))
	if err != nil {
		t.Fatal(err)
	}
	if !stream.Receive() {
		t.Fatal(stream.Err())
	}
	waitUntil(t, "the server is stuck in a write", func() bool {
		before := s.fake.listed.Load()
		<-time.After(50 * time.Millisecond)
		return before > 2 && before == s.fake.listed.Load()
	})
	start := time.Now()
	s.stop()
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("stopping took %v", took)
	}
}

// waitUntil polls a condition for up to a minute.
func waitUntil(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for !done() {
		select {
		case <-deadline:
			t.Fatalf("waited in vain: %s", what)
		case <-ticker.C:
		}
	}
}

// A request that does not arrive in time loses its connection; a stream may stay open for as long as it likes.
func TestRequestTimeout(t *testing.T) {
	s := startServer(t, func(s *server) { s.timeout = 100 * time.Millisecond })
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := s.client.http.Transport.(*failover).all[0].transport.Clone()
	transport.Protocols = protocols
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var streams []*connect.ServerStreamForClient[apiv1.WatchResponse]
	for _, client := range []interface {
		Watch(context.Context, *connect.Request[apiv1.WatchRequest]) (*connect.ServerStreamForClient[apiv1.WatchResponse], error)
	}{s.client.KV, newKVClient(&http.Client{Transport: transport}, connect.WithGRPC())} {
		stream, err := client.Watch(ctx, connect.NewRequest(&apiv1.WatchRequest{Prefixes: []string{"/"}}))
		if err != nil {
			t.Fatal(err)
		}
		events(t, stream, 1)
		streams = append(streams, stream)
	}
	conn, err := net.Dial("unix", s.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // broken by then
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprint(conn, "PUT /v1/kv/slow HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf")
	if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 400 ") {
		t.Errorf("half a request: %q %v", line, err)
	}
	<-time.After(300 * time.Millisecond) // more than the timeout: the streams' time is up, if they had one
	if _, err := s.client.KV.Put(ctx, put("/late", "1")); err != nil {
		t.Fatal(err)
	}
	for _, stream := range streams {
		if list, _ := events(t, stream, 1); list[0].GetEntry().GetPath() != "/late" {
			t.Errorf("%v", list)
		}
	}
	if len(s.fake.items) != 1 {
		t.Error("half a value was stored")
	}
}

func TestRequestLimit(t *testing.T) {
	s := startServer(t, func(s *server) { s.watches.set(1) })
	first, err := s.client.KV.Watch(t.Context(), connect.NewRequest(&apiv1.WatchRequest{Prefixes: []string{"/"}}))
	if err != nil {
		t.Fatal(err)
	}
	events(t, first, 1)
	err = s.watchError(t.Context(), &apiv1.WatchRequest{Prefixes: []string{"/"}})
	if e := ErrorOf(err); e.Code != CodeBusy || e.Hint == "" {
		t.Errorf("%+v", e)
	}
	if _, err := s.client.KV.Put(t.Context(), put("/a", "")); err != nil {
		t.Errorf("other requests: %v", err)
	}
}

func TestRawKV(t *testing.T) {
	s := startServer(t)
	r, _ := s.do(t, "PUT", "/v1/kv/a/b%20c/%C3%A9", "value\x00", "X-Syncagent-Mode", "0600", "X-Syncagent-TTL", "1h")
	if r.StatusCode != 204 {
		t.Fatal(r.Status)
	}
	etag := r.Header.Get("ETag")
	r, body := s.do(t, "GET", "/v1/kv/a/b%20c/%C3%A9", "")
	if r.StatusCode != 200 || body != "value\x00" || r.Header.Get("ETag") != etag || r.Header.Get("X-Syncagent-Mode") != "0600" ||
		r.Header.Get("X-Syncagent-Alias") != "web1" || r.Header.Get("X-Syncagent-Expires") == "" || r.Header.Get("Content-Length") != "6" {
		t.Errorf("%v %q", r, body)
	}
	r, body = s.do(t, "HEAD", "/v1/kv/a/b%20c/%C3%A9", "")
	if r.StatusCode != 200 || body != "" || r.ContentLength != 6 || r.Header.Get("ETag") != etag {
		t.Errorf("HEAD: %v", r)
	}
	if r, _ := s.do(t, "PUT", "/v1/kv/a/b%20c/%C3%A9", "2", "If-None-Match", "*"); r.StatusCode != 412 {
		t.Errorf("If-None-Match: %v", r.Status)
	}
	if r, _ := s.do(t, "PUT", "/v1/kv/a/b%20c/%C3%A9", "2", "If-Match", etag); r.StatusCode != 204 {
		t.Errorf("If-Match: %v", r.Status)
	}
	if r, _ := s.do(t, "PUT", "/v1/kv/a/b%20c/%C3%A9", "2", "If-Match", etag); r.StatusCode != 412 {
		t.Errorf("outdated If-Match: %v", r.Status)
	}
	if r, _ := s.do(t, "DELETE", "/v1/kv/a/b%20c/%C3%A9", ""); r.StatusCode != 204 {
		t.Errorf("DELETE: %v", r.Status)
	}
	r, body = s.do(t, "GET", "/v1/kv/a/b%20c/%C3%A9", "")
	var answer struct {
		Error struct{ Code, Message, Hint string }
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil || r.StatusCode != 404 || answer.Error.Code != "not_found" || answer.Error.Message == "" {
		t.Errorf("%v %s %v", r.Status, body, err)
	}
	exact := strings.Repeat("x", record.MaxInlineValue)
	if r, _ := s.do(t, "PUT", "/v1/kv/big", exact); r.StatusCode != 204 {
		t.Errorf("largest value: %v", r.Status)
	}
	if r, _ := s.do(t, "PUT", "/v1/kv/big", exact+"x"); r.StatusCode != 413 {
		t.Errorf("one byte more: %v", r.Status)
	}
	if r, _ := s.do(t, "POST", "/v1/kv/big", ""); r.StatusCode != 400 || r.Header.Get("Allow") == "" {
		t.Errorf("POST: %v", r.Status)
	}
	if r, _ := s.do(t, "PUT", "/v1/kv/big?if-version=7", ""); r.StatusCode != 400 {
		t.Errorf("unknown parameter: %v", r.Status)
	}
}

// What a raw request line may look like, byte by byte. Nothing is cleaned, nothing redirects, and what is refused leaves
// nothing behind.
func TestRawPathsAreNotCleaned(t *testing.T) {
	s := startServer(t)
	s.fake.items["/b"] = crdtstore.Item{Path: "/b", Version: record.Version{HLC: 1}}
	for target, want := range map[string]int{
		"/v1/kv/b":          204,
		"/v1/kv/%62":        204, // the same path, escaped
		"/v1/kv/a%2F..%2Fb": 400,
		"/v1/kv/a%2fb":      400,
		"/v1/kv/a/../b":     400,
		"/v1/kv/a/%2e%2e/b": 400,
		"/v1/kv/./b":        400,
		"/v1/kv//b":         400,
		"/v1/kv/b/":         400,
		"/v1/kv/":           400,
		"/v1/kv":            400,
		"/v1/kv/%00":        400,
		"/v1/kv/%ff":        400,
		"/v1/kv/%zz":        400,
		"/v1/kv/a\\..\\b":   204, // a backslash is a letter like any other
		"/v1/kv/..":         400,
		"/v1/kv/../kv/b":    400,
		"/x/../v1/kv/b":     405,
		"//v1/kv/b":         405,
		"/V1/kv/b":          405,
		"/v1/kvs/b":         405,
		"/v1/kv/.sys/x":     403,
		"/v1/kv/%2esys/x":   403,
		"/v1/kv/" + strings.Repeat("a/", 500) + "b": 400,
	} {
		conn, err := net.Dial("unix", s.socket)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		fmt.Fprintf(conn, "PUT %s HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nConnection: close\r\n\r\nv", target)
		line, err := bufio.NewReader(conn).ReadString('\n')
		if err != nil || !strings.HasPrefix(line, fmt.Sprintf("HTTP/1.1 %d ", want)) {
			t.Errorf("PUT %.40s: %q %v, want %d", target, line, err, want)
		}
		_ = conn.Close()
	}
	if len(s.fake.items) != 2 {
		t.Errorf("the store has %d paths", len(s.fake.items))
	}
}

// JSON by hand, as curl sends it.
func TestConnectJSON(t *testing.T) {
	s := startServer(t)
	r, body := s.do(t, "POST", "/syncagent.v1.KV/Put", `{"path":"/j","value":"aGk="}`, "Content-Type", "application/json")
	if r.StatusCode != 200 || !strings.Contains(body, `"paths"`) {
		t.Errorf("%v %s", r.Status, body)
	}
	if got := s.fake.items["/j"]; string(got.Value) != "hi" {
		t.Errorf("%q", got.Value)
	}
	r, body = s.do(t, "POST", "/syncagent.v1.KV/Get", `{"path":"/none"}`, "Content-Type", "application/json")
	if r.StatusCode != 404 || !strings.Contains(body, "not_found") {
		t.Errorf("%v %s", r.Status, body)
	}
	r, _ = s.do(t, "POST", "/syncagent.v1.KV/Nope", `{}`, "Content-Type", "application/json")
	if r.StatusCode != 404 && r.StatusCode != 501 {
		t.Errorf("unknown method: %v", r.Status)
	}
	r, body = s.do(t, "POST", "/syncagent.v1.KV/Put", `{"path":"/j","valeu":"aGk="}`, "Content-Type", "application/json")
	if r.StatusCode != 400 || string(s.fake.items["/j"].Value) != "hi" {
		t.Errorf("misspelt field: %v %s", r.Status, body)
	}
	r, body = s.do(t, "POST", "/syncagent.v1.Agent/Status", `{}`, "Content-Type", "application/json; charset=utf-8")
	if r.StatusCode != 200 || !strings.Contains(body, `"peer_id"`) {
		t.Errorf("%v %s", r.Status, body)
	}
}

// A field from a newer caller is refused, wherever it stands, and never ignored.
func TestUnknownFieldsAreRefused(t *testing.T) {
	s, ctx := startServer(t), t.Context()
	newer := func(m proto.Message) {
		m.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 1000, protowire.VarintType), 1))
	}
	one := &apiv1.PutRequest{Path: "/a"}
	newer(one)
	_, err := s.client.KV.Put(ctx, connect.NewRequest(one))
	if e := ErrorOf(err); e == nil || e.Code != CodeBadRequest || e.Hint == "" {
		t.Errorf("put: %v", err)
	}
	_, err = s.client.KV.Batch(ctx, connect.NewRequest(&apiv1.BatchRequest{Ops: []*apiv1.Op{{Op: &apiv1.Op_Put{Put: one}}}}))
	if e := ErrorOf(err); e == nil || e.Code != CodeBadRequest {
		t.Errorf("batch: %v", err)
	}
	list := &apiv1.ListRequest{}
	newer(list)
	stream, err := s.client.KV.List(ctx, connect.NewRequest(list))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close() //nolint:errcheck // its error is in Err
	if stream.Receive() || ErrorOf(stream.Err()).Code != CodeBadRequest {
		t.Errorf("list: %v", stream.Err())
	}
	if len(s.fake.items) != 0 {
		t.Error("something was written")
	}
}

// The three protocols of Connect work on the socket, gRPC over HTTP/2 without TLS among them.
func TestProtocols(t *testing.T) {
	s := startServer(t)
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := s.client.http.Transport.(*failover).all[0].transport.Clone()
	transport.Protocols = protocols
	defer transport.CloseIdleConnections()
	for name, option := range map[string]connect.ClientOption{"grpc": connect.WithGRPC(), "grpc-web": connect.WithGRPCWeb()} {
		client := newKVClient(&http.Client{Transport: transport}, option)
		if _, err := client.Put(t.Context(), put("/p/"+name, name)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		_, err := client.Get(t.Context(), connect.NewRequest(&apiv1.GetRequest{Path: "/none"}))
		if e := ErrorOf(err); e.Code != CodeNotFound {
			t.Errorf("%s: %+v", name, e)
		}
		stream, err := client.Watch(t.Context(), connect.NewRequest(&apiv1.WatchRequest{Prefixes: []string{"/p/" + name}}))
		if err != nil {
			t.Fatal(err)
		}
		events(t, stream, 2)
		_ = stream.Close()
	}
}

func TestServices(t *testing.T) {
	s, ctx := startServer(t), t.Context()
	s.service.alarms.Raise(alarmClock, "", "off")
	status, err := s.client.Agent.Status(ctx, connect.NewRequest(&apiv1.StatusRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	m := status.Msg
	if !m.GetReady() || m.GetBlocks() != 7 || m.GetPolicySerial() != 1 || len(m.GetPeers()) != 2 || len(m.GetAlarms()) != 1 ||
		m.GetAlarms()[0].GetHint() == "" || m.GetName() != "test" {
		t.Errorf("%v", m)
	}
	if _, err := s.client.Agent.PausePeers(ctx, connect.NewRequest(&apiv1.PausePeersRequest{})); err != nil {
		t.Error(err)
	}
	peers, err := s.client.Agent.Peers(ctx, connect.NewRequest(&apiv1.PeersRequest{}))
	if err != nil || !peers.Msg.GetPaused() {
		t.Errorf("%v %v", peers, err)
	}
	if _, err := s.client.Agent.ResumePeers(ctx, connect.NewRequest(&apiv1.ResumePeersRequest{})); err != nil || s.service.peers.Paused() {
		t.Error(err)
	}
	if id, err := s.client.Agent.ID(ctx, connect.NewRequest(&apiv1.IDRequest{})); err != nil || len(id.Msg.GetAddrs()) != 1 {
		t.Errorf("%v %v", id, err)
	}
	if _, err := s.client.Policy.Show(ctx, connect.NewRequest(&apiv1.ShowRequest{})); ErrorOf(err).Code != CodeNoPolicy {
		t.Errorf("%v", err)
	}
	applied, err := s.client.Policy.Apply(ctx, connect.NewRequest(&apiv1.ApplyRequest{Signed: []byte("serial 3")}))
	if err != nil || applied.Msg.GetSerial() != 3 {
		t.Errorf("%v %v", applied, err)
	}
	shown, err := s.client.Policy.Show(ctx, connect.NewRequest(&apiv1.ShowRequest{}))
	if err != nil || string(shown.Msg.GetSigned()) != "serial 3" || shown.Msg.GetHash() != applied.Msg.GetHash() {
		t.Errorf("%v %v", shown, err)
	}
}

// The TCP port has health and metrics, and nothing that leads to a key.
func TestPlainHandler(t *testing.T) {
	s := startServer(t)
	if _, err := s.client.KV.Put(t.Context(), put("/hush/name", "hush-value")); err != nil {
		t.Fatal(err)
	}
	l, err := listenTCP("api.http", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- serve(ctx, l, s.plainHandler(), quiet()) }()
	defer func() { cancel(); <-done }()
	base := "http://" + l.Addr().String()
	fetch := func(method, path string) (int, string) {
		r, err := http.NewRequest(method, base+path, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close() //nolint:errcheck // read only
		var b strings.Builder
		if _, err := bufio.NewReader(response.Body).WriteTo(&b); err != nil {
			t.Fatal(err)
		}
		return response.StatusCode, b.String()
	}
	for path, want := range map[string]int{
		"/healthz": 200, "/readyz": 200, "/metrics": 200, "/": 200, "/index.html": 404, "/v1/kv/hush/name": 404, "/syncagent.v1.KV/Get": 404,
		"/debug/pprof/": 404, "/healthz/../v1/kv/hush/name": 404,
	} {
		if code, body := fetch("GET", path); code != want || strings.Contains(body, "hush") {
			t.Errorf("GET %s: %d %.80s", path, code, body)
		}
	}
	for _, method := range []string{"POST", "PUT", "DELETE"} {
		for _, path := range []string{"/syncagent.v1.KV/Put", "/v1/kv/hush/name", "/syncagent.v1.Agent/PausePeers"} {
			if code, _ := fetch(method, path); code != 405 {
				t.Errorf("%s %s: %d", method, path, code)
			}
		}
	}
	_, text := fetch("GET", "/metrics")
	for _, want := range []string{
		`syncagent_api_requests_total{code="ok",method="KV/Put"} 1`, "syncagent_keys 1", "syncagent_ready 1", "syncagent_peers_known 2",
		"syncagent_build_info{", `syncagent_peer_clock_skew_seconds{peer="12D3x"} 0.0015`, "process_resident_memory_bytes", "syncagent_watches 0",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	s.stop()
	if code, _ := fetch("GET", "/readyz"); code != 503 {
		t.Errorf("readyz after the stop: %d", code)
	}
	if code, _ := fetch("GET", "/healthz"); code != 200 {
		t.Errorf("healthz after the stop: %d", code)
	}
}

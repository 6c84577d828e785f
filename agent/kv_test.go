package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "syncagent/agent/api/v1"
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

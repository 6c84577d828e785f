package agent

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	apiv1 "syncagent/agent/api/v1"
	"syncagent/agent/api/v1/apiv1connect"
	"syncagent/crdtstore"
	"syncagent/crdtstore/record"
)

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

func TestWatchEndsWhenItsCallerLeaves(t *testing.T) {
	s := startServer(t)
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := s.client.http.Transport.(*failover).all[0].transport.(*http.Transport).Clone()
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

package agent

import (
	"testing"

	"connectrpc.com/connect"

	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore"
	"syncagent/crdtstore/record"
)

// TestHistoryAndRestore holds what can be seen of a path's past, and what can be brought back.
func TestHistoryAndRestore(t *testing.T) {
	s := startServer(t, func(s *server) { s.kv.store.(*fakeStore).policy = fakePolicy{serial: 1, denied: []string{"/denied"}} })
	ctx := t.Context()
	dropped := record.Version{HLC: 1}
	s.fake.events = append(s.fake.events, crdtstore.Event{Item: crdtstore.Item{Path: "/p", Version: dropped, Size: -1}})
	mode := uint32(0o600)
	first, err := s.client.KV.Put(ctx, connect.NewRequest(&apiv1.PutRequest{Path: "/p", Value: []byte("one"), Mode: &mode}))
	if err != nil {
		t.Fatal(err)
	}
	gone, err := s.client.KV.Delete(ctx, connect.NewRequest(&apiv1.DeleteRequest{Path: "/p"}))
	if err != nil {
		t.Fatal(err)
	}

	h, err := s.client.KV.History(ctx, connect.NewRequest(&apiv1.HistoryRequest{Path: "/p"}))
	if err != nil {
		t.Fatal(err)
	}
	e := h.Msg.GetEntries()
	if len(e) != 3 || !e[0].GetDeleted() || e[1].GetSize() != 3 || e[1].Value != nil || !e[2].GetDropped() || e[2].GetSize() != 0 {
		t.Errorf("history %v", e)
	}
	h, err = s.client.KV.History(ctx, connect.NewRequest(&apiv1.HistoryRequest{Path: "/p", Version: first.Msg.GetVersion(), Values: true}))
	if err != nil || len(h.Msg.GetEntries()) != 1 || string(h.Msg.GetEntries()[0].GetValue()) != "one" || h.Msg.GetMore() {
		t.Errorf("one version: %v, %v", h, err)
	}
	h, err = s.client.KV.History(ctx, connect.NewRequest(&apiv1.HistoryRequest{Path: "/p", Limit: 2}))
	if err != nil || len(h.Msg.GetEntries()) != 2 || !h.Msg.GetMore() {
		t.Errorf("two versions: %v, %v", h, err)
	}

	for _, tc := range []struct {
		version, ifVersion string
		path               string
		want               Code
	}{
		{gone.Msg.GetVersion(), "", "/p", CodeBadRequest},
		{dropped.String(), "", "/p", CodeNotFound},
		{record.Version{HLC: 99}.String(), "", "/p", CodeNotFound},
		{"", "", "/p", CodeBadRequest},
		{first.Msg.GetVersion(), first.Msg.GetVersion(), "/p", CodePrecondition},
		{first.Msg.GetVersion(), "", "/denied/p", CodeDenied},
		{first.Msg.GetVersion(), "", "/.sys/p", CodeDenied},
		{first.Msg.GetVersion(), "", "p", CodeBadPath},
	} {
		_, err := s.client.KV.Restore(ctx, connect.NewRequest(&apiv1.RestoreRequest{Path: tc.path, Version: tc.version, IfVersion: tc.ifVersion}))
		if e := ErrorOf(err); e == nil || e.Code != tc.want {
			t.Errorf("restore %s %s: %v, want %s", tc.path, tc.version, err, tc.want)
		}
	}
	for _, r := range []*apiv1.HistoryRequest{{Path: "/denied/p"}, {Path: "/nope"}, {Path: "/p", Limit: -1}, {Path: "/p", Limit: 1001}, {Path: "/p", Version: "x"}} {
		if _, err := s.client.KV.History(ctx, connect.NewRequest(r)); err == nil {
			t.Errorf("history of %v: no error", r)
		}
	}

	if _, err := s.client.KV.Restore(ctx, connect.NewRequest(&apiv1.RestoreRequest{Path: "/p", Version: first.Msg.GetVersion()})); err != nil {
		t.Fatal(err)
	}
	got, err := s.client.KV.Get(ctx, connect.NewRequest(&apiv1.GetRequest{Path: "/p"}))
	if err != nil || string(got.Msg.GetEntry().GetValue()) != "one" || got.Msg.GetEntry().GetMode() != mode {
		t.Errorf("restored %v, %v", got, err)
	}
}

package agent

import (
	"context"
	"testing"

	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore"
)

// Whose right ends in the middle of a write goes on after all of it, and is not told the rest again and again.
func TestCursorMovesOnThoughAWriteEndsHidden(t *testing.T) {
	ctx := withCaller(t.Context(), &caller{name: "test", mark: "m", rights: onlyBelow{read: []string{"/a"}}})
	var got []*apiv1.Event
	w := newWatcher(ctx, newFakeStore(), func(_ context.Context, m *apiv1.WatchResponse) error {
		got = append(got, m.GetEvents()...)
		return nil
	})
	for _, e := range []crdtstore.Event{
		{Type: crdtstore.EventSynced, Cursor: "1"},
		{Type: crdtstore.EventPut, Item: crdtstore.Item{Path: "/a/x"}, Cursor: "1", More: true},
		{Type: crdtstore.EventPut, Item: crdtstore.Item{Path: "/b"}, Cursor: "2"},
	} {
		if err := w.event(e); err != nil {
			t.Fatal(err)
		}
	}
	if len(got) != 2 || got[1].GetMore() || got[1].GetCursor() != "2.m" {
		t.Errorf("told %v", got)
	}
}

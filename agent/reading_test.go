package agent

import (
	"context"
	"errors"
	"testing"

	"syncagent/crdtstore"
)

// Who leaves stops what went over the store for it, whether or not there was anything to tell.
func TestReadingEndsWithItsCaller(t *testing.T) {
	store := newFakeStore()
	if _, err := store.Write(t.Context(), []crdtstore.Op{{Path: "/a/1"}, {Path: "/b/2"}}); err != nil {
		t.Fatal(err)
	}
	k := &kv{store: store}
	ctx, cancel := context.WithCancel(withCaller(t.Context(), &caller{name: "test", rights: onlyBelow{read: []string{"/b"}}}))
	b, err := k.open(ctx, "/")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if n, err := b.count(ctx); n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	cancel()
	if _, err := b.count(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

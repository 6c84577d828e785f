package crdtstore

import (
	"context"
	"errors"
	"testing"
)

// TestNewerFormatStopsWrites holds that an agent which does not know the format of its network reads and takes what
// others write, and writes nothing itself, until the policy asks for one that it knows.
func TestNewerFormatStopsWrites(t *testing.T) {
	n := newTestNet(t, 1)
	a := n.start("a", nil)
	rules := []string{"a peer", "a / rw"}
	a.apply(n.policy([]string{"a"}, rules...))
	a.put("/x", "1")
	a.apply(n.policy([]string{"a"}, append(rules, "format 2")...))
	if _, err := a.Write(context.Background(), []Op{{Path: "/x", Value: []byte("2")}}); !errors.Is(err, ErrFormat) {
		t.Errorf("a write under format 2: %v", err)
	}
	if got := a.get("/x"); got != "1" {
		t.Errorf("reads %q", got)
	}
	if !a.alarmed("old-version") {
		t.Error("no alarm")
	}
	a.apply(n.policy([]string{"a"}, rules...))
	a.put("/x", "3")
}

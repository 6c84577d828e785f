package crdtstore

import (
	"context"
	"fmt"
	"testing"
)

// TestRecent holds that the last changes come newest first, cut at the limit, without values and without what was
// superseded, and with deletes and policies.
func TestRecent(t *testing.T) {
	_, a, _, _ := three(t, 1)
	write := func(ops ...Op) {
		t.Helper()
		if _, err := a.Write(context.Background(), ops); err != nil {
			t.Fatal(err)
		}
	}
	recent := func(limit int) (out []string) {
		t.Helper()
		snap, err := a.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		defer snap.Close()
		events, err := snap.Recent(limit)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			if e.Item.Value != nil {
				t.Errorf("a value: %v", e)
			}
			out = append(out, fmt.Sprint(e.Type, e.Item.Path))
		}
		return out
	}
	write(Op{Path: "/x/1", Value: []byte("v")})
	write(Op{Path: "/x/2", Value: []byte("v")}, Op{Path: "/x/3", Value: []byte("v")})
	write(Op{Path: "/x/1", Delete: true})
	if got := fmt.Sprint(recent(3)); got != "[2/x/1 1/x/3 1/x/2]" {
		t.Error(got)
	}
	if got := fmt.Sprint(recent(2)); got != "[2/x/1 1/x/3]" {
		t.Error(got)
	}
	if all := recent(50); all[len(all)-1] != "5" || len(all) != 5 { // the policy came first, the put of /x/1 is still held
		t.Error(all)
	}
}

package crdtstore

import (
	"context"
	"fmt"
	"testing"

	"syncagent/acl"
)

// TestRowsAreRightAfterAnyPolicies lets policies follow each other while the rows are still being put right by earlier
// ones, and over restarts. In the end the store is what one is that never knew another policy than the last.
func TestRowsAreRightAfterAnyPolicies(t *testing.T) {
	const prefixes, paths = 60, 100 // more than a turn looks at
	n := newTestNet(t, 7)
	t.Logf("seed %d", 7)
	all := n.policy(hosts, "* peer", "* / rw")
	keeper := n.start("c", nil)
	keeper.apply(all)
	a, b := n.start("a", nil), n.start("b", nil)
	for _, nd := range []*node{a, b} {
		nd.apply(all)
		var ops []Op
		for i := range prefixes * paths {
			ops = append(ops, Op{Path: fmt.Sprintf("/%d/%d", i%prefixes, i/prefixes), Value: []byte(nd.name)})
		}
		for ; len(ops) > 0; ops = ops[min(len(ops), 1000):] {
			if _, err := nd.Write(context.Background(), ops[:min(len(ops), 1000)]); err != nil {
				t.Fatal(err)
			}
		}
	}
	meet(a, b, keeper)
	lines := []string{"* peer", "c / rw"}
	for i := range 2 * prefixes {
		lines = append(lines, fmt.Sprintf("%s /%d rw", hosts[i%2], i/2))
	}
	for range 40 {
		var done []chan error
		for range 1 + n.rand.IntN(6) { // without a turn between them
			for range 1 + n.rand.IntN(10) { // few lines change from one policy to the next
				i := 2 + n.rand.IntN(2*prefixes)
				op := []string{"read", "write", "rw", "rw"}[n.rand.IntN(4)]
				lines[i] = fmt.Sprintf("%s /%d %s", hosts[i%2], (i-2)/2, op)
			}
			signed, err := acl.ParseSigned(n.policy(hosts, lines...))
			if err != nil {
				t.Fatal(err)
			}
			done = append(done, make(chan error, 1))
			a.inbox <- &policyRequest{signed, done[len(done)-1]}
		}
		for _, d := range done {
			if err := <-d; err != nil {
				t.Fatal(err)
			}
		}
		switch n.rand.IntN(6) {
		case 0, 1:
			a.settle()
		case 2:
			disk := a.disk
			a.stop()
			a = n.start("a", disk)
		}
	}
	last := n.policy(hosts, lines...)
	a.apply(last)
	keeper.apply(last)
	a.fetch(keeper)
	a.stop()
	fresh := n.start("a", nil)
	fresh.apply(last)
	fresh.pull(keeper)
	got, want := a.Stats(), fresh.Stats()
	if got.ViewDigest != want.ViewDigest || got.Entries != want.Entries || got.Withheld != want.Withheld || got.Missing != want.Missing {
		t.Fatalf("after many policies %d entries, %d withheld, %d missing; with the last alone %d, %d, %d",
			got.Entries, got.Withheld, got.Missing, want.Entries, want.Withheld, want.Missing)
	}
	if fresh.Stats().Entries == 0 || fresh.Stats().Withheld == 0 {
		t.Fatal("the last policy hides nothing or everything: the test shows nothing")
	}
}

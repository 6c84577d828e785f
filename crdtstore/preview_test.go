package crdtstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"syncagent/acl"
	"syncagent/crdtstore/record"
)

// preview tells what a policy of these lines would change at a node, one string a path.
func (n *testNet) preview(nd *node, names []string, lines ...string) []string {
	n.t.Helper()
	signed, err := acl.ParseSigned(n.policy(names, lines...))
	if err != nil {
		n.t.Fatal(err)
	}
	snap, err := nd.Snapshot()
	if err != nil {
		n.t.Fatal(err)
	}
	defer snap.Close()
	shows := func(i *Item) string {
		if i == nil {
			return "-"
		}
		return n.nameOf(i.Author)
	}
	var out []string
	err = snap.Preview(n.t.Context(), acl.CompileFile(n.id, signed.File), func(c PathChange) error {
		line := c.Path + " " + shows(c.Now) + ">" + shows(c.Then)
		if c.Lost != nil {
			line += " lost"
		}
		out = append(out, line)
		return nil
	})
	if err != nil {
		n.t.Fatal(err)
	}
	slices.Sort(out)
	return out
}

func (n *testNet) nameOf(k record.PublicKey) string {
	for _, name := range []string{"a", "b", "c"} {
		if record.KeyOf(testKey(name)) == k {
			return name
		}
	}
	return "?"
}

func TestPreviewTellsWhatAPolicyWouldChange(t *testing.T) {
	n := newTestNet(t, 3)
	names := []string{"a", "b"}
	open := []string{"* peer", "* / rw"}
	a, b := n.start("a", nil), n.start("b", nil)
	a.apply(n.policy(names, open...))
	meet(a, b)
	a.put("/both", "a's")
	a.put("/a", "1")
	a.put("/hidden/x", "a's secret")
	meet(a, b)
	b.put("/both", "b's")
	b.put("/b", "2")
	b.put("/gone", "3")
	if _, err := b.Write(context.Background(), []Op{{Path: "/a", Delete: true}}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Write(context.Background(), []Op{{Path: "/gone", Delete: true}}); err != nil {
		t.Fatal(err)
	}
	meet(a, b)
	// b made the winners: without it, a's versions come back where they are, and the rest is lost.
	got := n.preview(a, names, "a peer", "a / rw", "b peer")
	if want := []string{"/a ->a", "/b b>- lost", "/both b>a lost"}; !slices.Equal(got, want) {
		t.Errorf("without b: %q, want %q", got, want)
	}
	if got := n.preview(a, names, open...); got != nil {
		t.Errorf("the same policy changes %q", got)
	}
	// A read right that goes takes the value from here, and loses nothing.
	got = n.preview(a, names, "* peer", "* / write", "b / read", "a /b read", "a /a read", "a /both read")
	if want := []string{"/hidden/x a>-"}; !slices.Equal(got, want) {
		t.Errorf("reading less: %q, want %q", got, want)
	}
	// What this agent may not read can be lost all the same; it has no name here.
	a.apply(n.policy(names, "* peer", "* / write", "b / read", "a /b read", "a /a read", "a /both read"))
	got = n.preview(a, names, "* peer", "b / rw", "a /b read", "a /a read", "a /both read")
	if want := []string{" ->- lost"}; !slices.Equal(got, want) {
		t.Errorf("a hidden path: %q, want %q", got, want)
	}
	// What this agent wrote it holds, and can show as soon as it may read it.
	got = n.preview(a, names, open...)
	if want := []string{"/hidden/x ->a"}; !slices.Equal(got, want) {
		t.Errorf("reading more: %q, want %q", got, want)
	}
}

func TestWrittenListsWhatAKeyWrote(t *testing.T) {
	n := newTestNet(t, 4)
	names := []string{"a", "b"}
	a, b := n.start("a", nil), n.start("b", nil)
	a.apply(n.policy(names, "* peer", "* / rw"))
	meet(a, b)
	b.put("/x", "old")
	since := record.HLCFromMilli(n.clock.wall + 1)
	n.clock.advance(1e9)
	b.put("/x", "new")
	b.put("/y", "lost")
	meet(a, b)
	a.put("/y", "a's")
	list := func(since record.HLC) string {
		snap, err := a.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		defer snap.Close()
		var out []string
		err = snap.Written(n.t.Context(), record.KeyOf(testKey("b")), since, func(i Item, shown bool) error {
			line := i.Path
			if shown {
				line += "*"
			}
			out = append(out, line)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(out)
		return strings.Join(out, " ")
	}
	if got := list(0); got != "/x /x* /y" {
		t.Errorf("all: %s", got)
	}
	if got := list(since); got != "/x* /y" {
		t.Errorf("since: %s", got)
	}
}

// Who asked may leave before any path is worth telling, and the store is closed soon after that.
func TestLookAtAllPathsEndsWithItsCaller(t *testing.T) {
	n := newTestNet(t, 4)
	a := n.start("a", nil)
	text := n.policy([]string{"a"}, "* peer", "* / rw")
	a.apply(text)
	a.put("/x", "1")
	a.put("/y", "1")
	snap, err := a.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	left, leave := context.WithCancel(t.Context())
	leave()
	if err := snap.Preview(left, a.Policy(), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("preview: %v", err)
	}
	if err := snap.Written(left, record.KeyOf(testKey("b")), 0, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("written: %v", err)
	}
}

// BenchmarkPreview looks at 100,000 paths; a policy is applied after one such look.
func BenchmarkPreview(b *testing.B) {
	n := newTestNet(b, 1)
	a := benchStore(b, n, 100_000, 1000)
	signed, err := acl.ParseSigned(n.policy(hosts, "* peer", "* / read"))
	if err != nil {
		b.Fatal(err)
	}
	next := acl.CompileFile(n.id, signed.File)
	for b.Loop() {
		snap, err := a.Snapshot()
		if err != nil {
			b.Fatal(err)
		}
		lost := 0
		err = snap.Preview(n.t.Context(), next, func(c PathChange) error {
			if c.Lost != nil {
				lost++
			}
			return nil
		})
		snap.Close()
		if err != nil || lost != 100_000 {
			b.Fatalf("%d lost, %v", lost, err)
		}
	}
}

// BenchmarkPolicySwitch puts another policy in force over 100,000 paths: from its return on every read judges by it.
// settled/op is when all rows are right by it. Reads go on meanwhile: read-p99 is of one a millisecond in that time.
func BenchmarkPolicySwitch(b *testing.B) {
	for _, c := range []struct {
		changes string
		turns   [2]string // one policy each, by turns
	}{
		{"nothing", [2]string{"* / rw", "* / rw"}},
		{"1%", [2]string{"* /bench/1 write", "* /bench/1 rw"}},
		{"99%", [2]string{"* /bench/1 rw", "* / rw"}},
	} {
		b.Run("changes="+c.changes, func(b *testing.B) {
			n := newTestNet(b, 1)
			a := benchStore(b, n, 100_000, 1000)
			lines := []string{"* peer"}
			if c.changes == "1%" {
				for i := range 100 {
					if i != 1 {
						lines = append(lines, fmt.Sprintf("* /bench/%d rw", i))
					}
				}
			}
			a.apply(n.policy(hosts, append(lines, c.turns[1])...))
			var settled time.Duration
			var reads []time.Duration
			for i := 0; b.Loop(); i++ {
				text := n.policy(hosts, append(lines, c.turns[i%2])...)
				start := time.Now()
				if err := a.SetPolicy(context.Background(), text); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				done := make(chan struct{})
				go func() {
					a.settle()
					settled += time.Since(start)
					close(done)
				}()
				reads = append(reads, readUntil(b, a, done)...)
				b.StartTimer()
			}
			slices.Sort(reads)
			b.ReportMetric(float64(settled.Milliseconds())/float64(b.N), "settled-ms/op")
			b.ReportMetric(float64(reads[len(reads)/2].Microseconds()), "read-p50-us")
			b.ReportMetric(float64(reads[len(reads)*99/100].Microseconds()), "read-p99-us")
			b.ReportMetric(float64(reads[len(reads)-1].Microseconds()), "read-max-us")
		})
	}
}

// readUntil reads a value every millisecond, and gives how long each took.
func readUntil(b *testing.B, a *node, done <-chan struct{}) (took []time.Duration) {
	pace := time.NewTicker(time.Millisecond)
	defer pace.Stop()
	for i := 0; ; i++ {
		start := time.Now()
		sn, err := a.Snapshot()
		if err != nil {
			b.Fatal(err)
		}
		if _, err := sn.Get(fmt.Sprintf("/bench/1/%d", i*100%100_000+1), true); err != nil && !errors.Is(err, ErrNotFound) {
			b.Fatal(err)
		}
		sn.Close()
		took = append(took, time.Since(start))
		select {
		case <-done:
			return took
		case <-pace.C:
		}
	}
}

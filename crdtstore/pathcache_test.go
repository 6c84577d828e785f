package crdtstore

import (
	"bytes"
	"context"
	"fmt"
	"reflect"
	"testing"
	"time"

	"syncagent/crdtstore/record"
)

// checkPaths holds that the paths in memory are, slot for slot, what a turn would read of them.
func (n *simNode) checkPaths() {
	if differs := pathsDiffer(n.store); differs != "" {
		n.sim.failf("%s: %s", n.name, differs)
	}
}

func pathsDiffer(s *Store) string {
	cache := s.paths
	defer func() { s.paths = cache }()
	var err error
	if s.paths, err = newPathCache(1); err != nil {
		return err.Error()
	}
	t := s.newTurn()
	defer t.view.Close()
	size := 0
	for _, key := range cache.lru.Keys() {
		m, _ := cache.lru.Peek(key)
		size += m.memory()
		got := m.state(key)
		want, err := t.path(key, false)
		if err == nil && m.view.path != "" {
			err = t.readView(want, m.view.path)
		}
		if err != nil {
			return err.Error()
		}
		if !reflect.DeepEqual(got, want) {
			return "in memory is " + got.show() + "\nthe rows say " + want.show()
		}
	}
	if size != cache.bytes || size > cache.most {
		return fmt.Sprintf("%d bytes of paths in memory, counted %d, allowed %d", size, cache.bytes, cache.most)
	}
	return ""
}

// show prints a path.
func (p *pathState) show() string {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%x, whole %v, floor %s, view %v", p.key, p.whole, p.floor, p.view)
	for _, s := range p.slots {
		fmt.Fprintf(&b, "\n%+v", *s)
	}
	return b.String()
}

// TestPathsInMemory holds which paths are kept in memory: those that are written again, in bounds.
func TestPathsInMemory(t *testing.T) {
	n := newTestNet(t, 1)
	keys := func(a *node, paths ...string) (held string) {
		a.stop()
		if differs := pathsDiffer(a.Store); differs != "" {
			t.Error(differs)
		}
		for _, path := range paths {
			if a.paths.holds(n.id.PathKey(path)) {
				held += path
			}
		}
		return held
	}
	write := func(pathBytes int) *node {
		o := n.options("a")
		o.kv, o.pathBytes = newMemKV(), pathBytes
		a := n.run("a", o)
		a.apply(n.openPolicy())
		a.put("/once", "")
		for _, path := range []string{"/a", "/b", "/c"} {
			for range pathWindow {
				a.put(path, "again")
			}
		}
		return a
	}
	if got := keys(write(0), "/once", "/a", "/b", "/c"); got != "/a/b/c" {
		t.Errorf("in memory are %q", got)
	}
	if got := keys(write(5000), "/once", "/a", "/b", "/c"); got != "/b/c" {
		t.Errorf("with room for two, in memory are %q", got)
	}
	a := write(0)
	a.apply(n.policy(hosts, "* peer", "a / rw"))
	if got := keys(a, "/a", "/b", "/c"); got != "" {
		t.Errorf("after another policy, in memory are %q", got)
	}
	a = write(0)
	a.apply(n.policy(hosts, "* peer", "a /a rw", "a /b write"))
	for _, path := range []string{"/a", "/b"} {
		for range pathWindow {
			a.put(path, "again")
		}
	}
	if got := keys(a, "/a", "/b"); got != "/a" {
		t.Errorf("without the right to read /b, in memory are %q", got)
	}
	a = write(0)
	a.clock.setOffset(time.Hour)
	a.put("/a", "ahead")
	a.clock.setOffset(0)
	if back, err := a.ResetClock(context.Background()); err != nil || back < time.Minute {
		t.Fatal(back, err)
	}
	if got := keys(a, "/a", "/b", "/c"); got != "/a/b/c" { // the rows are as they were, and so is what is known of them
		t.Errorf("after a reset of the clock, in memory are %q", got)
	}
}

// TestPathsInMemoryAfterForeignSlots: a hostile member names the key of a path with prefixes that this agent may not read,
// so that the slot is stored without a look at the path.
func TestPathsInMemoryAfterForeignSlots(t *testing.T) {
	n := newTestNet(t, 1)
	a := n.start("a", nil)
	a.apply(n.policy([]string{"a", "m"}, "* peer", "a /a rw", "m / rw"))
	for range pathWindow {
		a.put("/a/x", "again")
	}
	own := n.id.Tags("/a/x")
	mixed := record.Slot{Entry: record.ID{1}, Tags: []record.Tag{n.id.Tags("/m")[0], own[1]}}
	w := &record.Write{
		Author: record.KeyOf(testKey("m")), HLC: record.HLCFromMilli(n.clock.wall + 1000),
		Slots: []record.Slot{{Entry: record.ID{2}, Tags: n.id.Tags("/m")}, mixed},
	}
	block := n.forge(testKey("m"), 1, 1, record.Digest{}, 2, []record.Digest{n.genesisDigest()}, w)
	r, err := a.Ingest(context.Background(), record.KeyOf(testKey("m")), []record.Parcel{{Block: block}})
	if err != nil || r.Invalid != nil || r.New != 1 {
		t.Fatal(r, err)
	}
	a.stop()
	if differs := pathsDiffer(a.Store); differs != "" {
		t.Error(differs)
	}
}

// TestWindowWithAGapIsNotKept: an old slot that came into a part of a path says nothing of what lies between.
func TestWindowWithAGapIsNotKept(t *testing.T) {
	tags := []record.Tag{{1}}
	at := func(hlc record.HLC, author byte) *slot {
		return &slot{version: record.Version{HLC: hlc}, author: record.PublicKey{author}, tags: tags, state: slotHeld, known: true, path: "/p"}
	}
	for _, c := range []struct {
		name  string
		slots []*slot
		kept  int
	}{
		{"as read", []*slot{at(8, 1), at(7, 1)}, 2},
		{"one more above", []*slot{at(9, 1), at(8, 1), at(7, 1)}, 2},
		{"one below", []*slot{at(8, 1), at(7, 1), at(1, 1)}, 2},
		{"of another author above, so that more count", []*slot{at(9, 2), at(8, 1), at(7, 1)}, 0},
		{"and as many below", []*slot{at(9, 2), at(8, 1), at(7, 1), at(5, 1), at(4, 1), at(3, 1), at(2, 1), at(1, 1)}, 0},
	} {
		p := &pathState{key: tags[0], slots: c.slots, floor: record.Version{HLC: 7}}
		kept := 0
		if m := newPathMemo(p, 8); m != nil {
			kept = len(m.slots)
		}
		if kept != c.kept {
			t.Errorf("%s: %d slots are kept, not %d", c.name, kept, c.kept)
		}
	}
}

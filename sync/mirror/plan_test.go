package mirror

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"syncagent/crdtstore/record"
)

func version(n int) record.Version {
	return record.Version{HLC: record.HLC(n), Write: record.ID{byte(n)}}
}

func TestDecide(t *testing.T) {
	v1, v2 := version(1), version(2)
	file := have{kind: regular, same: true, attrs: true}
	edited := have{kind: regular, attrs: true}
	chmodded := have{kind: regular, same: true}
	wanted := func(v record.Version, i item) item { i.wanted, i.want.version = true, v; return i }
	based := func(v record.Version, i item) item { i.based, i.base.version = true, v; return i }
	for _, c := range []struct {
		name string
		item item
		want action
	}{
		{"new", wanted(v1, item{}), write},
		{"as it should be", wanted(v1, based(v1, item{have: file})), nothing},
		{"newer version", wanted(v2, based(v1, item{have: file})), write},
		{"older version, after a revocation", wanted(v1, based(v2, item{have: file})), write},
		{"edited", wanted(v1, based(v1, item{have: edited})), write},
		{"other mode", wanted(v1, based(v1, item{have: chmodded})), write},
		{"deleted on disk", wanted(v1, based(v1, item{})), write},
		{"replaced by a link", wanted(v1, based(v1, item{have: have{kind: other}})), write},
		{"there before us", wanted(v1, item{have: edited}), write},
		{"no longer wanted", based(v1, item{have: file}), remove},
		{"no longer wanted, edited", based(v1, item{have: edited}), remove},
		{"no longer wanted, a link now", based(v1, item{have: have{kind: other}}), remove},
		{"no longer wanted, gone", based(v1, item{}), forget},
		{"no longer wanted, a directory now", based(v1, item{have: have{kind: directory}}), forget},
		{"foreign file", item{have: edited}, nothing},
		{"foreign directory", item{have: have{kind: directory}}, nothing},
		{"foreign link", item{have: have{kind: other}}, nothing},
		{"nothing at all", item{}, nothing},
	} {
		if got := decide(c.item, DriftRestore); got != c.want {
			t.Errorf("%s: action %d, want %d", c.name, got, c.want)
		}
	}
}

func TestTooManyRemovalsAreHeld(t *testing.T) {
	for _, c := range []struct {
		doomed, owned int
		share         float64
		held          bool
	}{
		{20, 20, 0.5, false},
		{21, 21, 0.5, true},
		{21, 42, 0.5, false},
		{22, 42, 0.5, true},
		{1000, 1000, 1, false},
		{500, 10000, 0.01, true},
		{100, 10000, 0.01, false},
	} {
		var items []item
		for n := range c.doomed {
			items = append(items, item{path: fmt.Sprint(n), based: true, have: have{kind: regular}})
		}
		items = append(items, item{path: "new", wanted: true})
		p := makePlan(slices.Values(items), rules{owned: c.owned, share: c.share})
		if got := len(p.held) == c.doomed; got != c.held || len(p.held)+len(p.remove) != c.doomed {
			t.Errorf("%d of %d at %v: held %d, removed %d", c.doomed, c.owned, c.share, len(p.held), len(p.remove))
		}
		if len(p.write) != 1 {
			t.Errorf("a held removal stopped a write")
		}
	}
}

func TestPlanOrdersRemovalsThatAreInTheWay(t *testing.T) {
	gone := func(path string) item { return item{path: path, based: true, have: have{kind: regular}} }
	items := []item{
		gone("file"), {path: "file/below", wanted: true}, // file becomes directory
		gone("dir/x"), gone("dir/y/z"), {path: "dir", wanted: true}, // directory becomes file
		gone("directory"), gone("other"),
	}
	p := makePlan(slices.Values(items), rules{owned: 100, share: 0.5})
	paths := func(items []item) (out []string) {
		for _, i := range items {
			out = append(out, i.path)
		}
		return out
	}
	if got, want := paths(p.clear), []string{"file", "dir/x", "dir/y/z"}; !slices.Equal(got, want) {
		t.Errorf("clear %v, want %v", got, want)
	}
	if got, want := paths(p.remove), []string{"directory", "other"}; !slices.Equal(got, want) {
		t.Errorf("remove %v, want %v", got, want)
	}
}

func TestChunksNeverSplitAWrite(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	for range 200 {
		var items []item
		for n := range r.IntN(20) {
			for range 1 + r.IntN(12) {
				items = append(items, item{path: fmt.Sprint(len(items)), wanted: true, want: want{version: version(n + 1)}})
			}
		}
		size := 1 + r.IntN(10)
		seen, last := 0, record.ID{}
		for c := range chunks(items, size) {
			if c[0].want.version.Write == last {
				t.Fatalf("seed %d: a write is split", seed)
			}
			last = c[len(c)-1].want.version.Write
			seen += len(c)
			if len(c) < size && seen < len(items) {
				t.Fatalf("seed %d: a chunk of %d, want at least %d", seed, len(c), size)
			}
		}
		if seen != len(items) {
			t.Fatalf("seed %d: %d items in chunks, want %d", seed, seen, len(items))
		}
	}
}

package mirror

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func TestNamesThatCannotBeFiles(t *testing.T) {
	for rel, bad := range map[string]bool{
		"": true, ".syncagent": true, ".syncagent-mirror": true, "a/.syncagentx/b": true, "a/../b": true, "a\x00b": true,
		"a/" + strings.Repeat("x", 256): true, "a//b": true,
		"a": false, "a/b": false, ".hidden": false, "..a": false, "x.syncagent": false, strings.Repeat("x", 255): false,
	} {
		if got := refuse(rel); (got != "") != bad {
			t.Errorf("refuse(%.30q) = %q", rel, got)
		}
	}
}

func TestRelativeAndAbsolute(t *testing.T) {
	for _, c := range []struct{ prefix, path, rel string }{
		{"/", "/a/b", "a/b"}, {"/p", "/p/a", "a"}, {"/p/q", "/p/q/a/b", "a/b"}, {"/p", "/p", ""},
	} {
		w := newWanted(c.prefix, 0, &filter{})
		if got := w.relative(c.path); got != c.rel {
			t.Errorf("%s below %s is %q, want %q", c.path, c.prefix, got, c.rel)
		}
		if c.rel != "" && w.absolute(c.rel) != c.path {
			t.Errorf("%s at %s is %q, want %q", c.rel, c.prefix, w.absolute(c.rel), c.path)
		}
	}
}

func TestReservedAndForeignPathsAreIgnored(t *testing.T) {
	w := newWanted("/", 0, &filter{})
	w.put(File{Path: "/.sys/policy"}, func(string) {})
	p := newWanted("/p", 0, &filter{})
	p.put(File{Path: "/px"}, func(string) {})
	if len(w.files)+len(w.refused)+len(p.files)+len(p.refused) != 0 {
		t.Error("a path was taken that is not the mirror's")
	}
}

// Whatever the order of changes, a path is a file if and only if it is shown and nothing shown is below it; and every
// path whose fate changed was called dirty.
func TestDirectoryWinsWhateverTheOrder(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	names := []string{"a", "a/b", "a/b/c", "a/c", "b", "b/a", "b/a/.syncagent", "c"}
	for range 300 {
		w := newWanted("/p", 0o644, &filter{})
		shown := map[string]bool{}
		for range 30 {
			before := effective(w, names)
			dirty := map[string]bool{}
			n := names[r.IntN(len(names))]
			if r.IntN(2) == 0 {
				w.put(File{Path: "/p/" + n}, func(p string) { dirty[p] = true })
				shown[n] = true
			} else {
				w.remove("/p/"+n, func(p string) { dirty[p] = true })
				delete(shown, n)
			}
			after := effective(w, names)
			for _, p := range names {
				want := shown[p] && refuse(p) == ""
				for q := range shown {
					want = want && !(strings.HasPrefix(q, p+"/") && refuse(q) == "")
				}
				if after[p] != want {
					t.Fatalf("seed %d: with %v: %s is a file: %v, want %v", seed, slices.Sorted(maps.Keys(shown)), p, after[p], want)
				}
				if after[p] != before[p] && !dirty[p] {
					t.Fatalf("seed %d: %s changed and is not dirty", seed, p)
				}
				if _, s := w.shadowed[p]; s != (shown[p] && refuse(p) == "" && !want) {
					t.Fatalf("seed %d: shadowed[%s] = %v", seed, p, s)
				}
			}
		}
	}
}

func effective(w *wanted, names []string) map[string]bool {
	out := map[string]bool{}
	for _, n := range names {
		if _, ok := w.at(n); ok {
			out[n] = true
		}
	}
	return out
}

package mirror

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func swapBench(t *testing.T) *bench {
	t.Helper()
	b := newBench(t)
	b.opt.Swap = SwapDirectory
	return b
}

// seen reads the files as a program does that goes by their names; links that lead nowhere are listed.
func (b *bench) seen() map[string]string {
	b.t.Helper()
	got := map[string]string{}
	entries, err := os.ReadDir(b.dir)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ours) {
			continue
		}
		at, err := filepath.EvalSymlinks(b.path(e.Name()))
		if err != nil {
			got[e.Name()] = "leads nowhere"
			continue
		}
		tree, err := readTree(at)
		if err != nil {
			b.t.Fatal(err)
		}
		for p, text := range tree {
			got[e.Name()+"/"+p] = text
		}
		if info, err := os.Stat(at); err == nil && info.Mode().IsRegular() {
			text, err := os.ReadFile(at)
			if err != nil {
				b.t.Fatal(err)
			}
			got[e.Name()] = string(text)
		}
	}
	return got
}

func (b *bench) expectSeen(want map[string]string) {
	b.t.Helper()
	if got := b.seen(); !maps.Equal(got, want) {
		b.t.Errorf("the names lead to something else:\n got %s\nwant %s", show(got), show(want))
	}
}

// versions counts the directories of versions.
func (b *bench) versions() int {
	b.t.Helper()
	found, err := filepath.Glob(b.path(versionStart + "*"))
	if err != nil {
		b.t.Fatal(err)
	}
	return len(found)
}

func TestSwapShowsTheSource(t *testing.T) {
	b := swapBench(t)
	b.src.write(put("/p/a", "1"), put("/p/d/b", "2"), put("/p/d/e/c", ""))
	b.mustOnce()
	b.expectSeen(map[string]string{"a": "1", "d/b": "2", "d/e/c": ""})
	before, err := os.Stat(b.path("d/b"))
	if err != nil {
		t.Fatal(err)
	}
	b.src.write(put("/p/a", "one"), del("/p/d/e/c"), put("/p/z/new", "new"))
	b.mustOnce()
	b.expectSeen(map[string]string{"a": "one", "d/b": "2", "z/new": "new"})
	if after, err := os.Stat(b.path("d/b")); err != nil || !os.SameFile(before, after) {
		t.Errorf("a file that did not change was written again (%v)", err)
	}
	link, err := os.Readlink(b.path(liveLink))
	if err != nil {
		t.Fatal(err)
	}
	b.mustOnce()
	if again, _ := os.Readlink(b.path(liveLink)); again != link {
		t.Error("an unchanged mirror shows another version")
	}
	b.src.write(del("/p/a"), del("/p/d/b"), put("/p/d", "a file now"))
	b.mustOnce()
	b.expectSeen(map[string]string{"d": "a file now", "z/new": "new"})
}

func TestSwapRemovesOldVersionsAfterAGrace(t *testing.T) {
	b := swapBench(t)
	for i := range 4 {
		b.src.write(put("/p/a", fmt.Sprint(i)))
		b.mustOnce()
	}
	if n := b.versions(); n < 4 {
		t.Errorf("%d versions are left, some of them too early", n)
	}
	m := b.mirror()
	m.grace = 0
	if err := m.Once(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := b.versions(); n != 1 {
		t.Errorf("%d versions are left, want the one that is shown", n)
	}
	b.expectSeen(map[string]string{"a": "3"})
}

func TestSwapIsForPullOnly(t *testing.T) {
	for _, mode := range []Mode{ModePush, ModeBoth} {
		b := swapBench(t)
		b.opt.Mode = mode
		if _, err := New(b.src, b.opt); err == nil || !strings.Contains(err.Error(), "only with mode pull") {
			t.Errorf("mode %s: %v", mode, err)
		}
	}
	b := newBench(t)
	b.opt.Swap = "links"
	if _, err := New(b.src, b.opt); err == nil || !strings.Contains(err.Error(), "want files or directory") {
		t.Errorf("%v", err)
	}
}

// A mirror that has files already goes over to swapping and back, and keeps files of others where they are.
func TestSwapBeginsAndEndsWithTheFilesThatAreThere(t *testing.T) {
	b := newBench(t)
	b.src.write(put("/p/a", "1"), put("/p/d/b", "2"), put("/p/d/e/c", "3"), put("/p/x/y", "4"))
	b.mustOnce()
	b.write("foreign", "F")
	b.write("x/foreign", "F")
	b.opt.Swap = SwapDirectory
	if err := b.once(); err != nil && !errors.Is(err, ErrIncomplete) {
		t.Fatal(err)
	}
	b.expectSeen(map[string]string{"a": "1", "d/b": "2", "d/e/c": "3", "foreign": "F", "x/y": "4", "x/foreign": "F"})
	if info, err := os.Lstat(b.path("d")); err != nil || info.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("d is no link: %v", err)
	}
	if err := b.once(); !errors.Is(err, ErrIncomplete) || !strings.Contains(err.Error(), "a directory is in the way") {
		t.Errorf("x holds a file of others: %v", err)
	}
	if err := os.Remove(b.path("x/foreign")); err != nil {
		t.Fatal(err)
	}
	b.mustOnce()
	b.src.write(put("/p/d/b", "two"), put("/p/x/y", "four"))
	b.mustOnce()
	b.expectSeen(map[string]string{"a": "1", "d/b": "two", "d/e/c": "3", "foreign": "F", "x/y": "four"})
	b.opt.Swap = ""
	b.mustOnce()
	b.src.write(del("/p/d/e/c"))
	m := b.mirror()
	m.grace = 0
	if err := m.Once(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.expect(map[string]string{"a": "1", "d/b": "two", "foreign": "F", "x/y": "four"})
}

func TestSwapMendsLocalChanges(t *testing.T) {
	harms := map[string]func(b *bench) error{
		"file edited": func(b *bench) error { return os.WriteFile(b.path("a"), []byte("edited"), 0o644) },
		"name replaced": func(b *bench) error {
			return errors.Join(os.Remove(b.path("a")), os.WriteFile(b.path("a"), []byte("edited"), 0o644))
		},
		"name removed": func(b *bench) error { return os.Remove(b.path("a")) },
		"link turned": func(b *bench) error {
			return errors.Join(os.Remove(b.path(liveLink)), os.Symlink("/etc", b.path(liveLink)))
		},
		"link removed":    func(b *bench) error { return os.Remove(b.path(liveLink)) },
		"version removed": func(b *bench) error { return os.RemoveAll(b.shownDir()) },
		"version is a link": func(b *bench) error {
			d := b.shownDir()
			return errors.Join(os.Rename(d, d+".x"), os.Symlink("/etc", d))
		},
	}
	for name, harm := range harms {
		for _, running := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " running ", running), func(t *testing.T) {
				b := swapBench(t)
				b.opt.Recheck = 20 * time.Millisecond
				b.src.write(put("/p/a", "1"), put("/p/d/b", "2"))
				b.mustOnce()
				if running {
					m := b.run()
					eventually(t, "ok", func() bool { return m.Status().State == StateOK })
				}
				if err := harm(b); err != nil {
					t.Fatal(err)
				}
				if !running {
					b.mustOnce()
					b.expectSeen(map[string]string{"a": "1", "d/b": "2"})
				}
				eventually(t, "mended", func() bool { return maps.Equal(b.seen(), map[string]string{"a": "1", "d/b": "2"}) })
			})
		}
	}
}

func (b *bench) shownDir() string {
	b.t.Helper()
	to, err := os.Readlink(b.path(liveLink))
	if err != nil {
		b.t.Fatal(err)
	}
	return b.path(to)
}

func TestSwapKeepsLocalChangesIfToldSo(t *testing.T) {
	for _, drift := range []Drift{DriftKeep, DriftReport} {
		b := swapBench(t)
		b.opt.Drift = drift
		b.src.write(put("/p/a", "1"), put("/p/b", "2"), put("/p/c", "3"))
		b.mustOnce()
		if err := errors.Join(os.WriteFile(b.path("a"), []byte("edited"), 0o644), os.Remove(b.path("b")), os.WriteFile(b.path("b"), []byte("new"), 0o644)); err != nil {
			t.Fatal(err)
		}
		b.src.write(put("/p/c", "three"))
		if err := b.once(); (drift == DriftReport) != errors.Is(err, ErrIncomplete) {
			t.Errorf("%s: %v", drift, err)
		}
		b.expectSeen(map[string]string{"a": "edited", "b": "new", "c": "three"})
		b.src.write(put("/p/a", "one"), put("/p/b", "two"))
		b.mustOnce()
		b.expectSeen(map[string]string{"a": "one", "b": "two", "c": "three"})
	}
}

// What somebody puts into a version by way of a link goes along, and is never removed.
func TestSwapCarriesFilesOfOthers(t *testing.T) {
	b := swapBench(t)
	b.src.write(put("/p/d/b", "1"))
	b.mustOnce()
	b.write("d/foreign", "F")
	b.src.write(put("/p/d/b", "2"), put("/p/d/foreign/x", "no room"))
	if err := b.once(); !errors.Is(err, ErrIncomplete) || !strings.Contains(err.Error(), "a file is in the way") {
		t.Errorf("%v", err)
	}
	b.expectSeen(map[string]string{"d/b": "2", "d/foreign": "F"})
	b.src.write(del("/p/d/b"), del("/p/d/foreign/x"))
	b.mustOnce()
	b.expectSeen(map[string]string{"d/foreign": "F"})
}

func TestSwapLeavesDirectoriesOfOthers(t *testing.T) {
	b := swapBench(t)
	b.write("d/foreign", "F")
	b.write("a", "mine")
	b.src.write(put("/p/a", "1"), put("/p/d/b", "2"))
	if err := b.once(); !errors.Is(err, ErrIncomplete) || !strings.Contains(err.Error(), "/p/d/b: a directory is in the way") {
		t.Errorf("%v", err)
	}
	b.expectSeen(map[string]string{"a": "1", "d/foreign": "F"})
}

func TestSwapChecksAndGoesBack(t *testing.T) {
	b := swapBench(t)
	b.src.write(put("/p/a", "good"), put("/p/d/b", "1"))
	b.opt.Check = shell(`test "$(cat "$SYNCAGENT_STAGED/d/b")" != bad && cat "$SYNCAGENT_STAGED/a"`)
	b.opt.Trial = shell(`! grep -q fails "$SYNCAGENT_DIR/a" "$SYNCAGENT_DIR/d/"*`)
	b.mustOnce()
	was := map[string]string{"a": "good", "d/b": "1"}
	b.expectSeen(was)
	b.src.write(put("/p/d/b", "bad"))
	if err := b.once(); !errors.Is(err, ErrIncomplete) || !strings.Contains(err.Error(), "check refused") {
		t.Errorf("%v", err)
	}
	b.expectSeen(was)
	b.src.write(put("/p/d/b", "fails"), del("/p/a"), put("/p/a/x", "new"))
	if err := b.once(); !errors.Is(err, ErrIncomplete) || !strings.Contains(err.Error(), "check refused") {
		t.Errorf("the check reads a: %v", err)
	}
	b.opt.Check = nil
	if err := b.once(); !errors.Is(err, ErrIncomplete) || !strings.Contains(err.Error(), "rolled back") {
		t.Errorf("%v", err)
	}
	b.expectSeen(was)
	b.src.write(put("/p/d/b", "2"))
	b.opt.Trial = shell("true")
	b.mustOnce()
	b.expectSeen(map[string]string{"a/x": "new", "d/b": "2"})
}

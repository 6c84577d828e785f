package mirror

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// pushBench is a bench whose mirror goes the other way.
func pushBench(t *testing.T, mode Mode) *bench {
	b := newBench(t)
	b.src.clock = true
	b.opt.Mode = mode
	return b
}

// twoWay gives a mirror that does not wait for files to be left alone.
func (b *bench) twoWay() *Mirror {
	m := b.mirror()
	m.settle = 0
	return m
}

func (b *bench) push() {
	b.t.Helper()
	if err := b.twoWay().Once(context.Background()); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) expectSource(want map[string]string) {
	b.t.Helper()
	if got := b.src.tree(); !maps.Equal(got, want) {
		b.t.Errorf("source is not as expected:\n got %s\nwant %s", show(got), show(want))
	}
}

func TestPushFollowsTheDirectory(t *testing.T) {
	b := pushBench(t, ModePush)
	b.src.write(put("/p/theirs", "T"))
	b.write("a", "1")
	b.write("d/b", "2")
	b.write(".syncagent-x/y", "no")
	if err := os.Symlink("/etc/passwd", b.path("link")); err != nil {
		t.Fatal(err)
	}
	b.push()
	b.expectSource(map[string]string{"a": "1", "d/b": "2", "theirs": "T"})
	before := len(b.src.log)
	b.push()
	if len(b.src.log) != before {
		t.Error("nothing changed, and it was written")
	}
	b.write("a", "one")
	b.write("c", "3")
	if err := os.RemoveAll(b.path("d")); err != nil {
		t.Fatal(err)
	}
	if got := steps(t, b.twoWay()); got != "put /p/a, put /p/c, delete /p/d/b" {
		t.Error(got)
	}
	b.push()
	b.expectSource(map[string]string{"a": "one", "c": "3", "theirs": "T"})

	// What others change is reported, not overwritten, unless that is asked for.
	b.src.write(put("/p/a", "other"), del("/p/c"))
	err := b.twoWay().Once(context.Background())
	if !errors.Is(err, ErrIncomplete) || !strings.Contains(err.Error(), "by somebody else") {
		t.Errorf("error %v", err)
	}
	b.expectSource(map[string]string{"a": "other", "theirs": "T"})
	b.opt.Drift = DriftRestore
	b.push()
	b.expectSource(map[string]string{"a": "one", "c": "3", "theirs": "T"})
	if got := b.files()["a"]; got != "one" {
		t.Errorf("a pushing mirror changed a file: %q", got)
	}
}

func TestPushReportsWhatCannotBePut(t *testing.T) {
	b := pushBench(t, ModePush)
	b.write("ok", "1")
	b.write("denied", "2")
	b.write("bad\x01name", "3")
	m := b.twoWay()
	if err := m.Once(context.Background()); !errors.Is(err, ErrIncomplete) {
		t.Errorf("error %v", err)
	}
	b.expectSource(map[string]string{"ok": "1"})
	if got := len(m.Status().Problems); got != 2 {
		t.Errorf("%d problems: %v", got, m.Status().Problems)
	}
}

func TestPushOfAnEmptiedDirectoryIsHeld(t *testing.T) {
	b := pushBench(t, ModePush)
	for i := range 30 {
		b.write(fmt.Sprintf("f%d", i), "x")
	}
	b.push()
	for i := range 30 {
		if err := os.Remove(b.path(fmt.Sprintf("f%d", i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.twoWay().Once(context.Background()); !errors.Is(err, ErrHeld) {
		t.Errorf("error %v", err)
	}
	if got := len(b.src.tree()); got != 30 {
		t.Errorf("%d paths are left", got)
	}
	if err := os.RemoveAll(b.dir); err != nil {
		t.Fatal(err)
	}
	if err := b.twoWay().Once(context.Background()); !errors.Is(err, ErrHalted) {
		t.Errorf("error %v", err)
	}
}

func TestModeIsPutIfAskedFor(t *testing.T) {
	b := pushBench(t, ModePush)
	b.write("a", "1")
	if err := os.Chmod(b.path("a"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.push()
	if got := b.src.files["/p/a"].Mode; got != 0 {
		t.Errorf("mode %o was put unasked", got)
	}
	b.opt.PreserveMode = true
	b.push()
	if err := os.Chmod(b.path("a"), 0o640); err != nil {
		t.Fatal(err)
	}
	b.push()
	if got := b.src.files["/p/a"].Mode; got != 0o640 {
		t.Errorf("mode is %o", got)
	}
}

func TestRunPushesLocalChangesAtOnce(t *testing.T) {
	for _, mode := range []Mode{ModePush, ModeBoth} {
		b := pushBench(t, mode)
		b.opt.Recheck = time.Hour
		m := b.run()
		eventually(t, "start", func() bool { return m.Status().State == StateOK })
		b.write("a", "1")
		b.write("new/dir/b", "2")
		eventually(t, "put", func() bool { return maps.Equal(b.src.tree(), map[string]string{"a": "1", "new/dir/b": "2"}) })
		if err := os.RemoveAll(b.path("new")); err != nil {
			t.Fatal(err)
		}
		b.write("a", "one")
		eventually(t, "changed", func() bool { return maps.Equal(b.src.tree(), map[string]string{"a": "one"}) })
	}
}

func TestBothWays(t *testing.T) {
	b := pushBench(t, ModeBoth)
	b.src.write(put("/p/theirs", "T"), put("/p/same", "S"))
	b.write("ours", "O")
	b.write("same", "S")
	b.push()
	all := map[string]string{"theirs": "T", "same": "S", "ours": "O"}
	b.expect(all)
	b.expectSource(all)
	if n := len(b.src.history["/p/same"]); n != 1 {
		t.Error("an equal file was put")
	}
	b.src.write(del("/p/theirs"), put("/p/ours", "by them"))
	if err := os.Remove(b.path("same")); err != nil {
		t.Fatal(err)
	}
	b.push()
	b.expect(map[string]string{"ours": "by them"})
	b.expectSource(map[string]string{"ours": "by them"})

	// An edit beats a removal, whichever side has it.
	b.write("x", "1")
	b.write("y", "1")
	b.push()
	b.write("x", "edited")
	b.src.write(del("/p/x"), put("/p/y", "edited"))
	if err := os.Remove(b.path("y")); err != nil {
		t.Fatal(err)
	}
	b.push()
	b.expect(map[string]string{"ours": "by them", "x": "edited", "y": "edited"})
	b.expectSource(map[string]string{"ours": "by them", "x": "edited", "y": "edited"})
}

func TestLaterOfTwoEditsWins(t *testing.T) {
	for _, c := range []struct {
		at   time.Duration // of the local edit, from the other one
		host string
		want map[string]string
	}{
		{time.Minute, "", map[string]string{"a": "local"}},
		{-time.Minute, "", map[string]string{"a": "remote"}},
		{-time.Minute, "h/1", map[string]string{"a": "remote", "copy": "local"}},
	} {
		b := pushBench(t, ModeBoth)
		b.opt.ConflictCopy = c.host
		b.write("a", "1")
		b.push()
		b.src.write(put("/p/a", "remote"))
		b.write("a", "local")
		when := time.Now().Add(c.at)
		if err := os.Chtimes(b.path("a"), when, when); err != nil {
			t.Fatal(err)
		}
		b.push()
		got := b.files()
		for p, text := range maps.Clone(got) {
			if strings.HasPrefix(p, "a.conflict-h-1-") {
				delete(got, p)
				got["copy"] = text
			}
		}
		if !maps.Equal(got, c.want) {
			t.Errorf("%v: %s", c, show(got))
		}
		if b.src.tree()["a"] != c.want["a"] {
			t.Errorf("%v: source %s", c, show(b.src.tree()))
		}
		if h := b.src.history["/p/a"]; c.host == "" && (!slices.Contains(h, "local") || !slices.Contains(h, "remote")) {
			t.Errorf("%v: an edit is lost: %q", c, h)
		}
	}
}

// Three directories with one source, random edits, removals and mirrors that run in any order, some of them cut off: in
// the end all are equal, and every edit that a mirror could have seen is in the tree or in the history.
func TestModel_ThreeDirectoriesBecomeEqualAndNoEditIsLost(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	for run := range 4 * *rounds {
		first := pushBench(t, ModeBoth)
		benches := []*bench{first}
		for range 2 {
			b := newBench(t)
			b.src, b.opt.Mode = first.src, ModeBoth
			benches = append(benches, b)
		}
		for _, b := range benches {
			b.opt.MaxDelete = 1
			if run%2 == 1 {
				b.opt.ConflictCopy = "h"
			}
		}
		seen := map[string]string{} // value -> path
		n := 0
		for range 40 {
			b := benches[r.IntN(3)]
			rel := []string{"a", "b", "c", "d/e", "d/f", "g/h/i"}[r.IntN(6)]
			switch r.IntN(4) {
			case 0:
				if err := os.Remove(b.path(rel)); err != nil && !errors.Is(err, os.ErrNotExist) {
					t.Fatal(err)
				}
			case 1:
				if err := os.Rename(b.path(rel), b.path("moved")); err != nil && !errors.Is(err, os.ErrNotExist) {
					t.Fatal(err)
				}
			default:
				n++
				b.write(rel, fmt.Sprint("edit ", n))
				if r.IntN(3) == 0 { // an editor that sets an old date
					when := time.Now().Add(-time.Duration(r.IntN(1000)) * time.Millisecond)
					if err := os.Chtimes(b.path(rel), when, when); err != nil {
						t.Fatal(err)
					}
				}
			}
			if r.IntN(3) > 0 {
				continue
			}
			who := benches[r.IntN(3)]
			before := who.treeOrNothing()
			ctx, cancel := context.WithCancel(context.Background())
			if r.IntN(4) == 0 {
				who.src.onFetch = func(*fakeSource, []string) { cancel() } // cut off in the middle
			}
			err := who.twoWay().Once(ctx)
			if err != nil && ctx.Err() == nil {
				t.Fatalf("seed %d, run %d: %v", seed, run, err)
			}
			after := who.treeOrNothing()
			for rel, text := range before {
				if err == nil || after[rel] != text { // the mirror has dealt with it
					seen[text] = rel
				}
			}
			who.src.onFetch = nil
			cancel()
		}
		for range 3 {
			for _, b := range benches {
				for rel, text := range b.treeOrNothing() {
					seen[text] = rel
				}
				b.push()
			}
		}
		want := first.src.tree()
		for _, b := range benches {
			got := b.files()
			maps.DeleteFunc(got, func(p, _ string) bool { return strings.HasSuffix(p, "/") })
			if !maps.Equal(got, want) {
				t.Fatalf("seed %d, run %d: directory %s, source %s", seed, run, show(got), show(want))
			}
		}
		var kept []string
		for _, h := range first.src.history {
			kept = append(kept, h...)
		}
		for text, rel := range seen {
			if strings.HasPrefix(text, "edit") && !slices.Contains(kept, text) {
				t.Fatalf("seed %d, run %d: %q of %s is lost", seed, run, text, rel)
			}
		}
	}
}

func (b *bench) treeOrNothing() map[string]string {
	got, err := readTree(b.dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		b.t.Fatal(err)
	}
	return got
}

func TestConflictCopyNames(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC)
	for rel, want := range map[string]string{
		"a/b.conf": "a/b.conflict-h-20260102T030405.006.conf", "a.d/b": "a.d/b.conflict-h-20260102T030405.006",
		".env": ".env.conflict-h-20260102T030405.006",
	} {
		if got := copyName(rel, "h", at); got != filepath.FromSlash(want) {
			t.Errorf("%s: %s, want %s", rel, got, want)
		}
	}
}

// Somebody swaps a directory for a link to a secret place all the time: nothing of it gets into the source, and nothing
// outside is touched.
func TestG8_LinksAreNotFollowedIntoTheSource(t *testing.T) {
	for _, mode := range []Mode{ModePush, ModeBoth} {
		b := pushBench(t, mode)
		outside := t.TempDir()
		if err := errors.Join(os.WriteFile(filepath.Join(outside, "f"), []byte("secret"), 0o644), os.MkdirAll(b.path("d"), 0o755)); err != nil {
			t.Fatal(err)
		}
		b.write("d/f", "public")
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			for {
				select {
				case <-stop:
					return
				default:
				}
				_ = os.Rename(b.path("d"), b.path("real")) // whatever fails fails
				_ = os.Symlink(outside, b.path("d"))
				_ = os.Remove(b.path("d"))
				_ = os.Rename(b.path("real"), b.path("d"))
			}
		}()
		end := time.Now().Add(time.Second)
		for n := 0; time.Now().Before(end); n++ {
			b.src.write(put("/p/d/g", fmt.Sprint(n)))
			if err := b.twoWay().Once(context.Background()); err != nil && !errors.Is(err, ErrIncomplete) {
				t.Logf("%s: %v", mode, err)
			}
		}
		close(stop)
		<-stopped
		for p, h := range b.src.history {
			if slices.Contains(h, "secret") {
				t.Errorf("%s: the secret got to %s", mode, p)
			}
		}
		if left, err := os.ReadDir(outside); err != nil || len(left) != 1 {
			t.Errorf("%s: outside is %v, %v", mode, left, err)
		}
	}
}

// A local edit that comes while the source's version is on its way is not overwritten unseen.
func TestEditDuringAPassIsNotLost(t *testing.T) {
	b := pushBench(t, ModeBoth)
	b.write("a", "1")
	b.push()
	b.src.write(put("/p/a", "remote"))
	edited := false
	b.src.onFetch = func(*fakeSource, []string) {
		if !edited {
			edited = true
			b.write("a", "local")
			later := time.Now().Add(time.Minute)
			if err := os.Chtimes(b.path("a"), later, later); err != nil {
				t.Error(err)
			}
		}
	}
	b.push()
	b.expect(map[string]string{"a": "local"})
	b.expectSource(map[string]string{"a": "local"})
	if h := b.src.history["/p/a"]; !slices.Contains(h, "remote") {
		t.Errorf("history %q", h)
	}
}

func TestFileIsPutWhenItIsLeftAlone(t *testing.T) {
	b := pushBench(t, ModePush)
	m := b.mirror()
	m.settle = 2 * time.Second
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	eventually(t, "start", func() bool { return m.Status().State == StateOK })
	text := ""
	for i := range 5 {
		text += fmt.Sprint(i)
		b.write("a", text)
		time.Sleep(20 * time.Millisecond) // the pace of the writer
	}
	eventually(t, "put", func() bool { return b.src.tree()["a"] == text })
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if h := b.src.history["/p/a"]; len(h) != 1 {
		t.Errorf("parts of the file were put: %q", h)
	}
}

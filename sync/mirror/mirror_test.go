package mirror

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"syncagent/sync/trigger"
)

// bench is a mirror of /p under test.
type bench struct {
	t     *testing.T
	src   *fakeSource
	dir   string
	state string
	opt   Options
}

func newBench(t *testing.T) *bench {
	t.Helper()
	top := t.TempDir()
	b := &bench{t: t, src: newFakeSource(), dir: filepath.Join(top, "out"), state: filepath.Join(top, "state")}
	b.opt = Options{Prefix: "/p", Dir: b.dir, StateDir: b.state, Log: slog.New(slog.DiscardHandler)}
	return b
}

func (b *bench) mirror() *Mirror {
	b.t.Helper()
	m, err := New(b.src, b.opt)
	if err != nil {
		b.t.Fatal(err)
	}
	return m
}

func (b *bench) once() error {
	b.t.Helper()
	return b.mirror().Once(context.Background())
}

func (b *bench) mustOnce() {
	b.t.Helper()
	if err := b.once(); err != nil {
		b.t.Fatal(err)
	}
}

// run starts the mirror and stops it at the end of the test.
func (b *bench) run() *Mirror {
	b.t.Helper()
	m := b.mirror()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	b.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			b.t.Error(err)
		}
	})
	return m
}

func (b *bench) path(rel string) string { return filepath.Join(b.dir, rel) }

func (b *bench) write(rel, text string) {
	b.t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(b.path(rel)), 0o755), os.WriteFile(b.path(rel), []byte(text), 0o644)); err != nil {
		b.t.Fatal(err)
	}
}

// files reads what is in the root; directories that are empty are listed with a slash at the end.
func (b *bench) files() map[string]string {
	b.t.Helper()
	got, err := readTree(b.dir)
	if err != nil {
		b.t.Fatal(err)
	}
	return got
}

func readTree(dir string) (map[string]string, error) {
	got := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil || rel == markerName || rel == "." {
			return err
		}
		switch {
		case d.IsDir():
			inside, err := os.ReadDir(p)
			if len(inside) == 0 {
				got[rel+"/"] = ""
			}
			return err
		case !d.Type().IsRegular():
			got[rel] = d.Type().String()
			return nil
		}
		text, err := os.ReadFile(p)
		got[rel] = string(text)
		return err
	})
	return got, err
}

func (b *bench) expect(want map[string]string) {
	b.t.Helper()
	if got := b.files(); !maps.Equal(got, want) {
		b.t.Errorf("directory is not as expected:\n got %s\nwant %s", show(got), show(want))
	}
}

func show(files map[string]string) string {
	var lines []string
	for _, p := range slices.Sorted(maps.Keys(files)) {
		lines = append(lines, fmt.Sprintf("%s=%.20q", p, files[p]))
	}
	return strings.Join(lines, " ")
}

// eventually polls until ok holds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			t.Fatalf("never came true: %s", what)
		case <-tick.C:
		}
	}
}

func TestOnceFillsUpdatesAndRemoves(t *testing.T) {
	b := newBench(t)
	b.src.write(put("/p/a", "1"), put("/p/d/b", "2"), put("/p/d/e/c", ""))
	b.src.write(put("/other/x", "no"))
	b.mustOnce()
	b.expect(map[string]string{"a": "1", "d/b": "2", "d/e/c": ""})
	b.src.write(put("/p/a", "one"), del("/p/d/e/c"), del("/p/d/b"), put("/p/z", "new"))
	b.mustOnce()
	b.expect(map[string]string{"a": "one", "z": "new"})
}

func TestRunFollowsChanges(t *testing.T) {
	b := newBench(t)
	b.src.write(put("/p/a", "1"))
	m := b.run()
	eventually(t, "first fill", func() bool { return m.Status().State == StateOK && m.Status().Files == 1 })
	for i := range 100 {
		b.src.write(put("/p/a", fmt.Sprint(i)), put(fmt.Sprintf("/p/d%d/x", i%7), fmt.Sprint(i)))
		if i%3 == 0 {
			b.src.write(del(fmt.Sprintf("/p/d%d/x", (i+1)%7)))
		}
	}
	eventually(t, "tree equals the source", func() bool {
		got, err := readTree(b.dir)
		return err == nil && maps.Equal(got, b.src.tree())
	})
	eventually(t, "state ok", func() bool { return m.Status().State == StateOK && m.Status().Pending == 0 })
}

func TestModes(t *testing.T) {
	b := newBench(t)
	b.src.write(put("/p/default", "1"), putMode("/p/secret", "2", 0o600), putMode("/p/run", "3", 0o755))
	b.mustOnce()
	mode := func(rel string) fs.FileMode {
		info, err := os.Stat(b.path(rel))
		if err != nil {
			t.Fatal(err)
		}
		return info.Mode()
	}
	for rel, want := range map[string]fs.FileMode{"default": 0o644, "secret": 0o600, "run": 0o755} {
		if got := mode(rel); got != want {
			t.Errorf("%s has mode %v, want %v", rel, got, want)
		}
	}
	if err := os.Chmod(b.path("secret"), 0o666); err != nil {
		t.Fatal(err)
	}
	b.mustOnce()
	if got := mode("secret"); got != 0o600 {
		t.Errorf("mode was not restored: %v", got)
	}
}

func TestManyFilesAtOnce(t *testing.T) {
	b := newBench(t)
	var ops []op
	for i := range 1000 {
		ops = append(ops, put(fmt.Sprintf("/p/d%d/f%d", i%10, i), strings.Repeat("x", 1024)))
	}
	b.src.write(ops...)
	start := time.Now()
	b.mustOnce()
	t.Logf("1,000 files of 1 KiB: %v", time.Since(start))
	b.expect(b.src.tree())
	if b.src.fetches != 1 {
		t.Errorf("%d fetches for one write, want 1", b.src.fetches)
	}
	start = time.Now()
	b.mustOnce()
	t.Logf("unchanged: %v", time.Since(start))
	if b.src.fetches != 1 {
		t.Error("an unchanged tree was fetched again")
	}
}

func TestTriggerRunsOnceAfterAllFilesOfAWrite(t *testing.T) {
	b := newBench(t)
	out := filepath.Join(t.TempDir(), "out")
	b.opt.Triggers = trigger.New(trigger.Options{
		Specs:  []trigger.Spec{{Name: "cat", Path: "/p", Command: "cat - '" + b.dir + "'/* >> '" + out + "'; echo >> '" + out + "'", Timeout: time.Minute}},
		Prefix: "/p", Dir: b.dir, DebounceMin: time.Millisecond,
	})
	m := b.run()
	eventually(t, "start", func() bool { return m.Status().State == StateOK })
	b.src.write(put("/p/a", "A"), put("/p/b", "B"), put("/p/c", "C"))
	want := "/p/a\n/p/b\n/p/c\nABC\n"
	eventually(t, "trigger ran", func() bool { return !b.opt.Triggers.Status()[0].Pending && b.opt.Triggers.Status()[0].Runs > 0 })
	if got, _ := os.ReadFile(out); string(got) != want {
		t.Errorf("trigger saw %q, want %q", got, want)
	}
}

package mirror

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// filled gives a bench whose directory holds two mirrored files and a foreign one.
func filled(t *testing.T) *bench {
	t.Helper()
	b := newBench(t)
	b.src.write(put("/p/a", "1"), put("/p/d/b", "2"))
	b.mustOnce()
	b.write("foreign", "F")
	return b
}

func TestG8_RootThatIsNotWhatItWasHaltsTheMirror(t *testing.T) {
	for name, harm := range map[string]func(b *bench) error{
		"gone":      func(b *bench) error { return os.RemoveAll(b.dir) },
		"emptied":   func(b *bench) error { return errors.Join(os.RemoveAll(b.dir), os.Mkdir(b.dir, 0o755)) },
		"no marker": func(b *bench) error { return os.Remove(b.path(markerName)) },
		"other marker": func(b *bench) error {
			return os.WriteFile(b.path(markerName), []byte(`{"id":"x","prefix":"/p"}`), 0o644)
		},
		"half marker": func(b *bench) error { return os.WriteFile(b.path(markerName), []byte(`{"id":`), 0o644) },
		"a file": func(b *bench) error {
			return errors.Join(os.Rename(b.dir, b.dir+".x"), os.WriteFile(b.dir, nil, 0o644))
		},
		"a link": func(b *bench) error { return errors.Join(os.Rename(b.dir, b.dir+".x"), os.Symlink(b.dir+".x", b.dir)) },
		"marker is a link": func(b *bench) error {
			return errors.Join(os.Rename(b.path(markerName), b.path("x")), os.Symlink("x", b.path(markerName)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := filled(t)
			if err := harm(b); err != nil {
				t.Fatal(err)
			}
			b.src.write(del("/p/a"), put("/p/new", "3"))
			before, _ := readTree(b.dir)
			err := b.once()
			var halt *HaltError
			if !errors.Is(err, ErrHalted) || !errors.As(err, &halt) || halt.Journal == "" {
				t.Fatalf("error %v, want a HaltError with its journal", err)
			}
			after, _ := readTree(b.dir)
			if show(before) != show(after) {
				t.Errorf("the halted mirror changed %s to %s", show(before), show(after))
			}
		})
	}
}

func TestG8_RootSwappedWhileRunning(t *testing.T) {
	b := filled(t)
	m := b.run()
	eventually(t, "ok", func() bool { return m.Status().State == StateOK })
	if err := errors.Join(os.Rename(b.dir, b.dir+".x"), os.Mkdir(b.dir, 0o755), os.WriteFile(b.path("a"), []byte("mine"), 0o644)); err != nil {
		t.Fatal(err)
	}
	b.src.write(del("/p/a"), put("/p/new", "3"))
	eventually(t, "halted", func() bool { return m.Status().State == StateHalted })
	b.expect(map[string]string{"a": "mine"})
	moved, err := readTree(b.dir + ".x")
	if err != nil || moved["a"] != "1" || moved["new"] != "" {
		t.Errorf("the moved root was changed: %s (%v)", show(moved), err)
	}
	if err := errors.Join(os.RemoveAll(b.dir), os.Rename(b.dir+".x", b.dir)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "going on when the root is back", func() bool { return m.Status().State == StateOK })
	b.expect(map[string]string{"d/b": "2", "new": "3", "foreign": "F"})
}

func TestRemovedJournalStartsAfreshAndRemovesNothing(t *testing.T) {
	b := filled(t)
	if err := errors.Join(os.RemoveAll(b.dir), os.RemoveAll(b.state)); err != nil {
		t.Fatal(err)
	}
	b.mustOnce()
	b.expect(map[string]string{"a": "1", "d/b": "2"})
	if err := os.RemoveAll(b.state); err != nil {
		t.Fatal(err)
	}
	b.src.write(del("/p/a"), put("/p/d/b", "3"))
	b.mustOnce()
	b.expect(map[string]string{"a": "1", "d/b": "3"})
}

func TestOtherPrefixHalts(t *testing.T) {
	b := filled(t)
	b.opt.Prefix = "/q"
	if err := b.once(); !errors.Is(err, ErrHalted) || !strings.Contains(err.Error(), "/p") {
		t.Errorf("with a journal: %v", err)
	}
	b.opt.StateDir += "2"
	if err := b.once(); !errors.Is(err, ErrHalted) || !strings.Contains(err.Error(), "/p") {
		t.Errorf("without a journal: %v", err)
	}
	b.expect(map[string]string{"a": "1", "d/b": "2", "foreign": "F"})
}

func TestSecondProcessIsRefused(t *testing.T) {
	b := filled(t)
	m := b.run()
	eventually(t, "ok", func() bool { return m.Status().State == StateOK })
	if err := b.once(); !errors.Is(err, ErrBusy) {
		t.Errorf("same state directory: %v", err)
	}
	b.opt.StateDir += "2"
	if err := b.once(); !errors.Is(err, ErrBusy) {
		t.Errorf("other state directory: %v", err)
	}
}

func TestNestedMirrorsAreRefused(t *testing.T) {
	b := filled(t)
	inner := newBench(t)
	inner.dir = b.path("foreign-dir")
	inner.opt.Dir = inner.dir
	if err := inner.once(); !errors.Is(err, ErrHalted) {
		t.Errorf("mirror inside a mirror: %v", err)
	}
	outer := newBench(t)
	outer.src.write(put("/p/out/a", "no"), put("/p/b", "yes"))
	outer.dir = filepath.Dir(b.dir)
	outer.opt.Dir = outer.dir
	if err := outer.once(); !errors.Is(err, ErrIncomplete) || !strings.Contains(err.Error(), "another mirror") {
		t.Errorf("mirror around a mirror: %v", err)
	}
	b.expect(map[string]string{"a": "1", "d/b": "2", "foreign": "F"})
	if _, err := os.Stat(filepath.Join(outer.dir, "b")); err != nil {
		t.Error(err)
	}
}

func TestNothingIsMadeIfTheSourceIsNotThere(t *testing.T) {
	b := newBench(t)
	b.src.fail(errors.New("no agent"))
	if err := b.once(); err == nil || !strings.Contains(err.Error(), "no agent") {
		t.Errorf("error %v", err)
	}
	if _, err := os.Lstat(b.dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory was made: %v", err)
	}
}

func TestCheckDirs(t *testing.T) {
	top := t.TempDir()
	if err := errors.Join(os.Mkdir(filepath.Join(top, "real"), 0o755), os.Symlink("real", filepath.Join(top, "link"))); err != nil {
		t.Fatal(err)
	}
	at := func(p string) string { return filepath.Join(top, p) }
	for _, c := range []struct {
		name         string
		roots, taken []string
		fault        string
	}{
		{"apart", []string{at("a"), at("b"), at("ab")}, []string{at("data"), at("conf/syncagent.yaml")}, ""},
		{"beside the config file", []string{at("conf/m")}, []string{at("conf/syncagent.yaml")}, ""},
		{"same", []string{at("a"), at("b/../a")}, nil, "overlaps with mirror"},
		{"inside", []string{at("a/b/c"), at("a")}, nil, "overlaps with mirror"},
		{"by a link", []string{at("link/x"), at("real")}, nil, "overlaps with mirror"},
		{"over the data", []string{at("a")}, []string{at("a/data")}, "which the agent uses"},
		{"in the data", []string{at("data/m")}, []string{at("data")}, "which the agent uses"},
		{"over the config", []string{at("conf")}, []string{at("conf/syncagent.yaml")}, "which the agent uses"},
		{"the whole machine", []string{"/"}, nil, "the root of the file system"},
	} {
		err := CheckDirs(c.roots, c.taken)
		if c.fault == "" && err != nil || c.fault != "" && (err == nil || !strings.Contains(err.Error(), c.fault)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.fault)
		}
	}
}

func TestBadOptions(t *testing.T) {
	good := Options{Prefix: "/p", Dir: "/x", StateDir: "/y"}
	for name, spoil := range map[string]func(*Options){
		"prefix": func(o *Options) { o.Prefix = "p" },
		"dir":    func(o *Options) { o.Dir = "" },
		"mode":   func(o *Options) { o.FileMode = 0o4755 },
		"owner":  func(o *Options) { o.Owner = "no such user" },
		"group":  func(o *Options) { o.Group = "no such group" },
		"delete": func(o *Options) { o.MaxDelete = -1 },
	} {
		o := good
		spoil(&o)
		if _, err := New(newFakeSource(), o); err == nil {
			t.Errorf("bad %s is accepted", name)
		}
	}
	if _, err := New(newFakeSource(), good); err != nil {
		t.Error(err)
	}
}

func TestStoppedRunReturnsSoon(t *testing.T) {
	b := newBench(t)
	b.src.fail(errors.New("no agent"))
	ctx, cancel := context.WithCancel(context.Background())
	m := b.mirror()
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	eventually(t, "failing", func() bool { return m.Status().State == StateFailing })
	b.src.fail(nil)
	b.src.write(put("/p/a", "1"))
	eventually(t, "ok again", func() bool { return m.Status().State == StateOK })
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

package mirror

import (
	"context"
	"errors"
	"os"
	"testing"
)

// TestProgress holds what a mirror tells of a path: nothing yet, in place, deleted, in the way, halted, not its own.
func TestProgress(t *testing.T) {
	b := newBench(t)
	b.opt.Exclude = []string{"*.tmp"}
	m := b.mirror()
	if p, mirrored := m.Progress("/p/a"); !mirrored || !p.Version.IsZero() || p.Fault != "" {
		t.Errorf("before it ran: %+v, %v", p, mirrored)
	}
	v := b.src.write(put("/p/a", "1"), put("/p/d/x", "1"))
	once := func() error { return m.Once(context.Background()) }
	if err := once(); err != nil {
		t.Fatal(err)
	}
	if p, _ := m.Progress("/p/a"); p.Version.Write != v.Write || p.Trial || len(p.Due) > 0 {
		t.Errorf("in place: %+v", p)
	}
	for _, path := range []string{"/q/a", "/p", "/p/x.tmp", "/pa"} {
		if _, mirrored := m.Progress(path); mirrored {
			t.Errorf("%s is mirrored", path)
		}
	}
	b.src.write(del("/p/a"))
	if err := os.Mkdir(b.path("b"), 0o755); err != nil {
		t.Fatal(err)
	}
	v = b.src.write(put("/p/b", "2"))
	if err := once(); !errors.Is(err, ErrIncomplete) {
		t.Fatal(err)
	}
	if p, _ := m.Progress("/p/a"); !p.Version.IsZero() || p.Fault != "" {
		t.Errorf("deleted: %+v", p)
	}
	if p, _ := m.Progress("/p/b"); p.Fault == "" || p.FaultOf != v {
		t.Errorf("in the way: %+v", p)
	}
	if p, _ := m.Progress("/p/.syncagent-x"); p.Fault == "" {
		t.Errorf("a name of the mirror's own: %+v", p)
	}
	if err := errors.Join(os.RemoveAll(b.dir), os.Mkdir(b.dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	if err := once(); !errors.Is(err, ErrHalted) {
		t.Fatal(err)
	}
	if p, _ := m.Progress("/p/d/x"); p.Fault != "the mirror is halted" {
		t.Errorf("halted: %+v", p)
	}
}

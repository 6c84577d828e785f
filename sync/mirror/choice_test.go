package mirror

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func steps(t *testing.T, m *Mirror) string {
	t.Helper()
	all, err := m.Preview(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, s := range all {
		lines = append(lines, string(s.Verb)+" "+s.Path)
	}
	return strings.Join(lines, ", ")
}

func TestPreviewTellsExactlyWhatOnceDoes(t *testing.T) {
	b := newBench(t)
	b.src.write(put("/p/a", "1"), put("/p/d/b", "2"), put("/p/.syncagent-x", "no"))
	if got := steps(t, b.mirror()); got != "skip /p/.syncagent-x, write /p/a, write /p/d/b" {
		t.Error(got)
	}
	if entries, err := os.ReadDir(filepath.Dir(b.dir)); err != nil || len(entries) > 0 {
		t.Errorf("a preview made %v, %v", entries, err)
	}
	b.src.write(del("/p/.syncagent-x"))
	b.mustOnce()
	if got := steps(t, b.mirror()); got != "" {
		t.Error(got)
	}
	b.write("same", "S")
	b.write("other", "O")
	if err := os.Symlink("/", b.path("link")); err != nil {
		t.Fatal(err)
	}
	b.src.write(put("/p/same", "S"), put("/p/other", "X"), put("/p/a/now/dir", "3"), del("/p/d/b"), put("/p/link/x", "4"), put("/p/other/y", "5"))
	before := show(b.files())
	want := "remove /p/a, skip /p/a, write /p/a/now/dir, remove /p/d/b, skip /p/link/x, skip /p/other, skip /p/other/y"
	if got := steps(t, b.mirror()); got != want {
		t.Error(got)
	}
	if after := show(b.files()); after != before {
		t.Errorf("a preview changed the tree: %s", after)
	}
	if err := os.RemoveAll(b.dir); err != nil {
		t.Fatal(err)
	}
	if _, err := b.mirror().Preview(context.Background()); err == nil {
		t.Error("no halt without the root")
	}
}

func TestPatternsLeaveFilesAlone(t *testing.T) {
	b := newBench(t)
	b.src.write(put("/p/a.pem", "1"), put("/p/a.key", "2"), put("/p/x/b.key", "3"))
	b.mustOnce()
	b.opt.Exclude = []string{"*.key"}
	b.write("c.key", "local")
	b.src.write(put("/p/a.pem", "one"), put("/p/a.key", "no"), del("/p/x/b.key"), put("/p/c.key", "no"))
	b.mustOnce()
	b.expect(map[string]string{"a.pem": "one", "a.key": "2", "x/b.key": "3", "c.key": "local"})
	b.opt.Exclude = nil
	b.opt.Include = []string{"x/**", "a.pem"}
	b.src.write(put("/p/y", "no"), put("/p/x/z", "yes"))
	b.mustOnce()
	b.expect(map[string]string{"a.pem": "one", "a.key": "2", "x/b.key": "3", "c.key": "local", "x/z": "yes"})
}

func TestDriftKeepAndReport(t *testing.T) {
	for _, drift := range []Drift{DriftKeep, DriftReport} {
		b := newBench(t)
		b.opt.Drift = drift
		b.src.write(put("/p/a", "1"), put("/p/b", "2"), put("/p/c", "3"))
		b.mustOnce()
		b.write("a", "edited")
		if err := os.Remove(b.path("b")); err != nil {
			t.Fatal(err)
		}
		err := b.once()
		b.expect(map[string]string{"a": "edited", "c": "3"})
		if (err != nil) != (drift == DriftReport) {
			t.Errorf("%s: %v", drift, err)
		}
		if err != nil && !strings.Contains(err.Error(), "changed on this host") {
			t.Error(err)
		}
		if got := steps(t, b.mirror()); got != "keep /p/a, keep /p/b" {
			t.Error(got)
		}
		b.src.write(put("/p/a", "newer"), put("/p/b", "newer")) // what is newer wins
		b.mustOnce()
		b.expect(map[string]string{"a": "newer", "b": "newer", "c": "3"})
	}
}

func TestConfirmLetsOnlyTheHeldRemovalsHappen(t *testing.T) {
	b := newBench(t)
	var puts, dels []op
	for i := range 30 {
		puts = append(puts, put(fmt.Sprintf("/p/f%02d", i), "x"))
		dels = append(dels, del(fmt.Sprintf("/p/f%02d", i)))
	}
	more := make([]op, 0, 30)
	for i := range 30 {
		more = append(more, put(fmt.Sprintf("/p/g%02d", i), "x"))
	}
	b.src.write(puts...)
	b.src.write(more...)
	b.opt.MaxDelete = 0.1
	m := b.run()
	eventually(t, "filled", func() bool { return m.Status().State == StateOK && m.Status().Files == 60 })
	if n := m.Confirm(); n != 0 {
		t.Errorf("confirmed %d removals that nobody asked for", n)
	}
	b.src.write(dels...)
	eventually(t, "held", func() bool { return m.Status().State == StateHeld })
	if n := m.Confirm(); n != 30 {
		t.Errorf("%d confirmed, want 30", n)
	}
	eventually(t, "removed", func() bool { return m.Status().State == StateOK && m.Status().Files == 30 })
	for i := range more {
		more[i] = del(more[i].path)
	}
	b.src.write(more...)
	eventually(t, "held again", func() bool { return m.Status().State == StateHeld })
	if got := len(b.files()); got != 30 {
		t.Errorf("%d files, want 30: an agreement counted twice", got)
	}
}

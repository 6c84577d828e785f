package mirror

import (
	"errors"
	"log/slog"
	"slices"
	"testing"
)

// Somebody edits a file between the look at it and the moment when the mirror puts another in its place, or removes it.
func TestEditInTheLastMomentIsNotLost(t *testing.T) {
	for name, news := range map[string]op{
		"replaced": put("/p/a", "theirs"), "removed": del("/p/a"), "new": put("/p/new", "theirs"),
	} {
		for how, edit := range map[string]func(d *crashDisk, dir *node, name string) error{
			"in place": func(d *crashDisk, dir *node, name string) error {
				return d.put("/m/out", map[string]string{name: "edited"})
			},
			"by a rename": func(d *crashDisk, dir *node, name string) error {
				delete(dir.names, name)
				return d.put("/m/out", map[string]string{name: "edited"})
			},
		} {
			t.Run(name+" "+how, func(t *testing.T) {
				src, d := newFakeSource(), newCrashDisk()
				if err := d.MkdirAll("/m/out", 0o755); err != nil {
					t.Fatal(err)
				}
				m, err := New(src, Options{Prefix: "/p", Dir: "/m/out", StateDir: "/m/state", Mode: ModeBoth, Log: slog.New(slog.DiscardHandler)})
				if err != nil {
					t.Fatal(err)
				}
				m.disk, m.settle = d, 0
				src.write(put("/p/a", "1"), put("/p/b", "2"))
				if err := m.Once(t.Context()); err != nil {
					t.Fatal(err)
				}
				src.write(news)
				path := news.path[len("/p/"):]
				edited := false
				d.meddle = func(dir *node, name string) {
					if top, err := d.find("/m/out"); err != nil || dir != top || name != path || edited {
						return
					}
					edited = true
					if err := edit(d, dir, path); err != nil {
						t.Error(err)
					}
				}
				for range 3 {
					if err := m.Once(t.Context()); err != nil && !errors.Is(err, ErrIncomplete) {
						t.Fatal(err)
					}
				}
				if !edited || !slices.Contains(src.history["/p/"+path], "edited") {
					t.Errorf("edited: %t; the source had %q", edited, src.history["/p/"+path])
				}
			})
		}
	}
}

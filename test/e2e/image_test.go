package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestG1_HostFromAnOldImage: the whole disk of a host goes back to an image, its identity, store and mirrored files. It
// comes to have what it wrote since, from the others, and goes on as another store. If it writes before it meets them,
// there are two blocks of one number, and both count.
func TestG1_HostFromAnOldImage(t *testing.T) {
	for _, c := range []struct {
		name      string
		meanwhile map[string]string // what it writes before it meets the others
		alarms    string
	}{
		{"and it meets the others", nil, "identity-reused on b"},
		{"and it writes before it meets the others", map[string]string{"/of/b/alone": "x", "/of/b/new": "from the image"}, "fork on a, identity-reused on b, fork on c"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFleet(t, "a", "b", "c")
			a, b, others := f.hosts[0], f.hosts[1], []*host{f.hosts[0], f.hosts[2]}
			files := b.mirror("/", "")
			f.start()
			f.apply("@hosts peer", "@hosts /of rw")
			f.connect()
			want := map[string]string{"/of/b/old": "before", "/of/b/gone": "before", "/of/a": "before"}
			b.mustBatch(want)
			f.converge()
			b.stop()
			image := b.image()

			f.start()
			f.connect()
			f.apply("@hosts peer", "@hosts /of rw", "@hosts /later rw")
			since := map[string]string{"/of/b/old": "since", "/of/b/gone": "", "/of/b/new": "since", "/later/b": "since"}
			for path, value := range since { // each in a block of its own
				b.mustBatch(map[string]string{path: value})
			}
			a.mustPut("/of/a", "since")
			f.converge()
			b.kill()
			b.back(image)
			if c.meanwhile != nil {
				for _, h := range others {
					h.stop()
				}
				b.start()
				b.mustBatch(c.meanwhile)
			}
			f.start()
			want = map[string]string{"/of/b/old": "since", "/of/b/new": "since", "/later/b": "since", "/of/a": "since"}
			for path, value := range c.meanwhile {
				want[path] = value // written later
			}
			f.converge()
			for _, h := range f.hosts {
				sameValues(t, h, h.mustList("/"), want)
			}
			var alarms []string
			for _, h := range f.hosts {
				alarms = append(alarms, h.alarms()...)
			}
			if got := strings.Join(alarms, ", "); got != c.alarms {
				t.Errorf("alarms: %q, want %q", got, c.alarms)
			}
			for n := range 3 { // of a new chain, and above what the old one wrote
				want["/of/b/new"] = fmt.Sprint("after ", n)
				b.mustPut("/of/b/new", want["/of/b/new"])
			}
			f.converge()
			b.stop()
			b.start()
			f.converge()
			for _, h := range f.hosts {
				sameValues(t, h, h.mustList("/"), want)
			}
			if got := b.alarms(); got != nil {
				t.Errorf("after a restart: %q", got)
			}
			eventually(t, func() error { return sameFiles(files, want) })
		})
	}
}

// image copies the disk of a host that does not run.
func (h *host) image() (dir string) {
	h.t.Helper()
	dir = h.dir + ".image"
	if err := os.CopyFS(dir, os.DirFS(h.dir)); err != nil {
		h.t.Fatal(err)
	}
	return dir
}

// back gives a host that does not run the disk that it had.
func (h *host) back(image string) {
	h.t.Helper()
	err := os.RemoveAll(h.dir)
	if err == nil {
		err = os.Rename(image, h.dir)
	}
	if err == nil {
		err = os.Chmod(filepath.Join(h.dir, "identity.key"), 0o600) // CopyFS keeps no mode
	}
	if err != nil {
		h.t.Fatal(err)
	}
}

package mirror

import (
	"testing"
)

// A crash never leaves a directory without its mode: whoever reads the files could not reach them.
func TestDirectoriesHaveTheirModeAfterACrash(t *testing.T) {
	c := crashStory{src: []op{put("/p/d/e/b", "1")}, news: []op{}}
	whole := newCrashDisk()
	if _, err := once(c.mirror(t, c.source(), whole)); err != nil {
		t.Fatal(err)
	}
	for at := int64(1); at <= whole.ops.Load(); at++ {
		d := newCrashDisk()
		d.stopAt = at
		_, _ = once(c.mirror(t, c.source(), d)) // the power fails
		d = d.after(nothingIsLost)
		if _, err := once(c.mirror(t, c.source(), d)); err != nil {
			t.Fatal(err)
		}
		for _, dir := range []string{"/m/out/d", "/m/out/d/e"} {
			n, err := d.find(dir)
			if err != nil {
				t.Fatal(err)
			}
			if n.mode != dirMode {
				t.Errorf("after a crash at operation %d, %s has mode %o", at, dir, n.mode)
			}
		}
	}
}

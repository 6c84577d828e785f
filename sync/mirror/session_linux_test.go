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

// What is gone is not remembered: names come and go for as long as a mirror runs.
func TestWhatIsGoneIsForgotten(t *testing.T) {
	for _, swap := range []Swap{SwapFiles, SwapDirectory} {
		c := crashStory{opt: func(o *Options) { o.Swap = swap }, src: []op{put("/p/a", "1"), put("/p/b", "2")}}
		src, d := c.source(), newCrashDisk()
		m := c.mirror(t, src, d)
		for range 2 { // files are known when they were looked at once more
			if _, err := once(m); err != nil {
				t.Fatal(err)
			}
		}
		if len(m.trust) != 2 {
			t.Fatalf("%s: %d files are known", swap, len(m.trust))
		}
		src.write(del("/p/b"))
		if _, err := once(m); err != nil {
			t.Fatal(err)
		}
		if len(m.trust) != 1 {
			t.Errorf("%s: %d files are known, there is 1", swap, len(m.trust))
		}
	}
}

package mirror

import (
	"context"
	"errors"
	"slices"
	"testing"
)

// A source that is behind takes no file away, nor back to an earlier version: what it has never heard of stays until it
// knows. What it has heard of and does not show any more, as after a revocation, goes.
func TestSourceThatIsBehindTakesNothingBack(t *testing.T) {
	for _, swap := range []Swap{SwapFiles, SwapDirectory} {
		b := newBench(t)
		b.opt.Swap = swap
		full, old := b.src, newFakeSource() // which has not got the last write yet
		old.write(put("/p/c", "old"), put("/p/d", "old"))
		full.write(put("/p/c", "old"), put("/p/d", "old"))
		full.write(put("/p/a", "1"), put("/p/b", "2"), put("/p/c", "new"), put("/p/d", "new"))
		b.mustOnce()
		b.src = old
		if err := b.once(); !errors.Is(err, ErrIncomplete) {
			t.Fatalf("%s: %v", swap, err)
		}
		steps, err := b.mirror().Preview(context.Background())
		if err != nil || slices.ContainsFunc(steps, func(s Step) bool { return s.Verb != Skip }) {
			t.Errorf("%s: it would do %v, %v", swap, steps, err)
		}
		b.expectSeen(map[string]string{"a": "1", "b": "2", "c": "new", "d": "new"})
		full.write(del("/p/b"))
		full.files["/p/d"] = old.files["/p/d"]
		b.src = full
		b.mustOnce()
		b.expectSeen(map[string]string{"a": "1", "c": "new", "d": "old"})
	}
}

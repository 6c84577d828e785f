package mirror

import (
	"context"
	"errors"
	"slices"
	"testing"
)

// A source that is behind takes no file away: what it has never heard of stays until it knows, or somebody agrees.
func TestSourceThatIsBehindRemovesNothing(t *testing.T) {
	for _, swap := range []Swap{SwapFiles, SwapDirectory} {
		b := newBench(t)
		b.opt.Swap = swap
		b.src.write(put("/p/a", "1"), put("/p/b", "2"))
		b.mustOnce()
		full := b.src
		b.src = newFakeSource() // another store, which has not got the write yet
		if err := b.once(); !errors.Is(err, ErrIncomplete) {
			t.Fatalf("%s: %v", swap, err)
		}
		steps, err := b.mirror().Preview(context.Background())
		if err != nil || slices.ContainsFunc(steps, func(s Step) bool { return s.Verb != Skip }) {
			t.Errorf("%s: it would do %v, %v", swap, steps, err)
		}
		b.expectSeen(map[string]string{"a": "1", "b": "2"})
		full.write(del("/p/b"))
		b.src = full
		b.mustOnce()
		b.expectSeen(map[string]string{"a": "1"})
	}
}

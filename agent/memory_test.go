package agent

import "testing"

func TestTidyAfterABusyTime(t *testing.T) {
	var d tidy
	total := uint64(0)
	for i, step := range []struct {
		bytes uint64
		due   bool
	}{{1, false}, {busyBytes + 1, false}, {busyBytes * 3, false}, {5, true}, {5, false}, {busyBytes, false}, {busyBytes + 1, false}, {0, true}} {
		total += step.bytes
		if got := d.due(total); got != step.due {
			t.Errorf("step %d: %v", i, got)
		}
	}
}

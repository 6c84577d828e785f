package agent

import (
	"os"
	"runtime"
	"testing"
	"time"
)

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

func TestCollectorIsPacedByBytes(t *testing.T) {
	for live, want := range map[uint64]int{0: 50, 4 << 20: 50, 2 * garbageBytes: 50, 4 * garbageBytes: 25, 8 * garbageBytes: 12, 1 << 40: 5} {
		if got := collectAt(live); got != want {
			t.Errorf("%d bytes in use: %d %%, want %d", live, got, want)
		}
	}
}

// Each collection sets what the next one waits for, up and down, for as long as the agent runs.
func TestCollectorFollowsTheHeap(t *testing.T) {
	if os.Getenv("GOGC") != "" {
		t.Skip("GOGC is set, which wins")
	}
	limitMemory()
	percent := func() uint64 { return read("/gc/gogc:percent") }
	for range 2 {
		ballast := make([]byte, 5*garbageBytes)
		collectUntil(t, func() bool { return percent() <= 20 })
		runtime.KeepAlive(ballast)
		collectUntil(t, func() bool { return percent() > 20 })
	}
}

func collectUntil(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("the collector waits for %d %%", read("/gc/gogc:percent"))
		}
		runtime.GC()
	}
}

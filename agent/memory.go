package agent

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	runtimemetrics "runtime/metrics"
	"sync"
	"time"
)

// garbageBytes is how much garbage may gather between two collections.
const garbageBytes = 32 << 20

// limitMemory makes the garbage collector work harder than by default: an agent shares its host with the services it is
// there for. By default garbage grows with what is in use, which in a busy agent is mostly buffers of badger. There is
// nothing in them to follow, so a collection costs no more beside 500 MB of them than beside 50. The operator's own GOGC and
// GOMEMLIMIT win.
var limitMemory = sync.OnceFunc(func() {
	if os.Getenv("GOGC") == "" {
		pace()
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(512 << 20)
	}
})

// pace sets what the next collection waits for, and does so again after it.
func pace() {
	debug.SetGCPercent(collectAt(read("/gc/heap/live:bytes")))
	type cycle struct{ _ *cycle } // alone in its memory, as it holds a pointer
	runtime.AddCleanup(new(cycle), func(struct{}) { pace() }, struct{}{})
}

// collectAt gives by how many percent the heap may grow when so many bytes of it were in use after a collection.
func collectAt(live uint64) int {
	return int(max(5, min(50, 100*garbageBytes/max(live, 1))))
}

const (
	tidyInterval = 10 * time.Second
	busyBytes    = 16 << 20 // allocated in one interval; an idle agent stays far below
)

// runTidy gives memory back to the host when a busy time is over. By itself the runtime keeps what an import needed for
// minutes, as nothing is allocated that would make it collect.
func runTidy(ctx context.Context, free func()) error {
	ticker := time.NewTicker(tidyInterval)
	defer ticker.Stop()
	var t tidy
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if t.due(allocated()) {
			free()
		}
	}
}

// tidy decides when to give memory back: in the first quiet interval after a busy one.
type tidy struct {
	last uint64 // bytes allocated since the start, at the last look
	busy bool
}

func (t *tidy) due(allocated uint64) bool {
	delta := allocated - t.last
	t.last = allocated
	if delta > busyBytes {
		t.busy = true
		return false
	}
	was := t.busy
	t.busy = false
	return was
}

func allocated() uint64 { return read("/gc/heap/allocs:bytes") }

// read gives a metric of the runtime.
func read(name string) uint64 {
	sample := []runtimemetrics.Sample{{Name: name}}
	runtimemetrics.Read(sample)
	return sample[0].Value.Uint64()
}

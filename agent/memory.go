package agent

import (
	"context"
	"os"
	"runtime/debug"
	runtimemetrics "runtime/metrics"
	"time"
)

// limitMemory makes the garbage collector work harder than by default: an agent shares its host with the services it
// is there for. The operator's own GOGC and GOMEMLIMIT win.
func limitMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(512 << 20)
	}
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

func allocated() uint64 {
	sample := []runtimemetrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	runtimemetrics.Read(sample)
	return sample[0].Value.Uint64()
}

//go:build faults

package crdtstore

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// Builds with the tag "faults" can die at every named step, and can be given a fault that tests must find. They are for
// tests only.
//
// SYNCAGENT_FAILPOINT=NAME or NAME:N kills the process, as kill -9 does, when it comes to that step for the Nth time.
// SYNCAGENT_FAULT=NAME plants a fault.
var (
	plantedFault = os.Getenv("SYNCAGENT_FAULT")
	killAt, left = failpointFrom(os.Getenv("SYNCAGENT_FAILPOINT"))

	// onFail is called at every step if it is set: tests of this package count and die in it.
	onFail func(name string)
)

func failpointFrom(text string) (name string, left *atomic.Int64) {
	left = new(atomic.Int64)
	left.Store(1)
	name, count, _ := strings.Cut(text, ":")
	if n, err := strconv.ParseInt(count, 10, 64); err == nil {
		left.Store(n)
	}
	return name, left
}

func fail(name string) {
	if onFail != nil {
		onFail(name)
	}
	if name == killAt && left.Add(-1) == 0 {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL) // nobody is left to tell
	}
}

func planted(name string) bool { return name == plantedFault }

// plantedCommit commits a part of the turn ahead of the rest.
func (t *turn) plantedCommit() error {
	part := newRows()
	for k, v := range t.rows.m {
		if planted("heads-apart") && k[0] == 'c' || planted("half-commit") && k[0] == 's' && len(part.m) == 0 {
			part.m[k] = v
		}
	}
	if part.empty() {
		return nil
	}
	return t.s.kv.Commit(part)
}

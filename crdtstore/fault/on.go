//go:build faults

package fault

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

var (
	killAt, left = failpoint(os.Getenv("SYNCAGENT_FAILPOINT"))
	planted      = os.Getenv("SYNCAGENT_FAULT")
	offset       = clockOffset(os.Getenv("SYNCAGENT_CLOCK"))
	onPoint      func(name string)
)

func failpoint(text string) (name string, left *atomic.Int64) {
	left = new(atomic.Int64)
	left.Store(1)
	name, count, _ := strings.Cut(text, ":")
	if n, err := strconv.ParseInt(count, 10, 64); err == nil {
		left.Store(n)
	}
	return name, left
}

func clockOffset(text string) time.Duration {
	if text == "" {
		return 0
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		fmt.Fprintln(os.Stderr, "SYNCAGENT_CLOCK:", err)
		os.Exit(2)
	}
	return d
}

// Point marks a step at which a test lets the process die.
func Point(name string) {
	if onPoint != nil {
		onPoint(name)
	}
	if name == killAt && left.Add(-1) == 0 {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL) // nobody is left to tell
	}
}

// OnPoint has fn called at every step; nil ends that. Not while anything runs that comes by a step.
func OnPoint(fn func(name string)) { onPoint = fn }

// Planted tells whether this fault was planted.
func Planted(name string) bool { return name == planted }

// Plant plants a fault, none with "". Not while anything runs that may ask for it.
func Plant(name string) { planted = name }

// ClockOffset is by how much the wall clock is off.
func ClockOffset() time.Duration { return offset }

package main

import (
	"fmt"
	"io"
	"time"
)

const progressEvery = 200 * time.Millisecond

// progress tells a person at a terminal how far a long command is. A nil one tells nothing.
type progress struct {
	w           io.Writer
	total       int // 0: unknown
	start, last time.Time
	done        int
}

// newProgress gives nil unless stderr is a terminal and the user has not asked for quiet. Total is called only if not.
func (c *cli) newProgress(total func() int) *progress {
	if c.quiet || !isTerminal(c.stderr) {
		return nil
	}
	n, now := total(), time.Now()
	return &progress{w: c.stderr, total: n, start: now, last: now}
}

// step counts one more.
func (p *progress) step() {
	if p == nil {
		return
	}
	p.done++
	if now := time.Now(); now.Sub(p.last) >= progressEvery {
		p.last = now
		fmt.Fprintf(p.w, "\r\033[K%s", progressText(p.done, p.total, now.Sub(p.start)))
	}
}

// clear removes the line, so that something else can be printed.
func (p *progress) clear() {
	if p != nil {
		fmt.Fprint(p.w, "\r\033[K")
	}
}

func progressText(done, total int, took time.Duration) string {
	rate := float64(done) / max(took.Seconds(), 0.001)
	if total < done {
		return fmt.Sprintf("%d files, %.0f/s", done, rate)
	}
	left := time.Duration(float64(total-done) / max(rate, 0.001) * float64(time.Second))
	return fmt.Sprintf("%d of %d files, %.0f/s, %s left", done, total, rate, left.Round(time.Second))
}

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
	what        string // is counted
	total       int    // 0: unknown
	start, last time.Time
	done        int
}

// newProgress gives nil unless stderr is a terminal and the user has not asked for quiet. Total is called only if not.
func (c *cli) newProgress(what string, total func() int) *progress {
	if c.quiet || !isTerminal(c.stderr) {
		return nil
	}
	n, now := total(), time.Now()
	return &progress{w: c.stderr, what: what, total: n, start: now, last: now}
}

// step counts one more.
func (p *progress) step() {
	if p != nil {
		p.at(p.done+1, p.total)
	}
}

// at says how many are done now, and how many there are.
func (p *progress) at(done, total int) {
	if p == nil {
		return
	}
	p.done, p.total = done, total
	if now := time.Now(); now.Sub(p.last) >= progressEvery {
		p.last = now
		fmt.Fprintf(p.w, "\r\033[K%s", progressText(p.what, p.done, p.total, now.Sub(p.start)))
	}
}

// clear removes the line, so that something else can be printed.
func (p *progress) clear() {
	if p != nil {
		fmt.Fprint(p.w, "\r\033[K")
	}
}

func progressText(what string, done, total int, took time.Duration) string {
	rate := float64(done) / max(took.Seconds(), 0.001)
	if total < done {
		return fmt.Sprintf("%d %s, %.0f/s", done, what, rate)
	}
	left := time.Duration(float64(total-done) / max(rate, 0.001) * float64(time.Second))
	return fmt.Sprintf("%d of %d %s, %.0f/s, %s left", done, total, what, rate, left.Round(time.Second))
}

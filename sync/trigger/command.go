package trigger

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	maxOutput = 64 << 10        // bytes kept of a run's output
	maxWrites = 100             // versions named in SYNCAGENT_WRITE: a variable may have 128 KiB
	killGrace = 2 * time.Second // between SIGTERM and SIGKILL, and for output after the command's end
)

// result is what one run came to.
type result struct {
	exit   int    // exit code; -1 when it was killed or not started
	output []byte // standard output and error, at most maxOutput bytes, cut at the end
	err    error  // nil if and only if the command ended by itself with exit code 0
	took   time.Duration
}

// runCommand runs the trigger once for the batch and waits for its end. At the timeout, or when ctx ends, the whole
// process group gets SIGTERM and killGrace later SIGKILL. What the command left running in the background on purpose
// lives on, without us as reader of its output.
func runCommand(ctx context.Context, s Spec, b batch, prefix, dir string) result {
	start := time.Now()
	limited, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	out := &capped{limit: maxOutput}
	cmd := exec.CommandContext(limited, "/bin/sh", "-c", s.Command)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Stdin = bytes.NewReader(b.stdin(s.Null))
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = append(os.Environ(),
		"SYNCAGENT_PREFIX="+prefix,
		"SYNCAGENT_DIR="+dir,
		"SYNCAGENT_CHANGED="+strconv.Itoa(len(b.paths)),
		"SYNCAGENT_WRITE="+b.writes())
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = killGrace
	err := cmd.Run()
	if cmd.Process != nil && limited.Err() != nil {
		// The shell is gone by now; its children may not be, if they ignore SIGTERM.
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	r := result{exit: -1, output: out.bytes(), took: time.Since(start)}
	state := cmd.ProcessState
	if state != nil {
		r.exit = state.ExitCode()
	}
	switch {
	case state != nil && state.Success() && limited.Err() == nil:
		// err may be exec.ErrWaitDelay: a background child holds the output open.
	case ctx.Err() != nil:
		r.err = fmt.Errorf("run command: %w", ctx.Err())
	case limited.Err() != nil:
		r.err = fmt.Errorf("run command: timed out after %s", s.Timeout)
	default:
		r.err = fmt.Errorf("run command: %w", err)
	}
	return r
}

// batch is what one run has to be told.
type batch struct {
	paths map[string]string // path -> version of the write that changed it
	seq   uint64            // the highest that is included
}

func (b batch) sorted() []string {
	paths := make([]string, 0, len(b.paths))
	for p := range b.paths {
		paths = append(paths, p)
	}
	slices.Sort(paths)
	return paths
}

// stdin gives the changed paths in ascending order, each ended by a newline or a NUL byte. Paths hold neither.
func (b batch) stdin(null bool) []byte {
	end := byte('\n')
	if null {
		end = 0
	}
	var buf []byte
	for _, p := range b.sorted() {
		buf = append(append(buf, p...), end)
	}
	return buf
}

// writes gives the versions of the newest writes, ascending, separated by spaces.
func (b batch) writes() string {
	var all []string
	for _, w := range b.paths {
		if w != "" {
			all = append(all, w)
		}
	}
	slices.Sort(all)
	all = slices.Compact(all)
	return strings.Join(all[max(0, len(all)-maxWrites):], " ")
}

// capped keeps the first bytes written to it and swallows the rest, so that a talkative command is not blocked.
type capped struct {
	mu    sync.Mutex // the command's output may still come in when we give up waiting for it
	buf   []byte
	limit int
}

func (c *capped) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.buf = append(c.buf, p[:min(len(p), c.limit-len(c.buf))]...)
	return len(p), nil
}

func (c *capped) bytes() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.buf)
}

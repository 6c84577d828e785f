package trigger

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"runtime"
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

// Command is a program with its arguments, and how it is run.
type Command struct {
	Args    []string      // the program, found by PATH if its name has no slash, and its arguments
	Env     []string      // NAME=VALUE, added to our own environment
	User    string        // name or number of the user to run as, with that user's groups; empty: as we are
	Timeout time.Duration // then the process group is killed
}

// Result is what one run came to.
type Result struct {
	Exit   int    // exit code; -1 when it was killed or not started
	Output []byte // standard output and error, at most 64 KiB, cut at the end
	Err    error  // nil if and only if the command ended by itself with exit code 0
	Took   time.Duration
}

// Run runs the command and waits for its end. At the timeout, or when ctx ends, the whole process group gets SIGTERM and
// two seconds later SIGKILL. What the command left running in the background on purpose lives on, without us as reader
// of its output. On Linux the command itself, not its children, is killed when we are. Env comes on top of Command.Env.
func (c Command) Run(ctx context.Context, stdin []byte, env ...string) Result {
	start := time.Now()
	limited, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	out := &capped{limit: maxOutput}
	cmd := exec.CommandContext(limited, c.Args[0], c.Args[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	runtime.LockOSThread() // the command dies with its thread
	defer runtime.UnlockOSThread()
	dieWithParent(cmd.SysProcAttr)
	cmd.Stdin = bytes.NewReader(stdin)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = slices.Concat(os.Environ(), c.Env, env)
	if err := c.become(cmd); err != nil {
		return Result{Exit: -1, Err: fmt.Errorf("run command: %w", err), Took: time.Since(start)}
	}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = killGrace
	err := cmd.Run()
	if cmd.Process != nil && limited.Err() != nil {
		// The shell is gone by now; its children may not be, if they ignore SIGTERM.
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	r := Result{Exit: -1, Output: out.bytes(), Took: time.Since(start)}
	state := cmd.ProcessState
	if state != nil {
		r.Exit = state.ExitCode()
	}
	switch {
	case state != nil && state.Success() && limited.Err() == nil:
		// err may be exec.ErrWaitDelay: a background child holds the output open.
	case ctx.Err() != nil:
		r.Err = fmt.Errorf("run command: %w", ctx.Err())
	case limited.Err() != nil:
		r.Err = fmt.Errorf("run command: timed out after %s", c.Timeout)
	default:
		r.Err = fmt.Errorf("run command: %w", err)
	}
	return r
}

// become makes the command run as its user, with HOME, USER and LOGNAME to match.
func (c Command) become(cmd *exec.Cmd) error {
	if c.User == "" {
		return nil
	}
	u, err := lookupUser(c.User)
	if err != nil {
		return err
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return err
	}
	cmd.Env = append(cmd.Env, "HOME="+u.HomeDir, "USER="+u.Username, "LOGNAME="+u.Username)
	if int(uid) == os.Geteuid() {
		return nil // setting groups would need rights that we may not have, to change nothing
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return err
	}
	names, err := u.GroupIds()
	if err != nil {
		return fmt.Errorf("groups of user %s: %w", c.User, err)
	}
	credential := &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	for _, n := range names {
		g, err := strconv.ParseUint(n, 10, 32)
		if err != nil {
			return err
		}
		credential.Groups = append(credential.Groups, uint32(g))
	}
	cmd.SysProcAttr.Credential = credential
	return nil
}

// lookupUser finds a user by name or number.
func lookupUser(name string) (*user.User, error) {
	if _, err := strconv.ParseUint(name, 10, 32); err == nil {
		return user.LookupId(name)
	}
	return user.Lookup(name)
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

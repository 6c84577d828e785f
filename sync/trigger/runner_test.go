package trigger

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// bench runs triggers that write into a file.
type bench struct {
	t    *testing.T
	out  string
	r    *Runner
	mu   sync.Mutex
	done []string
}

// newBench starts a Runner; OUT in commands is the path of a file.
func newBench(t *testing.T, o Options, specs ...Spec) *bench {
	t.Helper()
	b := &bench{t: t, out: filepath.Join(t.TempDir(), "out")}
	for i := range specs {
		specs[i].Command = strings.ReplaceAll(specs[i].Command, "OUT", b.out)
		if specs[i].Timeout == 0 {
			specs[i].Timeout = time.Minute
		}
		if specs[i].Name == "" {
			specs[i].Name = fmt.Sprintf("t%d", i)
		}
	}
	o.Specs, o.Prefix, o.Dir = specs, "/p", "/mirror"
	b.r = New(o)
	return b
}

func (b *bench) start() {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.r.Run(ctx, b.seen) }()
	b.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			b.t.Error(err)
		}
	})
}

func (b *bench) seen(name string, seq uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.done = append(b.done, fmt.Sprint(name, ":", seq))
}

func (b *bench) dones() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Join(b.done, " ")
}

func (b *bench) output() string {
	text, _ := os.ReadFile(b.out)
	return string(text)
}

func (b *bench) eventually(what string, ok func() bool) {
	b.t.Helper()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			b.t.Fatalf("never came true: %s (%+v)", what, b.r.Status())
		case <-tick.C:
		}
	}
}

func changes(paths ...string) []Change {
	var out []Change
	for _, p := range paths {
		out = append(out, Change{p, "w" + p[len(p)-1:]})
	}
	return out
}

var quick = Options{DebounceMin: time.Millisecond, DebounceMax: 10 * time.Millisecond, RetryMin: time.Millisecond}

func TestCommandIsToldWhatChanged(t *testing.T) {
	b := newBench(t, quick, Spec{Path: "/p/a", Command: `echo "$SYNCAGENT_PREFIX $SYNCAGENT_DIR $SYNCAGENT_CHANGED $SYNCAGENT_WRITE" > OUT; cat >> OUT`},
		Spec{Path: "/p/ab", Command: "touch OUT.wrong"})
	b.start()
	b.r.Notify(7, changes("/p/a/y", "/p/a/x", "/p/b", "/p/a"))
	b.eventually("run noted", func() bool { return b.dones() != "" })
	if got, want := b.output(), "/p /mirror 3 wa wx wy\n/p/a\n/p/a/x\n/p/a/y\n"; got != want {
		t.Errorf("the command was told %q, want %q", got, want)
	}
	if got := b.dones(); got != "t0:7" {
		t.Errorf("done %q", got)
	}
	if s := b.r.Status(); s[0].Runs != 1 || s[0].Pending || s[1].Runs != 0 || s[1].Pending {
		t.Errorf("status %+v", s)
	}
}

// A path is data: nothing in it reaches the shell.
func TestNothingIsInterpolated(t *testing.T) {
	evil := "/p/$(touch PWNED);`touch PWNED`'\"\\"
	dir := t.TempDir()
	evil = strings.ReplaceAll(evil, "PWNED", "pwned")
	b := newBench(t, quick, Spec{Path: "/", Command: "cd '" + dir + "' && tr '\\0' '!' > OUT", Null: true})
	b.start()
	b.r.Notify(1, []Change{{Path: evil}})
	b.eventually("run", func() bool { return b.dones() != "" })
	if got := b.output(); got != evil+"!" {
		t.Errorf("stdin %q, want %q", got, evil+"!")
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("a path was executed: %v", left)
	}
}

func TestChangesAreCoalescedAndRunsDoNotOverlap(t *testing.T) {
	b := newBench(t, quick, Spec{Path: "/", Command: `mkdir OUT.lock || echo overlap >> OUT; sleep 0.05; cat >> OUT; echo run >> OUT; rmdir OUT.lock`})
	b.start()
	const n = 60
	for i := range n {
		b.r.Notify(uint64(i+1), []Change{{Path: fmt.Sprintf("/p/%02d", i)}})
		if i%10 == 0 {
			at := b.r.Status()[0].Runs
			if i > 0 {
				b.eventually("another run", func() bool { return b.r.Status()[0].Runs > at })
			}
		}
	}
	b.eventually("all seen", func() bool { return strings.HasSuffix(b.dones(), fmt.Sprint(":", n)) })
	got := b.output()
	if strings.Contains(got, "overlap") {
		t.Error("two runs at the same time")
	}
	for i := range n {
		if strings.Count(got, fmt.Sprintf("/p/%02d\n", i)) != 1 {
			t.Errorf("change %d was not told once", i)
		}
	}
	if runs := strings.Count(got, "run\n"); runs > 20 {
		t.Errorf("%d runs for %d changes", runs, n)
	}
}

func TestFailureIsRepeatedWithWhatCameMeanwhile(t *testing.T) {
	b := newBench(t, quick, Spec{Path: "/", Command: `cat > OUT.in; cat OUT.in >> OUT; echo >> OUT; grep -q /p/b OUT.in || { echo no >&2; exit 3; }`})
	b.start()
	b.r.Notify(1, changes("/p/a"))
	b.eventually("three failures", func() bool { return b.r.Status()[0].Runs >= 3 })
	s := b.r.Status()[0]
	if s.LastExit != 3 || !s.Pending || string(s.LastOutput) != "no\n" || !strings.Contains(s.LastError, "exit status 3") {
		t.Errorf("status %+v", s)
	}
	if b.dones() != "" {
		t.Error("a failed run counts")
	}
	b.r.Notify(2, changes("/p/b"))
	b.eventually("success", func() bool { return b.dones() == "t0:2" })
	if got := b.output(); !strings.HasSuffix(got, "\n/p/a\n/p/b\n\n") {
		t.Errorf("the last run was told %q", got)
	}
	if s := b.r.Status()[0]; s.LastExit != 0 || s.Pending || s.LastError != "" {
		t.Errorf("status %+v", s)
	}
}

func alive(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return syscall.Kill(pid, 0) == nil && os.IsNotExist(err) && !procExists()
	}
	return !strings.Contains(string(text), ") Z ") // a zombie is dead
}

func procExists() bool { _, err := os.Stat("/proc/self/stat"); return err == nil }

func TestTimeoutKillsTheWholeProcessGroup(t *testing.T) {
	for name, command := range map[string]string{
		"child and grandchild": `(sleep 1000 & echo $! > OUT; wait) & wait`,
		"ignoring SIGTERM":     `(trap "" TERM; sleep 1000 & echo $! > OUT.x; mv OUT.x OUT; wait) & trap "" TERM; wait`,
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, Options{DebounceMin: time.Millisecond}, Spec{Path: "/", Command: command, Timeout: 300 * time.Millisecond})
			b.r.Notify(1, changes("/p/a"))
			start := time.Now()
			err := b.r.RunPending(context.Background(), b.seen)
			if err == nil || !strings.Contains(err.Error(), "trigger t0") || !strings.Contains(err.Error(), "timed out after 300ms") {
				t.Errorf("error %v", err)
			}
			if took := time.Since(start); took > 10*time.Second {
				t.Errorf("it took %v", took)
			}
			pid, err := strconv.Atoi(strings.TrimSpace(b.output()))
			if err != nil {
				t.Fatal(err)
			}
			b.eventually("grandchild is dead", func() bool { return !alive(pid) })
			if s := b.r.Status()[0]; s.LastExit != -1 || !s.Pending {
				t.Errorf("status %+v", s)
			}
		})
	}
}

func TestStopKillsWhatRunsAndKeepsItPending(t *testing.T) {
	b := newBench(t, quick, Spec{Path: "/", Command: `echo $$ > OUT.x; mv OUT.x OUT; sleep 1000`})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- b.r.Run(ctx, b.seen) }()
	b.r.Notify(1, changes("/p/a"))
	b.eventually("running", func() bool { return b.output() != "" })
	if s := b.r.Status()[0]; !s.Pending {
		t.Error("a running trigger is not pending")
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	pid, _ := strconv.Atoi(strings.TrimSpace(b.output()))
	b.eventually("command is dead", func() bool { return !alive(pid) })
	if s := b.r.Status()[0]; !s.Pending || b.dones() != "" {
		t.Errorf("status %+v, done %q", s, b.dones())
	}
}

func TestOutputIsCapped(t *testing.T) {
	b := newBench(t, quick, Spec{Path: "/", Command: `head -c 1000000 /dev/zero | tr '\0' x; echo end >&2`})
	b.r.Notify(1, changes("/p/a"))
	if err := b.r.RunPending(context.Background(), b.seen); err != nil {
		t.Fatal(err)
	}
	if s := b.r.Status()[0]; len(s.LastOutput) != maxOutput {
		t.Errorf("%d bytes of output are kept, want %d", len(s.LastOutput), maxOutput)
	}
}

func TestCommandsThatDoNotReadOrLeaveChildrenSucceed(t *testing.T) {
	var many []Change
	for i := range 5000 { // more than a pipe holds
		many = append(many, Change{Path: fmt.Sprintf("/p/%0100d", i), Write: fmt.Sprintf("%085d", i)})
	}
	b := newBench(t, quick, Spec{Path: "/", Command: `exec true`}, Spec{Path: "/", Command: `sleep 20 & echo $! > OUT`})
	b.r.Notify(1, many)
	if err := b.r.RunPending(context.Background(), b.seen); err != nil {
		t.Fatal(err)
	}
	if b.dones() != "t0:1 t1:1" {
		t.Errorf("done %q", b.dones())
	}
	pid, err := strconv.Atoi(strings.TrimSpace(b.output()))
	if err != nil || !alive(pid) {
		t.Errorf("what the command left running on purpose was killed (%v)", err)
	}
	_ = syscall.Kill(pid, syscall.SIGKILL)
}

func TestRestoreConcernsOneTrigger(t *testing.T) {
	b := newBench(t, quick, Spec{Path: "/p", Command: "cat >> OUT"}, Spec{Path: "/p", Command: "touch OUT.wrong"})
	if !b.r.Has("t0") || b.r.Has("t2") {
		t.Error("Has")
	}
	b.r.Restore("t0", 3, changes("/p/a", "/q/b"))
	if err := b.r.RunPending(context.Background(), b.seen); err != nil || b.output() != "/p/a\n" || b.dones() != "t0:3" {
		t.Errorf("%v, told %q, done %q", err, b.output(), b.dones())
	}
	if _, err := os.Stat(b.out + ".wrong"); !errors.Is(err, os.ErrNotExist) {
		t.Error("the other trigger ran")
	}
}

func TestRunAt(t *testing.T) {
	t0 := time.Unix(1000, 0)
	for _, c := range []struct{ last, want time.Duration }{
		{0, 100 * time.Millisecond}, {time.Second, 1100 * time.Millisecond}, {1950 * time.Millisecond, 2 * time.Second},
	} {
		if got := runAt(t0, t0.Add(c.last), 100*time.Millisecond, 2*time.Second).Sub(t0); got != c.want {
			t.Errorf("last change at %v: run at %v, want %v", c.last, got, c.want)
		}
	}
}

func TestBackoff(t *testing.T) {
	if backoff(0, time.Second, time.Minute) != 0 {
		t.Error("a delay without a failure")
	}
	for n, want := range map[int]time.Duration{1: time.Second, 2: 2 * time.Second, 5: 16 * time.Second, 7: time.Minute, 1000: time.Minute} {
		for range 50 {
			if got := backoff(n, time.Second, time.Minute); got > want || got < want*3/4 {
				t.Errorf("after %d failures %v, want %v less a quarter at most", n, got, want)
			}
		}
	}
}

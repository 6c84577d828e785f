package trigger

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestArgumentsAreNotInterpreted(t *testing.T) {
	b := newBench(t, quick, Spec{Path: "/p", Args: []string{"sh", "-c", `printf '%s|' "$@" "$EXTRA"`, "x", "a b", "$HOME", ";"}, Env: []string{"EXTRA=e f"}})
	b.start()
	b.r.Notify(1, changes("/p/a"))
	b.eventually("run", func() bool { return b.dones() == "t0:1" })
	s := b.r.Status()[0]
	if got := string(s.LastOutput); got != "a b|$HOME|;|e f|" {
		t.Errorf("the program was given %q", got)
	}
	if !strings.HasPrefix(s.Command, "sh -c ") {
		t.Errorf("command shown as %q", s.Command)
	}
}

func TestCommandGivesUpAfterItsAttempts(t *testing.T) {
	b := newBench(t, quick, Spec{Path: "/p", Command: "echo x >> OUT; exit 3", Attempts: 3})
	b.start()
	b.r.Notify(5, changes("/p/a"))
	b.eventually("given up", func() bool { return b.dones() == "t0:5" })
	if s := b.r.Status()[0]; s.Runs != 3 || s.Pending || s.LastExit != 3 || !strings.Contains(s.LastError, "given up") {
		t.Errorf("%+v", s)
	}
	b.r.Notify(6, changes("/p/b")) // a new change starts over
	b.eventually("given up again", func() bool { return b.dones() == "t0:5 t0:6" })
	if got := strings.Count(b.output(), "x"); got != 6 {
		t.Errorf("%d runs, want 6", got)
	}
}

func TestOwnDebounce(t *testing.T) {
	slow := quick
	slow.DebounceMin, slow.DebounceMax = time.Hour, time.Hour
	b := newBench(t, slow, Spec{Path: "/p", Command: "echo x >> OUT", DebounceMin: time.Millisecond, DebounceMax: time.Millisecond}, Spec{Path: "/p", Command: "true"})
	b.start()
	b.r.Notify(1, changes("/p/a"))
	b.eventually("run", func() bool { return b.dones() == "t0:1" })
	if b.r.Status()[1].Runs != 0 {
		t.Error("the other one did not wait")
	}
}

func TestOneTurnForSeveralRunners(t *testing.T) {
	turn := NewTurn()
	dir := t.TempDir()
	spec := Spec{Name: "one", Path: "/p", Command: "mkdir '" + dir + "/busy' && echo x >> '" + dir + "/out' && sleep 0.02 && rmdir '" + dir + "/busy'", Attempts: 1, Turn: turn}
	a, b := newBench(t, quick, spec), newBench(t, quick, spec)
	a.start()
	b.start()
	for i := range 5 {
		n := uint64(i + 1)
		a.r.Notify(n, changes("/p/a"))
		b.r.Notify(n, changes("/p/b"))
		a.eventually("run", func() bool { return strings.HasSuffix(a.dones(), ":"+strconv.Itoa(i+1)) })
		b.eventually("run", func() bool { return strings.HasSuffix(b.dones(), ":"+strconv.Itoa(i+1)) })
		if s, r := a.r.Status()[0], b.r.Status()[0]; s.LastError != "" || r.LastError != "" {
			t.Fatalf("two runs at a time: %q %q", s.LastError, r.LastError)
		}
	}
}

func TestCommandRunsAsItsUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can run commands as somebody else")
	}
	r := Command{Args: []string{"sh", "-c", "id -un; echo $USER"}, User: "nobody", Timeout: time.Minute}.Run(t.Context(), nil)
	if r.Err != nil || string(r.Output) != "nobody\nnobody\n" {
		t.Errorf("%q, %v", r.Output, r.Err)
	}
	if r := (Command{Args: []string{"true"}, User: "no-such-user", Timeout: time.Minute}).Run(t.Context(), nil); r.Err == nil {
		t.Error("an unknown user ran a command")
	}
}

package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// event is a line of `watch -o json`.
type event struct {
	Cursor  string
	Type    string
	Path    string
	More    bool
	Version string
}

// watcher reads the events of a watch command.
type watcher struct {
	cmd    *exec.Cmd
	events chan event
	stop   func() // ends the command
}

func (h *host) watch(args ...string) *watcher {
	h.t.Helper()
	cmd, out := h.background(append([]string{"watch", "-o", "json"}, args...)...)
	w := &watcher{cmd: cmd, events: make(chan event, 100_000)}
	w.stop = func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // a shell may have a job ignore SIGINT until it says otherwise
		for range w.events {                    // until the command is gone
		}
	}
	go func() {
		defer close(w.events)
		lines := bufio.NewReader(out)
		for {
			line, err := lines.ReadBytes('\n')
			if err != nil {
				if err != io.EOF {
					h.t.Logf("watch: %v", err)
				}
				return
			}
			var e event
			if err := json.Unmarshal(line, &e); err != nil {
				h.t.Errorf("watch printed %q: %v", line, err)
			}
			w.events <- e
		}
	}()
	return w
}

// until reads events up to the first that is wanted, or to the end of the command; it gives those read.
func (w *watcher) until(t *testing.T, wanted func(event) bool) (seen []event) {
	t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case e, ok := <-w.events:
			if !ok {
				return seen
			}
			seen = append(seen, e)
			if wanted(e) {
				return seen
			}
		case <-deadline:
			t.Fatalf("watch: waited %s; the last of %d events are %v", patience, len(seen), seen[max(0, len(seen)-3):])
		}
	}
}

// A watch is cut by the end of its agent, by the book and by a kill, while others write. It goes on where it was.
func TestG12_WatchSinceMissesNothingOverRestart(t *testing.T) {
	f := startFleet(t, []string{everything}, "a", "b")
	a, b := f.hosts[0], f.hosts[1]
	expected := map[string]bool{} // paths that every later watch has to tell of
	n := 0
	write := func(h *host, count int) {
		for range count {
			path := fmt.Sprintf("/w/%s/%d", h.name, n)
			n++
			h.mustPut(path, "x")
			expected[path] = true
		}
	}
	write(a, 5)
	f.converge()
	w := b.watch("/w")
	seen := w.until(t, func(e event) bool { return e.Type == "synced" })
	cursor := seen[len(seen)-1].Cursor
	if len(seen) != 6 {
		t.Errorf("the present state has %d events, want 5 and synced", len(seen))
	}
	for round, end := range []func(){func() { b.stop() }, b.kill, func() { b.stop() }, b.kill} {
		clear(expected)
		write(a, 20)
		write(b, 20)
		f.converge()
		end()
		write(a, 20) // while b is away
		b.start()
		write(b, 20)
		f.converge()
		write(a, 1)
		last := fmt.Sprintf("/w/a/%d", n-1)
		w.stop() // what it saw does not matter: it resumes from its old cursor
		w = b.watch("/w", "--since", cursor)
		seen := w.until(t, func(e event) bool { return e.Path == last })
		for _, e := range seen {
			if e.Type == "reset" {
				t.Errorf("round %d: the cursor is of no use after a restart", round)
			}
			delete(expected, e.Path)
		}
		if len(expected) > 0 {
			t.Errorf("round %d: the watch missed %v", round, expected)
		}
		cursor = seen[len(seen)-1].Cursor
		w.stop()
		w = b.watch("/w", "--since", cursor)
	}
	w.stop()
}

// A cursor of another agent is no use: the watch says so and gives the present state.
func TestG12_WatchSinceForeignCursorStartsOver(t *testing.T) {
	f := startFleet(t, []string{everything}, "a", "b")
	a, b := f.hosts[0], f.hosts[1]
	a.mustPut("/w/1", "x")
	f.converge()
	w := a.watch("/w")
	seen := w.until(t, func(e event) bool { return e.Type == "synced" })
	w.stop()
	w = b.watch("/w", "--since", seen[len(seen)-1].Cursor)
	defer w.stop()
	types := ""
	for _, e := range w.until(t, func(e event) bool { return e.Type == "synced" }) {
		types += e.Type + " "
	}
	if types != "reset put synced " {
		t.Errorf("watch on b with a cursor of a: %s", types)
	}
}

// Scripts tell a lost agent from other failures by the exit code.
func TestWatchTellsThatItsAgentIsGone(t *testing.T) {
	f := startFleet(t, []string{everything}, "a")
	a := f.hosts[0]
	for name, end := range map[string]func(){"stop": func() { a.stop() }, "kill": a.kill} {
		w := a.watch("/")
		w.until(t, func(e event) bool { return e.Type == "synced" })
		end()
		w.until(t, func(event) bool { return false })
		if err := w.cmd.Wait(); w.cmd.ProcessState.ExitCode() != 5 {
			t.Errorf("%s: watch ended with %v, want exit code 5", name, err)
		}
		a.start()
	}
}

package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"syncagent/crdtstore/record"
)

// exits CODE COMMAND... runs a command that must end with that exit code. Its output is there for stdout and stderr.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND [ARGS...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if exit, ok := err.(*exec.ExitError); ok {
		got = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%s: %v", args[1], err)
	}
	if got != want {
		ts.Fatalf("%s: exit code %d, want %d", strings.Join(args[1:], " "), got, want)
	}
}

// isjson stdout|stderr KEY=VALUE... demands that the last line of the output is JSON with these values; KEY may be a
// path a.b.
func isJSON(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: isjson stdout|stderr [KEY=VALUE...]")
	}
	doc := lastJSON(ts, args[0])
	for _, a := range args[1:] {
		key, want, _ := strings.Cut(a, "=")
		if got := at(ts, doc, key); got != want {
			ts.Fatalf("%s is %s, want %s", key, got, want)
		}
	}
}

// lastJSON reads the last line of an output.
func lastJSON(ts *testscript.TestScript, output string) any {
	lines := strings.Split(strings.TrimSpace(ts.ReadFile(output)), "\n")
	var doc any
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &doc); err != nil {
		ts.Fatalf("%s ends in %q: %v", output, lines[len(lines)-1], err)
	}
	return doc
}

// at gives the value at a path a.b of a JSON document, as text.
func at(ts *testscript.TestScript, doc any, path string) string {
	for _, k := range strings.Split(path, ".") {
		m, _ := doc.(map[string]any)
		next, ok := m[k]
		if !ok {
			ts.Fatalf("no %s in %v", path, doc)
		}
		doc = next
	}
	return fmt.Sprint(doc)
}

// value NAME FILE makes the last line of a file, or of stdout, a variable of the script.
func value(ts *testscript.TestScript, _ bool, args []string) {
	lines := strings.Split(strings.TrimSpace(ts.ReadFile(args[1])), "\n")
	ts.Setenv(args[0], lines[len(lines)-1])
}

// jsonvalue NAME stdout KEY makes a value of a JSON output a variable of the script.
func jsonValue(ts *testscript.TestScript, _ bool, args []string) {
	ts.Setenv(args[0], at(ts, lastJSON(ts, args[1]), args[2]))
}

// mode OCTAL FILE... demands permission bits.
func mode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: mode OCTAL FILE...")
	}
	for _, name := range args[1:] {
		info, err := os.Stat(ts.MkAbs(name))
		ts.Check(err)
		if got := fmt.Sprintf("%04o", info.Mode().Perm()); got != args[0] {
			ts.Fatalf("%s has mode %s, want %s", name, got, args[0])
		}
	}
}

// eventually COMMAND... repeats a command until it succeeds, for at most 30 seconds.
func eventually(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: eventually COMMAND [ARGS...]")
	}
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ts.Exec(args[0], args[1:]...)
		if err == nil {
			return
		}
		select {
		case <-deadline:
			ts.Fatalf("%s: %v", strings.Join(args, " "), err)
		case <-tick.C:
		}
	}
}

// bigFile NAME [SIZE] writes a file of one byte more than a small value has, or of so many, no two parts of it alike.
func bigFile(ts *testscript.TestScript, _ bool, args []string) {
	size := record.MaxInlineValue + 1
	if len(args) > 1 {
		var err error
		size, err = strconv.Atoi(args[1])
		ts.Check(err)
	}
	b := make([]byte, size)
	r := rand.NewChaCha8([32]byte{byte(size), byte(size >> 8)})
	for i := range b {
		b[i] = 'a' + byte(r.Uint64()%26)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b, 0o600))
}

// badName DIR makes a file whose name is not valid UTF-8.
func badName(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(os.WriteFile(filepath.Join(ts.MkAbs(args[0]), "\xff"), nil, 0o600))
}

// manyFiles DIR N makes a directory of N files f00001 and so on.
func manyFiles(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	ts.Check(os.MkdirAll(ts.MkAbs(args[0]), 0o755))
	for i := range n {
		ts.Check(os.WriteFile(filepath.Join(ts.MkAbs(args[0]), fmt.Sprintf("f%05d", i+1)), []byte("x"), 0o644))
	}
}

// deepFiles DIR DEPTH N makes N files so many directories deep.
func deepFiles(ts *testscript.TestScript, _ bool, args []string) {
	depth, err := strconv.Atoi(args[1])
	ts.Check(err)
	manyFiles(ts, false, []string{args[0] + strings.Repeat("/d", depth-1), args[2]})
}

func mkfifo(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(syscall.Mkfifo(ts.MkAbs(args[0]), 0o600))
}

// follower is a command that runs beside the script.
type follower struct {
	cmd  *exec.Cmd
	want *regexp.Regexp
	out  string
}

// watchUntil FILE PATTERN COMMAND... starts a command with its output in FILE and goes on when it has written a line
// (for watch, the line that tells that the state is complete).
func watchUntil(ts *testscript.TestScript, _ bool, args []string) {
	f := &follower{out: ts.MkAbs(args[0]), want: regexp.MustCompile("(?m)" + args[1])}
	program, err := exec.LookPath(args[2])
	ts.Check(err)
	f.cmd = exec.Command(program, args[3:]...)
	f.cmd.Dir = ts.MkAbs(".")
	for _, name := range []string{"WORK", "HOME", "PATH", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "SYNCAGENT_SOCKET"} {
		f.cmd.Env = append(f.cmd.Env, name+"="+ts.Getenv(name))
	}
	out, err := os.Create(f.out)
	ts.Check(err)
	ts.Defer(func() { out.Close() })
	f.cmd.Stdout, f.cmd.Stderr = out, out
	ts.Check(f.cmd.Start())
	ts.Defer(func() { _ = f.cmd.Process.Kill() })
	followers.Store(ts, f)
	if args[2] == "syncagent" && args[3] == "watch" && !slices.Contains(args, "3") {
		f.wait(ts, regexp.MustCompile("synced"))
	}
}

var followers sync.Map // *testscript.TestScript -> *follower

func (f *follower) wait(ts *testscript.TestScript, want *regexp.Regexp) {
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		b, err := os.ReadFile(f.out)
		ts.Check(err)
		if want.Match(b) {
			return
		}
		select {
		case <-deadline:
			ts.Fatalf("waited for %s, have %s", want, b)
		case <-tick.C:
		}
	}
}

// finish CODE waits until the follower has written what watchuntil named, interrupts it and demands its exit code.
func finish(ts *testscript.TestScript, _ bool, args []string) {
	v, _ := followers.Load(ts)
	f := v.(*follower)
	f.wait(ts, f.want)
	ts.Check(f.cmd.Process.Signal(os.Interrupt))
	_ = f.cmd.Wait()
	if got := strconv.Itoa(f.cmd.ProcessState.ExitCode()); got != args[0] {
		b, _ := os.ReadFile(f.out)
		ts.Fatalf("exit code %s, want %s: %s", got, args[0], b)
	}
}

// takePort is the script command `freeport NAME`: it sets a variable to a TCP port that nobody uses now.
func takePort(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: freeport NAME")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	_, port, err := net.SplitHostPort(l.Addr().String())
	ts.Check(err)
	ts.Check(l.Close())
	ts.Setenv(args[0], port)
}

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
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
	lines := strings.Split(strings.TrimSpace(ts.ReadFile(args[0])), "\n")
	var doc any
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &doc); err != nil {
		ts.Fatalf("%s ends in %q: %v", args[0], lines[len(lines)-1], err)
	}
	for _, a := range args[1:] {
		key, want, _ := strings.Cut(a, "=")
		at := doc
		for _, k := range strings.Split(key, ".") {
			m, ok := at.(map[string]any)
			if !ok {
				ts.Fatalf("no %s in %s", key, lines[len(lines)-1])
			}
			if at, ok = m[k]; !ok {
				ts.Fatalf("no %s in %s", key, lines[len(lines)-1])
			}
		}
		if got := fmt.Sprint(at); got != want {
			ts.Fatalf("%s is %s, want %s", key, got, want)
		}
	}
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

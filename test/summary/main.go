// Command summary reads the output of `go test -json` and prints what a reader needs: a line for each package, the
// whole output of every test that failed, and at the end how many tests passed, failed and were skipped, with the
// reasons for skipping. It exits 1 unless everything passed.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
)

// event is one line of `go test -json`, see `go doc test2json`.
type event struct {
	Action      string
	Package     string
	ImportPath  string // of build output
	Test        string
	Output      string
	Elapsed     float64 // seconds
	FailedBuild string
}

type test struct{ pkg, name string }

// summary collects events. Output is held until it is known whether anybody wants to read it.
type summary struct {
	out                     io.Writer
	output                  map[test][]string
	passed, failed, skipped int
	broken                  int // packages that failed apart from their tests: build, TestMain, panic, timeout
	failedIn                map[string]bool
}

func main() {
	ok, err := summarize(os.Stdin, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "summary:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

// summarize tells whether everything passed.
func summarize(in io.Reader, out io.Writer) (bool, error) {
	s := summary{out: out, output: map[test][]string{}, failedIn: map[string]bool{}}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			fmt.Fprintln(out, lines.Text()) // make or the compiler speaking
			continue
		}
		s.add(e)
	}
	total := s.passed + s.failed
	fmt.Fprintf(out, "tests: %d passed, %d failed, %d skipped", s.passed, s.failed, s.skipped)
	if s.broken > 0 {
		fmt.Fprintf(out, "; %d packages broken", s.broken)
	}
	fmt.Fprintln(out)
	return s.failed == 0 && s.broken == 0 && total > 0, lines.Err()
}

func (s *summary) add(e event) {
	t := test{e.Package, e.Test}
	switch e.Action {
	case "output":
		s.output[t] = append(s.output[t], e.Output)
	case "build-output":
		fmt.Fprint(s.out, e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			s.endPackage(e)
		} else {
			s.endTest(e.Action, t)
		}
		delete(s.output, t)
	}
}

// endTest counts top-level tests; subtests speak through them.
func (s *summary) endTest(action string, t test) {
	top := !strings.Contains(t.name, "/")
	switch action {
	case "fail":
		s.failedIn[t.pkg] = true
		s.print(t)
		if top {
			s.failed++
		}
	case "skip":
		s.print(t)
		if top {
			s.skipped++
		}
	case "pass":
		if top {
			s.passed++
		}
	}
}

func (s *summary) endPackage(e event) {
	if e.Action == "fail" && !s.failedIn[e.Package] {
		s.broken++
		s.print(test{e.Package, ""})
		for t := range s.output { // tests that never ended: a panic or the timeout
			if t.pkg == e.Package && t.name != "" {
				s.print(t)
				delete(s.output, t)
			}
		}
	}
	verdict := map[string]string{"pass": "ok  ", "fail": "FAIL", "skip": "--  "}[e.Action]
	fmt.Fprintf(s.out, "%s %s %.1f s\n", verdict, e.Package, e.Elapsed)
}

// print shows the output of one test without the lines that only mark progress.
func (s *summary) print(t test) {
	for _, line := range s.output[t] {
		if !strings.HasPrefix(line, "=== ") {
			fmt.Fprint(s.out, line)
		}
	}
}

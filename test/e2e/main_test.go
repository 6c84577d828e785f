// Package e2e tests whole agents: real processes of the program, made, joined and admitted as an operator does it, that
// talk over loopback and are killed, cut off, filled up and lied to. What one package can show alone is tested there.
//
// The program is built once for a run. E2E_BINARY names one to test instead, say one built with -race. Figures are
// printed, never judged. A failing test prints the end of its agents' logs.
package e2e

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"syncagent/test/process"
)

// program is the file that all agents run.
var program string

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	// Settings of whoever runs the tests are not for the agents.
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "SYNCAGENT_") && name != faultEnv {
			if err := os.Unsetenv(name); err != nil {
				fmt.Fprintln(os.Stderr, err)
				return 1
			}
		}
	}
	if program = os.Getenv("E2E_BINARY"); program != "" {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "e2e")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir) //nolint:errcheck // what is left of a temporary directory harms nobody
	if program, err = process.Build(dir, buildTags); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

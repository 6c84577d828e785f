package main

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// quickExit spares programs that were built with the race detector the second that they sleep before they end.
const quickExit = "atexit_sleep_ms=0"

func TestMain(m *testing.M) {
	_ = os.Setenv("GORACE", quickExit) // for the commands that tests run
	testscript.Main(m, map[string]func(){"syncagent": main})
}

// TestScripts runs testdata/script/*.txtar: what the command line promises, one file a promise.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits":     exits,
			"isjson":    isJSON,
			"mode":      mode,
			"fakeagent": fakeAgentCmd,
			"badname":   badName, "manyfiles": manyFiles, "mkfifo": mkfifo, "deepfiles": deepFiles, "value": value, "jsonvalue": jsonValue, "watchuntil": watchUntil, "finish": finish,
			"bigfile":    bigFile,
			"eventually": eventually,
			"freeport":   takePort,
		},
		Setup: func(env *testscript.Env) error {
			// A script sees no configuration of the machine it runs on.
			env.Setenv("XDG_CONFIG_HOME", env.WorkDir+"/.config")
			env.Setenv("XDG_STATE_HOME", env.WorkDir+"/.state")
			env.Setenv("GORACE", quickExit)
			return nil
		},
	})
}

func TestNearest(t *testing.T) {
	words := []string{"put", "get", "ls", "rm", "count", "batch", "watch", "mirror", "status", "config"}
	for in, want := range map[string]string{
		"pu": "put", "ptu": "put", "wach": "watch", "conut": "count", "stat": "status", "zzzz": "", "mirorr": "mirror",
		"configuration": "", "": "",
	} {
		if got := nearest(in, words); got != want {
			t.Errorf("nearest(%q) = %q, want %q", in, got, want)
		}
	}
}

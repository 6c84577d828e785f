package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// libraryFigures are what the libraries do at the same work without the product, in the same run: messages over bare
// gossipsub, which stores nothing and repeats nothing, and go-ds-crdt put together as its documents show it. They are in
// a program of its own, see test/bench/stack.
func libraryFigures() []figure {
	var fs []figure
	for _, hosts := range []int{2, 5, 10, 20} {
		for _, rate := range []int{20, 500} {
			name := fmt.Sprintf("bare gossipsub: message to the last, %d hosts, %d/s", hosts, rate)
			fs = append(fs, figure{name: name, unit: "s", measure: stack("gossip", hosts, rate, max(2*rate, 200))})
		}
	}
	const plain = "go-ds-crdt, bitswap, badger: "
	return append(fs,
		figure{name: plain + "durable put, 1 client", unit: "/s", measure: stack("put", 1, 0, 1000)},
		figure{name: plain + "catch-up, 1k puts", unit: "s", measure: stack("catch-up", 2, 0, 1000), long: true},
		figure{name: plain + "5 hosts, 20 puts/s", unit: "s", measure: stack("propagate", 5, 20, 200)})
}

// stack runs the program of the libraries.
func stack(kind string, hosts, rate, count int) func(string) (float64, string, error) {
	return func(dir string) (float64, string, error) {
		program, err := buildStack()
		if err != nil {
			return 0, "", err
		}
		cmd := exec.Command(program, kind, "-dir", dir, "-hosts", strconv.Itoa(hosts), "-rate", strconv.Itoa(rate), "-count", strconv.Itoa(scaled(count)))
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			return 0, "", fmt.Errorf("stack %s: %w", kind, err)
		}
		var r struct {
			Value, Slow float64
			Note        string
		}
		err = json.Unmarshal(out, &r)
		slow = time.Duration(r.Slow * float64(time.Second))
		return r.Value, r.Note, err
	}
}

// buildStack builds the program once, in a directory that removeBuilt removes. Its module has to be fetched; without a
// network its figures are absent.
var buildStack = sync.OnceValues(func() (program string, err error) {
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "syncagent").Output()
	if err != nil {
		return "", err
	}
	dir, err := builds()
	if err != nil {
		return "", err
	}
	program = filepath.Join(dir, "stack")
	cmd := exec.Command("go", "build", "-o", program, ".")
	cmd.Dir = filepath.Join(strings.TrimSpace(string(root)), "test", "bench", "stack")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
		return "", fmt.Errorf("%w: test/bench/stack cannot be built: %s", errAbsent, lines[len(lines)-1])
	}
	return program, nil
})

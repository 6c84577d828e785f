package main

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"testing"
)

// TestMain lets the test's program be the hostile member, too, when it starts itself once more.
func TestMain(m *testing.M) {
	if attack := os.Getenv(attackVariable); attack != "" {
		if err := hostile(attack); err != nil {
			fmt.Fprintln(os.Stderr, "hostile member:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// Some figures of each kind, with next to no work: they still run, and give something. Times are nobody's business here.
func TestFiguresRun(t *testing.T) {
	*scale, *repeat = 0.001, 1
	t.Cleanup(removeBuilt)
	some := regexp.MustCompile(`^(raw|durable put in process, 64|restore|catch-up, 1k single puts|heal after a cut, 1k|100 writers|bytes on the wire per put, 2 agents, 5000|propagation p50 / p99, 2 agents, 5000|puts beside|etcd of 1: durable put, 64|bare gossipsub: message to the last, 2 hosts, 500|go-ds-crdt, bitswap, badger: (durable|catch-up))`)
	run := 0
	for _, f := range slices.Concat(storeFigures(), backupFigures(), networkFigures(), floodFigures(), etcdFigures(), libraryFigures()) {
		if !some.MatchString(f.name) {
			continue
		}
		run++
		shown, note, err := f.median()
		if err != nil && !errors.Is(err, errAbsent) {
			t.Errorf("%s: %v", f.name, err)
		}
		t.Log(f.name, shown, note, err)
	}
	if run < 15 {
		t.Errorf("only %d figures were run", run)
	}
}

func TestMedian(t *testing.T) {
	*repeat = 3
	values := []float64{3, 1, 2}
	f := figure{unit: "/s", measure: func(string) (float64, string, error) {
		v := values[0]
		values = values[1:]
		return v, "", nil
	}}
	if shown, note, err := f.median(); shown != "2/s" || note != "1/s to 3/s" || err != nil {
		t.Errorf("%q, %q, %v", shown, note, err)
	}
}

// The libraries that are measured alone are those that the product is made of.
func TestStackHasTheProductsVersions(t *testing.T) {
	requirements := func(file string) map[string]string {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		versions := map[string]string{}
		for _, m := range regexp.MustCompile(`(?m)^\t(\S+) (v\S+)`).FindAllStringSubmatch(string(b), -1) {
			versions[m[1]] = m[2]
		}
		return versions
	}
	ours, shared := requirements("../../go.mod"), 0
	for module, version := range requirements("stack/go.mod") {
		if ours[module] == "" {
			continue
		}
		if shared++; ours[module] != version {
			t.Errorf("%s is at %s in test/bench/stack, and at %s in the product: go -C test/bench/stack get %[1]s@%[3]s", module, version, ours[module])
		}
	}
	if shared < 50 {
		t.Errorf("only %d modules are in both", shared)
	}
}

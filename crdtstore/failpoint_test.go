//go:build faults

package crdtstore

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"syncagent/crdtstore/fault"
)

// failpoints gives the named steps of this package.
func failpoints(t *testing.T) []string {
	t.Helper()
	points, _, err := fault.Find(".")
	if err != nil || len(points) == 0 {
		t.Fatalf("no failpoints: %v", err)
	}
	return points
}

// TestFailpoints lets a host die at every named step, each time that a scenario comes by there, and holds that it comes
// back whole. Every name must be met.
func TestFailpoints(t *testing.T) {
	defer func() { fault.OnPoint(nil) }()
	met := map[string]int{}
	for i, scenario := range crashScenarios {
		hits := map[string]int{}
		count := func(begins bool) {
			fault.OnPoint(nil)
			if begins {
				fault.OnPoint(func(name string) { hits[name]++ })
			}
		}
		if _, failure := runCrash(crashPoint{scenario: i, around: count}); failure != "" {
			t.Fatal(failure)
		}
		for name, n := range hits {
			for at := 1; at <= n; at++ {
				if failure := dieAt(i, name, at); failure != "" {
					t.Fatalf("%s, %s, time %d: %s", scenario.name, name, at, failure)
				}
			}
			met[name] += n
		}
	}
	for _, name := range failpoints(t) {
		kind, _, _ := strings.Cut(name, ".")
		if met[name] == 0 && !slices.Contains([]string{"commit", "rebuild", "restore", "scrub", "watch"}, kind) { // only a whole agent comes by: test/e2e
			t.Errorf("no scenario comes by %s", name)
		}
	}
	t.Log(met)
}

// dieAt runs a scenario in which the process dies when it comes to a step for the nth time.
func dieAt(scenario int, name string, n int) string {
	arm := func(begins bool) {
		fault.OnPoint(nil)
		if !begins {
			return
		}
		left := n
		fault.OnPoint(func(at string) {
			if at == name {
				if left--; left == 0 {
					fault.OnPoint(nil)
					panic(errPower)
				}
			}
		})
	}
	_, failure := runCrash(crashPoint{scenario: scenario, around: arm})
	return failure
}

// TestFailpointsOfARebuild takes an image of the data directory at every step of a rebuild, and of every commit in it.
// A start from each image must carry everything over.
func TestFailpointsOfARebuild(t *testing.T) {
	defer func() { fault.OnPoint(nil) }()
	n := newTestNet(t, 1)
	dir, images := t.TempDir(), t.TempDir()
	a := n.startOn("a", nil, dir)
	a.apply(n.openPolicy())
	for i := range 20 {
		a.put(fmt.Sprintf("/p/%d", i), "only here")
	}
	want := a.tree()
	a.stop()
	if err := os.WriteFile(filepath.Join(dir, "store", rebuildMark), []byte("for a test"), 0o600); err != nil {
		t.Fatal(err)
	}
	met := map[string]bool{}
	var taken []string
	fault.OnPoint(func(name string) {
		image := filepath.Join(images, fmt.Sprintf("%03d %s", len(taken), name))
		if err := os.CopyFS(image, os.DirFS(dir)); err != nil {
			t.Error(err)
		}
		taken, met[name] = append(taken, image), true
	})
	n.startOn("a", nil, dir).stop()
	fault.OnPoint(nil)
	for _, name := range failpoints(t) {
		if strings.HasPrefix(name, "rebuild.") && !met[name] {
			t.Errorf("%s is not met", name)
		}
	}
	for _, image := range slices.Compact(taken) {
		a := n.startOn("a", nil, image)
		if got := a.tree(); got != want {
			t.Fatalf("image %s: it shows %q", filepath.Base(image), got)
		}
		a.stop()
	}
}

//go:build faults

package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"syncagent/crdtstore/fault"
)

// plantable names, for every fault that the simulation of the store does not look for, the test that has to find it.
var plantable = []struct{ fault, dir, test string }{
	{"acknowledge-first", "test/e2e", "TestG1_Kill9DuringPuts"},
	{"admit-strangers", "p2p", "TestStrangerIsRefused"},
	{"anybody-on-topic", "p2p", "TestBootstrapPeerThatIsNoMemberGetsPoliciesOnly"},
	{"bell-lost", "crdtstore", "TestWatchTellsStateThenChanges"},
	{"diverge-silently", "p2p", "TestDivergenceIsReported"},
	{"forget-marks", "sync/mirror", "TestG9_TriggerMarkSurvivesAStopBetweenFileAndRun"},
	{"keep-connections", "p2p", "TestRemovedMemberHearsNoGossip"},
	{"mirror-bell-lost", "sync/mirror", "TestRunFollowsChanges"},
	{"no-redial", "p2p", "TestRedialAfterRestart"},
	{"no-retry", "sync/trigger", "TestFailureIsRepeatedWithWhatCameMeanwhile"},
	{"no-sync", "p2p", "TestConvergeBySync"},
	{"rename-before-journal", "sync/mirror", "TestG8_G9_CrashAtEveryOperation"},
	{"repeat-unsynced", "crdtstore", "TestG1_RepeatedRelayIsOnDisk"},
	{"trust-root", "sync/mirror", "TestG8_RootSwappedWhileRunning"},
	{"undressed", "sync/mirror", "TestModes"},
}

// TestPlantedFaultsAreFound builds the tests of each package once with the seam for faults, and runs the named test
// twice: it has to pass as it is, and to fail with the fault.
func TestPlantedFaultsAreFound(t *testing.T) {
	binaries, bin := map[string]string{}, t.TempDir()
	passes := map[string]bool{}
	for _, p := range plantable {
		t.Run(p.fault, func(t *testing.T) {
			if binaries[p.dir] == "" {
				binaries[p.dir] = build(t, bin, p.dir)
			}
			if !passes[p.test] {
				if out, ok := runPlanted(binaries[p.dir], p.dir, p.test, "", "3m"); !ok {
					t.Fatalf("%s fails without a fault:\n%s", p.test, end(out))
				}
				passes[p.test] = true
			}
			out, ok := runPlanted(binaries[p.dir], p.dir, p.test, p.fault, "90s")
			waits := strings.Contains(out, "panic: test timed out") // for what does not come any more: found, too
			if ok || !waits && !strings.Contains(out, "--- FAIL: "+p.test) {
				t.Errorf("%s does not find it:\n%s", p.test, end(out))
			}
		})
	}
}

func build(t *testing.T, bin, dir string) (binary string) {
	t.Helper()
	binary = filepath.Join(bin, strings.ReplaceAll(dir, "/", "-")+".test")
	if out, err := exec.Command("go", "test", "-c", "-tags", "faults", "-o", binary, "../"+dir).CombinedOutput(); err != nil {
		t.Fatalf("build the tests of %s: %v\n%s", dir, err, out)
	}
	return binary
}

// runPlanted runs one test with a fault, or none.
func runPlanted(binary, dir, test, name, limit string) (out string, passed bool) {
	cmd := exec.Command(binary, "-test.run", "^"+test+"$", "-test.v", "-test.timeout", limit)
	cmd.Dir = filepath.Join("..", dir)
	cmd.Env = append(os.Environ(), "SYNCAGENT_FAULT="+name)
	b, err := cmd.CombinedOutput()
	return string(b), err == nil && strings.Contains(string(b), "--- PASS: "+test)
}

func end(out string) string { return out[max(0, len(out)-4000):] }

// TestEveryFaultIsLookedFor holds that a fault that can be planted is in a table: that above, or the simulation's.
func TestEveryFaultIsLookedFor(t *testing.T) {
	_, faults, err := fault.Find("..")
	if err != nil {
		t.Fatal(err)
	}
	simulated, err := os.ReadFile("../crdtstore/sim_faults_test.go")
	if err != nil {
		t.Fatal(err)
	}
	known := func(name string) bool { return strings.Contains(string(simulated), `"`+name+`":`) }
	for _, name := range faults {
		if listed := slices.ContainsFunc(plantable, func(p struct{ fault, dir, test string }) bool { return p.fault == name }); listed == known(name) {
			t.Errorf("%s: in one table, not in none and not in two", name)
		}
	}
	if len(faults) < 30 {
		t.Errorf("%d faults only", len(faults))
	}
}

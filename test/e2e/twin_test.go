package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// twins are what somebody may copy of a host, so that two agents run with one identity. Whatever it is, what both wrote
// counts, on everybody. Two that go on with one chain are noticed as soon as one meets the other's blocks; a twin with an
// empty store might be the host itself, back after a loss, so it is noticed when it writes a minute after the other's start:
// TestIdentityUsedTwiceIsNoticed has a clock for that.
var twins = []struct{ name, without, alarms string }{
	{"all of it", "", "fork on a, identity-reused on b"},
	{"all but its store", "data", ""},
}

// Peers talk with only one of the two at a time, so a hears of both when each of them had its turn.
func TestG1_TwoAgentsWithOneIdentity(t *testing.T) {
	for _, c := range twins {
		t.Run(c.name, func(t *testing.T) {
			f := startFleet(t, []string{everything}, "a", "b")
			a, b := f.hosts[0], f.hosts[1]
			b.mustPut("/before", "x")
			f.converge()
			b.stop()
			twin := b.copy("twin", c.without)
			twin.start()
			eventually(t, func() error { return twin.shows("/before", "x") })
			a.stop() // so that neither hears of the other before it writes
			b.start()
			b.mustPut("/of/b", "x")
			twin.mustPut("/of/twin", "x")
			b.stop()
			a.start()
			eventually(t, func() error { return equal(a, twin) })
			twin.stop()
			b.start()
			eventually(t, func() error { return equal(a, b) })
			sameValues(t, b, b.mustList("/"), map[string]string{"/before": "x", "/of/b": "x", "/of/twin": "x"})
			if got := strings.Join(append(a.alarms(), b.alarms()...), ", "); got != c.alarms {
				t.Errorf("alarms: %q, want %q", got, c.alarms)
			}
		})
	}
}

// alarms gives the alarms of the host.
func (h *host) alarms() (all []string) {
	h.t.Helper()
	for _, a := range h.status().Alarms {
		all = append(all, a.Code+" on "+h.name)
	}
	return all
}

// copy makes a second host of what this one has on its disk, but for one name in its directory.
func (h *host) copy(name, without string) *host {
	h.t.Helper()
	twin := newHost(h.t, filepath.Dir(h.dir), name)
	err := os.CopyFS(twin.dir, os.DirFS(h.dir))
	if err == nil {
		err = os.Chmod(filepath.Join(twin.dir, "identity.key"), 0o600)
	}
	if err == nil && without != "" {
		err = os.RemoveAll(filepath.Join(twin.dir, without))
	}
	if err != nil {
		h.t.Fatal(err)
	}
	twin.env = []string{"SYNCAGENT_LISTEN=/ip4/127.0.0.1/tcp/0", "SYNCAGENT_API_HTTP="}
	return twin
}

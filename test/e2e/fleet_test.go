package e2e

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// everything is the rule under which every host reads and writes everything.
const everything = "@hosts / rw"

// ports counts those that hosts of this run got. They are below those that init picks: while a host is down nobody else may
// take its port.
var ports atomic.Int32

func init() { ports.Store(10_000 + rand.Int32N(8_000)) }

// loopback makes a host listen where only this machine can reach it.
func loopback(t testing.TB) []string {
	t.Helper()
	for {
		port := ports.Add(1)
		l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", port))
		if err != nil {
			continue // somebody else's
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		return []string{"--listen", fmt.Sprint("/ip4/127.0.0.1/tcp/", port), "--listen", fmt.Sprintf("/ip4/127.0.0.1/udp/%d/quic-v1", port)}
	}
}

// fleet is a network of hosts.
type fleet struct {
	t      testing.TB
	hosts  []*host
	extra  []string // identity lines of members that are no process of ours
	rules  []string
	serial int
}

// newFleet makes a network the way an operator does: init on the first host, join on the others. Nothing runs yet.
func newFleet(t testing.TB, names ...string) *fleet {
	t.Helper()
	return newFleetOf(t, program, names...)
}

// newFleetOf is newFleet for another program than the one that is tested.
func newFleetOf(t testing.TB, program string, names ...string) *fleet {
	t.Helper()
	parent := tempDir(t)
	f := &fleet{t: t}
	var token string
	for i, name := range names {
		h := newHost(t, parent, name)
		h.program = program
		if i == 0 {
			token = lastLine(h.must(append([]string{"init", "--dir", h.dir, "--name", name}, loopback(t)...)...))
			h.identity = "identity " + name + " " + peerID(t, filepath.Join(h.dir, "policy.txt"), name)
		} else {
			h.identity = lastLine(h.must(append([]string{"join", token, "--dir", h.dir, "--name", name}, loopback(t)...)...))
		}
		f.hosts = append(f.hosts, h)
	}
	return f
}

// startFleet is newFleet, all agents started, admitted by these rules, and connected.
func startFleet(t testing.TB, rules []string, names ...string) *fleet {
	t.Helper()
	f := newFleet(t, names...)
	f.start()
	f.apply(rules...)
	f.connect()
	return f
}

// start runs all agents that do not run.
func (f *fleet) start() {
	f.t.Helper()
	var g errgroup.Group
	for _, h := range f.hosts {
		if h.process == nil {
			g.Go(h.tryStart)
		}
	}
	if err := g.Wait(); err != nil {
		f.t.Fatal(err)
	}
}

// apply signs a policy of these rules on the first host, where all hosts are members, and waits until it is in force
// on all hosts that run.
func (f *fleet) apply(rules ...string) {
	f.t.Helper()
	f.rules = rules
	f.serial = int(f.hosts[0].status().PolicySerial) + 1
	text := fmt.Sprintf("syncagent-policy 1\nserial %d\nformat 1\n", f.serial)
	group := "group @hosts"
	for _, h := range f.hosts {
		text += h.identity + "\n"
		group += " " + h.name
	}
	text += strings.Join(f.extra, "\n") + "\n" + group + "\n@hosts peer\n" + strings.Join(rules, "\n") + "\n"
	file := filepath.Join(f.hosts[0].dir, "edited.txt")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
	f.hosts[0].must("acl", "apply", file, "--drop") // a test that takes a right away means it
	for _, h := range f.hosts {
		if h.process == nil {
			continue
		}
		eventually(f.t, func() error {
			s, err := h.tryStatus()
			if err == nil && int(s.PolicySerial) != f.serial {
				err = fmt.Errorf("%s has policy %d, want %d", h.name, s.PolicySerial, f.serial)
			}
			return err
		})
	}
}

// connect waits until every running host is connected to every other one.
func (f *fleet) connect() {
	f.t.Helper()
	eventually(f.t, func() error {
		running := 0
		for _, h := range f.hosts {
			if h.process != nil {
				running++
			}
		}
		for _, h := range f.hosts {
			if h.process == nil {
				continue
			}
			if n, err := h.connected(); err != nil || n < running-1 {
				return fmt.Errorf("%s is connected to %d: %w", h.name, n, err)
			}
		}
		return nil
	})
}

// connected counts the peers that the host is connected to.
func (h *host) connected() (n int, err error) {
	s, err := h.tryStatus()
	if err != nil {
		return 0, err
	}
	for _, p := range s.Peers {
		if p.Connected {
			n++
		}
	}
	return n, nil
}

// equal says whether all hosts show the same, have the same blocks and lack nothing.
func equal(hosts ...*host) error {
	var view, blocks string
	for i, h := range hosts {
		s, err := h.tryStatus()
		if err != nil {
			return err
		}
		if i == 0 {
			view, blocks = s.ViewDigest, s.BlockDigest
		}
		if s.ViewDigest != view || s.BlockDigest != blocks || s.MissingEntries > 0 {
			return fmt.Errorf("%s: %d entries, view %.8s, want %.8s, %d blocks, digest %.8s, want %.8s, %d pending, %d missing",
				h.name, s.Entries, s.ViewDigest, view, s.Blocks, s.BlockDigest, blocks, s.Pending, s.MissingEntries)
		}
	}
	return nil
}

// converge waits until all hosts are equal.
func (f *fleet) converge() {
	f.t.Helper()
	eventually(f.t, func() error { return equal(f.hosts...) })
}

// eventually waits until a condition holds.
func eventually(t testing.TB, condition func() error) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := condition()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("waited %s: %v", patience, err)
		case <-tick.C:
		}
	}
}

func lastLine(out string) string {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	return lines[len(lines)-1]
}

// peerID finds the key of an alias in a policy.
func peerID(t testing.TB, policy, alias string) string {
	t.Helper()
	b, err := os.ReadFile(policy)
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^identity\s+` + regexp.QuoteMeta(alias) + `\s+(\S+)`).FindSubmatch(b)
	if m == nil {
		t.Fatalf("%s does not name %s", policy, alias)
	}
	return string(m[1])
}

package chaos

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"syncagent/test/process"
)

const (
	writers   = 2 // for each host
	faultTime = 6 * time.Second
	leastAcks = 20 // by each host in a round, for the round to count
)

func TestChaos(t *testing.T) {
	need(t)
	s := *seed
	if s == 0 {
		s = rand.Uint64() >> 16
	}
	t.Logf("go test ./test/chaos -v -rounds=%d -seed=%d", *rounds, s)
	w := newWorld(t, rand.New(rand.NewPCG(s, 0)))
	faults := w.possible(t)
	w.r.Shuffle(len(faults), func(i, j int) { faults[i], faults[j] = faults[j], faults[i] })
	var heals []time.Duration
	for number := range *rounds {
		took, err := w.round(t, number, faults[number%len(faults)])
		if err != nil {
			w.fail(t, err)
		}
		heals = append(heals, took)
	}
	slices.Sort(heals)
	t.Logf("%d acknowledged paths, %d heals: p50 %s, longest %s", len(w.history.acked), len(heals), heals[len(heals)/2], heals[len(heals)-1])
}

// newWorld sets five hosts up as an operator does, with init and join, and admits them by one policy.
func newWorld(t *testing.T, r *rand.Rand) *world {
	parent, err := os.MkdirTemp("", "chaos") // its name is short: the path of a unix socket has room for 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(parent) })
	kinds := []string{"", "", "tmpfs", "ext4", "ext4"}
	w := &world{r: r, lan: newLAN(t, len(kinds)), history: newHistory()}
	var policy, group strings.Builder
	var token string
	for i, kind := range kinds {
		h := newHost(t, w.lan, parent, i)
		w.hosts = append(w.hosts, h)
		if err := os.Mkdir(h.dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if h.disk, err = makeDisk(t, kind, filepath.Join(h.dir, "data")); err != nil {
			t.Logf("not done here: faults of %s's disk: %v", h.name, err)
			h.disk = &disk{}
		}
		args := []string{"--dir", h.dir, "--name", h.name, "--listen", "/ip4/" + address(i) + "/tcp/7424",
			"--listen", "/ip4/" + address(i) + "/udp/7424/quic-v1"}
		if i == 0 {
			token = h.must(append([]string{"init"}, args...)...)
			text, err := os.ReadFile(filepath.Join(h.dir, "policy.txt"))
			if err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(string(text)) {
				if strings.HasPrefix(line, "identity") {
					policy.WriteString(line)
				}
			}
		} else {
			policy.WriteString(h.must(append([]string{"join", token}, args...)...) + "\n")
		}
		group.WriteString(" " + h.name)
	}
	for _, h := range w.hosts {
		if err := h.start(); err != nil {
			w.fail(t, err)
		}
	}
	file := filepath.Join(parent, "policy")
	text := fmt.Sprintf("syncagent-policy 1\nformat 1\n%sgroup @hosts%s\n@hosts peer\n@hosts / rw\n", &policy, &group)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	w.hosts[0].must("acl", "apply", file)
	if err := eventually(startLimit, func() error {
		for _, h := range w.hosts {
			s, err := h.status()
			if err != nil {
				return err
			}
			if s.PolicySerial < 2 {
				return fmt.Errorf("%s has policy %d", h.name, s.PolicySerial)
			}
		}
		return equal(w.hosts)
	}); err != nil {
		w.fail(t, err)
	}
	return w
}

// fail ends the test with the logs of the agents and then the reason, which so is seen by who sees only the end.
func (w *world) fail(t *testing.T, err error) {
	t.Helper()
	for _, h := range w.hosts {
		t.Logf("end of the log of %s:\n%s", h.name, process.Tail(h.log(), 2000))
	}
	t.Fatal(err)
}

// possible gives the host faults that were asked for and that this machine can do, and names the others.
func (w *world) possible(t *testing.T) (faults []fault) {
	asked := strings.Split(*only, ",")
	for _, f := range hostFaults {
		switch {
		case *only != "" && !slices.Contains(asked, f.name):
		case f.disk != "" && len(w.with(f.disk)) == 0 || f.seam && os.Getenv("CHAOS_BINARY") != "":
			t.Logf("not done here: %s", f.name)
		default:
			faults = append(faults, f)
		}
	}
	if len(faults) == 0 {
		t.Fatal("no fault is left to do")
	}
	return faults
}

// with gives the hosts that have this kind of disk.
func (w *world) with(kind string) (hosts []*host) {
	for _, h := range w.hosts {
		if kind == "" || h.disk.kind == kind {
			hosts = append(hosts, h)
		}
	}
	return hosts
}

// round lets a fault of a host and one of the network happen under traffic, heals them, and looks. It gives how long the
// agents took to be equal.
func (w *world) round(t *testing.T, number int, f fault) (time.Duration, error) {
	hosts := w.with(f.disk)
	h := hosts[w.r.IntN(len(hosts))]
	n := fault{name: "good", begin: func(*world, *host) error { return nil }}
	if !f.alone {
		n = networkFaults[w.r.IntN(len(networkFaults))]
	}
	other := w.hosts[w.r.IntN(len(w.hosts))]
	name := fmt.Sprintf("round %d: %s on %s, network: %s (%s)", number, f.name, h.name, n.name, other.name)

	w.history.startCounts()
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for _, c := range w.hosts {
		for id := range writers {
			r := rand.New(rand.NewPCG(w.r.Uint64(), 0))
			clients.Go(func() { w.history.writer(c, id, number*1_000_000, r, stop) })
		}
	}
	// Traffic before, during and between, however slow the machine is.
	err := eventually(startLimit, func() error { return w.history.busy(w.hosts) })
	began := time.Now()
	if err == nil {
		err = n.begin(w, other)
	}
	if err == nil {
		err = f.begin(w, h)
	}
	if err == nil {
		time.Sleep(max(time.Second, faultTime-time.Since(began)))
	}
	close(stop)
	clients.Wait()
	if err == nil && f.end != nil {
		err = f.end(w, h)
	}
	within := *limit
	if f.anew {
		within = startLimit
	}
	var took time.Duration
	if err == nil {
		took, err = w.heal(within)
	}
	if err == nil {
		err = w.check()
	}
	if err == nil {
		err = w.clearAsides(f.anew)
	}
	if err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	t.Logf("%s: %s, equal %s after the heal", name, w.history.traffic(), took)
	return took, nil
}

// clearAsides removes the damaged stores, as their alarm asks once all hosts are equal. There may be some only if a fault
// damaged one.
func (w *world) clearAsides(may bool) error {
	for _, h := range w.hosts {
		for _, aside := range h.asides() {
			if !may {
				return fmt.Errorf("%s was set aside, though nothing damaged it", aside)
			}
			if err := os.RemoveAll(aside); err != nil {
				return err
			}
		}
	}
	return nil
}

// heal ends what the network suffers, starts what stopped, and waits until all agents are equal.
func (w *world) heal(within time.Duration) (time.Duration, error) {
	for _, h := range w.hosts {
		if err := h.start(); err != nil {
			return 0, err
		}
	}
	if err := w.lan.heal(); err != nil {
		return 0, err
	}
	healed := time.Now()
	err := eventually(within, func() error { return equal(w.hosts) })
	took := time.Since(healed).Round(time.Millisecond)
	if err != nil {
		return 0, fmt.Errorf("not equal after %s: %w", took, err)
	}
	return took, nil
}

// check compares what all hosts show with the history. A round with too little traffic is void.
func (w *world) check() error {
	if err := w.history.busy(w.hosts); err != nil {
		return fmt.Errorf("void: %w", err)
	}
	for _, h := range w.hosts {
		all, err := h.list(startLimit, "/")
		if err != nil {
			return fmt.Errorf("%s: list: %w", h.name, err)
		}
		w.history.read(h.name, all)
		if err := w.history.check(h.name, all); err != nil {
			return err
		}
	}
	return nil
}

package crdtstore

import (
	"container/heap"
	"crypto/sha256"
	"flag"
	"fmt"
	"hash"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"syncagent/acl"
	"syncagent/crdtstore/record"
)

// The simulation runs whole stores, their own turns, in one goroutine from a seed. Only clock, random numbers, disk and
// network are replaced. After every turn, and after all faults are healed, the stores are compared with a model.

var (
	simSteps  = flag.Int("sim.steps", 0, "steps of a simulation, 0: as the seed says")
	simNodes  = flag.Int("sim.nodes", 0, "hosts of a simulation, 0: as the seed says")
	simFaults = flag.Uint("sim.faults", uint(allFaults), "bits of the faults of a simulation")
	simAll    = flag.Bool("sim.all", false, "cut the power at all points, not at some")
	simTrace  = flag.Bool("sim.trace", false, "print what a simulation does")
)

// simFault is a kind of fault that a seed may have.
type simFault uint

const (
	faultDrop simFault = 1 << iota
	faultDuplicate
	faultDelay
	faultPartition
	faultCrash
	faultCrashInTurn
	faultRollback
	faultClock
	faultPolicy
	faultHostile
	faultLateJoin
	faultWithhold // entries get lost on the way
	faultBig
	allFaults = 1<<iota - 1
)

type simConfig struct {
	seed   uint64
	nodes  int
	steps  int
	faults simFault
}

// configOf derives everything from the seed: each seed has some kinds of faults only, so that each kind is also met alone.
func configOf(seed uint64) simConfig {
	r := rand.New(rand.NewPCG(seed, 7))
	c := simConfig{seed: seed, nodes: 2 + r.IntN(4), steps: 40 + r.IntN(120), faults: simFault(r.Uint64()) & simFault(r.Uint64()|r.Uint64()) & allFaults}
	if *simSteps > 0 {
		c.steps = *simSteps
	}
	if *simNodes > 0 {
		c.nodes = *simNodes
	}
	c.faults &= simFault(*simFaults)
	return c
}

// sim is one run.
type sim struct {
	simConfig
	rand       *rand.Rand
	network    record.NetworkID
	genesis    record.Genesis
	keys       []record.PublicKey // hosts, then the hostile member, if any
	identities []record.PublicKey // the same, then clients that sign for themselves
	nodes      []*simNode
	evil       int // number of the hostile member, -1 if there is none
	hostile    *simHostile
	relayed    []*simRelay // writes of clients
	model      *simModel
	now        int64 // Unix milliseconds
	queue      simQueue
	sent       int
	blocked    [][]bool // from, to
	healing    bool
	fetches    map[int]bool
	parsed     map[string]*acl.Signed // policy texts, nil for those that count nothing
	policy     *simPolicy             // newest
	trace      hash.Hash
	lines      []string
}

// simFailure is what failf panics with.
type simFailure struct{ text string }

func (s *sim) failf(format string, args ...any) { panic(simFailure{fmt.Sprintf(format, args...)}) }

func (s *sim) tracef(format string, args ...any) {
	line := fmt.Sprintf("%d "+format+"\n", append([]any{s.now}, args...)...)
	s.trace.Write([]byte(line))
	if *simTrace {
		s.lines = append(s.lines, line)
	}
}

func (s *sim) has(f simFault) bool { return s.faults&f != 0 && !s.healing }

// chance is true once in n times.
func (s *sim) chance(n int) bool { return s.rand.IntN(n) == 0 }

func newSim(c simConfig) *sim {
	s := &sim{simConfig: c, rand: rand.New(rand.NewPCG(c.seed, 11)), now: 1_790_000_000_000, evil: -1, trace: sha256.New(), fetches: map[int]bool{}, parsed: map[string]*acl.Signed{}}
	s.genesis = record.Genesis{Nonce: sha256.Sum256([]byte("simulation")), Admins: []record.PublicKey{record.KeyOf(testKey("admin"))}}
	s.network = s.genesis.ID()
	m := &simModel{
		network: s.network, paths: []string{"/a", "/b", "/b/c", "/b/d", "/e/f/g", "/h"}, who: map[record.PublicKey]int{},
		writes: map[record.ID]*record.Write{}, entries: map[record.ID]*record.Entry{}, policies: map[[32]byte]*simPolicy{},
		acked: map[record.ID]int{}, asked: map[string]simAsked{}, lost: map[int]bool{}, pathAt: map[record.Tag]string{},
	}
	s.model = m
	for _, p := range m.paths {
		m.pathAt[s.network.PathKey(p)] = p
	}
	hosts := c.nodes
	if c.faults&faultHostile != 0 {
		s.evil = c.nodes
		hosts++
	}
	for i := range hosts + simClients {
		k := record.KeyOf(simKey(i))
		s.identities = append(s.identities, k)
		m.who[k] = i
		s.blocked = append(s.blocked, make([]bool, hosts))
	}
	s.keys = s.identities[:hosts]
	s.firstPolicy()
	for i := range c.nodes {
		n := &simNode{sim: s, id: i, name: simName(i), key: s.keys[i], disk: newMemKV(), texts: map[[32]byte]bool{},
			handed: map[string]bool{}, last: map[string]record.Version{}, seen: map[record.ID]uint64{}, promised: map[record.ID]bool{}}
		n.disk.before = n.power
		s.nodes = append(s.nodes, n)
		if i < 2 || c.faults&faultLateJoin == 0 {
			s.join(n)
		}
	}
	if s.evil >= 0 {
		s.hostile = newHostile(s)
	}
	return s
}

func (s *sim) join(n *simNode) {
	n.joined = true
	if !n.start() {
		return
	}
	n.offer(s.policy.text)
	n.drive()
	n.resume()
	s.tracef("join %s", n.name)
}

// run makes the steps, heals everything, and compares.
func (s *sim) run() {
	for range s.steps {
		s.now += int64(s.rand.IntN(40))
		s.act()
		s.deliver()
	}
	s.heal()
	s.close()
}

func (s *sim) close() {
	for _, n := range s.nodes {
		if n.store != nil {
			if err := n.store.engine.close(); err != nil {
				s.failf("%s: %v", n.name, err)
			}
		}
	}
}

// wake notes that a host wants entries.
func (s *sim) wake(id int) { s.fetches[id] = true }

// deliver hands over what is due, and lets hosts ask for what they lack.
func (s *sim) deliver() {
	for id := range s.nodes {
		if s.fetches[id] && s.nodes[id].store != nil {
			delete(s.fetches, id)
			s.nodes[id].fetch(s.peer(id))
		}
	}
	for len(s.queue) > 0 && s.queue[0].at <= s.now {
		m := heap.Pop(&s.queue).(simMsg)
		s.tracef("deliver %s %d>%d %d parcels %d wants", m.kind, m.from, m.to, len(m.parcels), len(m.wants))
		if m.to == s.evil {
			s.hostile.receive(m)
			continue
		}
		n := s.nodes[m.to]
		if n.store == nil || s.blocked[m.from][m.to] {
			continue
		}
		n.receive(m)
		if s.healing || !s.chance(3) {
			n.drive()
		}
	}
}

// runSim gives the failure, if any, and a hash of everything that happened.
func runSim(c simConfig) (failure string, trace [32]byte) {
	s := newSimSafely(c, &failure)
	if s == nil {
		return failure, trace
	}
	defer func() {
		if failure != "" && *simTrace {
			failure = strings.Join(s.lines, "") + failure
		}
	}()
	failure = caught(s.run)
	return failure, [32]byte(s.trace.Sum(nil))
}

func newSimSafely(c simConfig, failure *string) (s *sim) {
	*failure = caught(func() { s = newSim(c) })
	return s
}

// caught gives the text of a simFailure.
func caught(fn func()) (failure string) {
	defer func() {
		if r := recover(); r != nil {
			f, ok := r.(simFailure)
			if !ok {
				panic(r)
			}
			failure = f.text
		}
	}()
	fn()
	return ""
}

// shrink looks for a smaller run that fails, too.
func shrink(c simConfig) simConfig {
	fails := func(c simConfig) bool { f, _ := runSim(c); return f != "" }
	for f := simFault(1); f < allFaults; f <<= 1 {
		if d := c; c.faults&f != 0 {
			if d.faults &^= f; fails(d) {
				c = d
			}
		}
	}
	for d := c; d.nodes > 2; {
		if d.nodes--; fails(d) {
			c = d
		}
	}
	for d, cut := c, c.steps/2; cut > 0; cut /= 2 {
		for d.steps = c.steps - cut; d.steps > 0 && fails(d); d.steps -= cut {
			c = d
		}
	}
	return c
}

// TestSimulation runs many seeds. A failure is run again by go test -run TestSimulation -seed=SEED ./crdtstore.
func TestSimulation(t *testing.T) {
	first, count := uint64(1), uint64(1000)
	flag.Visit(func(f *flag.Flag) {
		if f.Name == "seeds" {
			count = *historySeeds
		}
	})
	switch {
	case *historySeed != 0:
		first, count = *historySeed, 1
	case raceEnabled || testing.Short():
		count = min(count, 20)
	}
	var next, failed atomic.Uint64
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), 8) {
		wg.Go(func() {
			for failed.Load() == 0 {
				seed := first + next.Add(1) - 1
				if seed >= first+count {
					return
				}
				if failure, _ := runSim(configOf(seed)); failure != "" {
					failed.CompareAndSwap(0, seed)
				}
			}
		})
	}
	wg.Wait()
	if seed := failed.Load(); seed != 0 {
		t.Fatal(explainFailure(seed))
	}
	t.Logf("seeds %d to %d", first, first+count-1)
}

// explainFailure runs a seed that failed again, and makes it as small as it gets.
func explainFailure(seed uint64) string {
	c := configOf(seed)
	failure, _ := runSim(c)
	small := shrink(c)
	less, _ := runSim(small)
	return fmt.Sprintf("go test -run TestSimulation -seed=%d ./crdtstore\n%s\nsmaller: -seed=%d -sim.steps=%d -sim.nodes=%d -sim.faults=%d\n%s",
		seed, failure, seed, small.steps, small.nodes, small.faults, less)
}

// TestSimulationIsDeterministic holds that a seed says everything.
func TestSimulationIsDeterministic(t *testing.T) {
	for seed := uint64(1); seed <= 40; seed++ {
		_, one := runSim(configOf(seed))
		_, two := runSim(configOf(seed))
		if one != two {
			t.Fatalf("seed %d: two runs differ", seed)
		}
	}
}

package crdtstore

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"testing"
)

// crashScenario is something that a host does while its power may fail.
type crashScenario struct {
	name string
	late bool // the host is new
	run  func(s *sim, n *simNode)
}

var crashScenarios = []crashScenario{
	{"put", false, func(_ *sim, n *simNode) {
		n.put([]Op{{Path: "/a", Value: n.sim.value()}})
		n.drive()
	}},
	{"batch", false, func(_ *sim, n *simNode) {
		n.put([]Op{{Path: "/a", Value: n.sim.value()}, {Path: "/b", Value: n.sim.value()}})
		n.put([]Op{{Path: "/a", Delete: true}, {Path: "/b/c", Value: n.sim.value()}})
		n.drive()
		n.put([]Op{{Path: "/a", Value: n.sim.value()}, {Path: "/h", Value: n.sim.value()}})
		n.drive()
	}},
	{"large batch", false, func(s *sim, n *simNode) {
		var ops []Op
		for _, path := range s.model.paths {
			ops = append(ops, Op{Path: path, Value: append(s.value(), make([]byte, 255<<10)...)})
		}
		n.put(ops)
		n.drive()
		n.put(ops[:1])
		n.drive()
	}},
	{"large values", false, func(s *sim, n *simNode) {
		large := func(path string) Op {
			value := s.value()
			return Op{Path: path, Value: append(value, make([]byte, simLarge-len(value))...)}
		}
		for range 3 {
			n.put([]Op{large("/a"), {Path: "/b", Value: s.value()}})
			n.drive()
			s.now += 8 * 24 * 3600_000 // the version before goes, and its chunks with it
		}
		for _, o := range s.nodes[:2] {
			o.put([]Op{large("/a"), large("/h")})
			o.drive()
		}
		n.pullAll()
		for range 3 {
			if n.store != nil {
				n.fetch(0)
				n.fetch(1)
				s.deliver()
			}
		}
	}},
	{"start after a cut", false, func(s *sim, n *simNode) { s.restart(n) }},
	{"catch-up", false, func(s *sim, n *simNode) {
		s.fill(8, func(o *simNode) bool { return o != n })
		n.pullAll()
	}},
	{"policy change", false, func(s *sim, n *simNode) {
		for range 3 {
			s.changePolicy()
			n.offer(s.policy.text)
			n.drive()
		}
	}},
	{"revocation", false, func(s *sim, n *simNode) {
		p := s.policy.changed()
		p.revoked[2] = true
		s.publish(p)
		n.offer(p.text)
		n.drive()
	}},
	{"first start", true, func(s *sim, n *simNode) {
		s.join(n)
		n.pullAll()
	}},
}

// fill has hosts write, and tell nobody yet.
func (s *sim) fill(writes int, who func(*simNode) bool) {
	for range writes {
		for _, o := range s.nodes {
			if o.store != nil && who(o) {
				s.now += 3
				o.put(s.ops(o))
				o.drive()
			}
		}
	}
}

// pullAll has everybody tell this host what they have.
func (n *simNode) pullAll() {
	for _, o := range n.sim.nodes {
		if n.store != nil && o != n && o.store != nil {
			n.sync(o.id, true)
			n.sim.deliver()
		}
	}
}

// crashPoint is one image of a disk: the power fails at the asks-th commit or sync of the scenario, of the commits
// since the last sync some survive, and then perhaps again at one of the next start.
type crashPoint struct {
	scenario    int
	at          int
	keep        int
	atStart     int // 0: the start succeeds
	keepAtStart int
	around      func(begins bool) // optional: called before and after the scenario itself
}

func (p crashPoint) String() string {
	return fmt.Sprintf("%s, power cut %d, %d commits kept, at start %d, %d kept", crashScenarios[p.scenario].name, p.at, p.keep, p.atStart, p.keepAtStart)
}

// crashSim prepares hosts that have written and talked.
func crashSim(scenario crashScenario) (*sim, *simNode) {
	c := simConfig{seed: 5, nodes: 3}
	if scenario.late {
		c.faults = faultLateJoin
	}
	s := newSim(c)
	s.healing = true
	n := s.nodes[2]
	open := *s.policy
	open.serial++
	for i := range s.keys { // the host may write everything, and not read all
		for k := range s.model.paths {
			open.write[i][k], open.read[i][k] = true, i != 2 || k != 1
		}
	}
	s.publish(&open)
	for _, o := range s.nodes {
		o.offer(open.text)
		o.drive()
	}
	s.fill(3, func(*simNode) bool { return true })
	for _, o := range s.nodes {
		o.pullAll()
	}
	if scenario.name == "start after a cut" { // large entries were stored, the turn that names them was not
		all := 1 << 30
		n.keep, n.armed = &all, 2
		n.put([]Op{{Path: "/a", Value: append(s.value(), make([]byte, 200<<10)...)}})
		n.drive()
	}
	return s, n
}

// runCrash gives the failure, if any. At 0 the power stays on, and it tells how often it could have failed.
func runCrash(p crashPoint) (asks int, failure string) {
	failure = caught(func() {
		scenario := crashScenarios[p.scenario]
		s, n := crashSim(scenario)
		before := n.asks
		n.keep, n.armed = &p.keep, p.at
		if p.around != nil {
			p.around(true)
		}
		scenario.run(s, n)
		if p.around != nil {
			p.around(false)
		}
		asks = n.asks - before
		if p.at > 0 && n.store != nil {
			s.failf("the power did not fail")
		}
		if p.atStart > 0 {
			n.keep, n.armed = &p.keepAtStart, p.atStart
			s.restart(n)
		}
		n.keep = nil
		s.heal()
		s.close()
	})
	return asks, failure
}

// TestG1_EveryCrashImageConverges cuts the power at every write of every scenario, and at every write of the start after
// it. Whatever of the unsynced commits reached the disk, the host comes back, has what it promised, and becomes equal.
func TestG1_EveryCrashImageConverges(t *testing.T) {
	var points []crashPoint
	for i, scenario := range crashScenarios {
		asks, failure := runCrash(crashPoint{scenario: i})
		if failure != "" || asks < 2 {
			t.Fatalf("%s without a crash: %d points, %s", scenario.name, asks, failure)
		}
		for at := 1; at <= asks; at++ {
			for keep := range 3 {
				points = append(points, crashPoint{scenario: i, at: at, keep: keep})
				for atStart := 1; atStart <= 2; atStart++ {
					points = append(points, crashPoint{i, at, keep, atStart, keep % 2, nil})
				}
			}
		}
	}
	all, drawn := len(points), 200
	if raceEnabled || testing.Short() {
		drawn = 40
	}
	if !*simAll && all > drawn {
		seed := cmp.Or(*historySeed, rand.Uint64()) // -seed=SEED draws the same again
		t.Logf("%d of %d points, drawn by seed %d", drawn, all, seed)
		r := rand.New(rand.NewPCG(seed, 13))
		r.Shuffle(all, func(i, j int) { points[i], points[j] = points[j], points[i] })
		points = points[:drawn]
	}
	for _, p := range points {
		if _, failure := runCrash(p); failure != "" {
			t.Fatalf("%s: %s", p, failure)
		}
	}
	t.Logf("%d points", len(points))
}

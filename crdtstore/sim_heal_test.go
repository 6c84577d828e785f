package crdtstore

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"syncagent/crdtstore/record"
)

// problem compares a host with the oracle.
func (n *simNode) problem(available map[record.Version]bool, patient bool) string {
	m, s := n.sim.model, n.store
	shown := n.shown()
	held := map[record.ID]bool{}
	for _, id := range m.order {
		held[id] = n.heldSlots(id) > 0
	}
	want := m.view(n.rights(), n.id, s.tick(), func(id record.ID) bool { return held[id] },
		func(v record.Version) bool { return available[v] }, patient)
	listed := map[string]bool{}
	for _, item := range n.list("/") {
		listed[item.Path] = true
	}
	for _, path := range m.paths {
		if want[path] != shown[path].version {
			return fmt.Sprintf("G2: %s shows %s at %s, the winner is %s", n.name, shown[path].version, path, want[path])
		}
		if want[path].IsZero() {
			continue
		}
		e := m.entries[m.writes[want[path].Write].Slots[want[path].Index].Entry]
		if visible := e.Kind != record.KindDelete && !e.Expired(s.tick()); visible != listed[path] {
			return fmt.Sprintf("%s lists %s: %v, it should be %v", n.name, path, listed[path], visible)
		}
	}
	for _, w := range n.watchers {
		w.pull(1 << 30)
		if p := w.differs(); p != "" {
			return p
		}
	}
	return n.checkDisk()
}

// missed names an acknowledged winner that nobody can give any more, or an acknowledged write that a host lacks.
func (s *sim) missed(hosts []*simNode, available map[record.Version]bool) string {
	m := s.model
	held := func(record.ID) bool { return true }
	top := m.view(hosts[0].rights(), 0, s.now, held, func(record.Version) bool { return true }, true)
	for _, id := range m.order {
		author, ok := m.acked[id]
		if !ok || !slices.Contains(hosts, s.nodes[author]) {
			continue
		}
		for _, n := range hosts {
			if n.heldSlots(id) == 0 {
				return fmt.Sprintf("G1: %s lacks write %s, which n%d acknowledged", n.name, id, author)
			}
		}
		for i := range m.writes[id].Slots {
			slot := &m.writes[id].Slots[i]
			if path := m.pathOf(slot); top[path].Write == id && top[path].Index == uint16(i) && !available[top[path]] && !m.lost[author] {
				return fmt.Sprintf("G1: the entry of %s at %s is lost, n%d acknowledged it", top[path], path, author)
			}
		}
	}
	return ""
}

// heal ends all faults and waits until all hosts are equal and right.
func (s *sim) heal() {
	s.healing = true
	for i := range s.blocked {
		clear(s.blocked[i])
	}
	s.admitAll()
	for _, n := range s.nodes {
		n.offset, n.armed = 0, 0
		if n.store != nil && n.joined {
			n.drive()
		}
		for n.store == nil {
			s.restart(n)
		}
		n.store.LimitOrigins(1000) // hours later
		n.offer(s.policy.text)
		n.drive()
	}
	s.now += 1000
	s.converge(true)
	s.now += 8 * 24 * 3600_000
	s.converge(false)
}

// admitAll makes all hosts members again, if they are not: else let no policy change stir up what got stuck.
func (s *sim) admitAll() {
	inForce := s.model.rights(slices.Collect(maps.Keys(s.model.policies))) // of twins not always the newest
	p, out := s.policy.changed(), false
	for i := range s.keys {
		out = out || !inForce.member[i] || inForce.former[i] || inForce.until[i] != forever
		p.member[i], p.former[i], p.until[i] = true, false, forever
	}
	if out {
		s.publish(p)
	}
}

// converge lets everybody talk to everybody until the hosts are as the oracle says.
func (s *sim) converge(patient bool) {
	problem := ""
	for round := range 16 {
		hosts := s.unrevoked()
		for _, a := range hosts {
			for _, b := range hosts {
				if a != b {
					a.sync(b.id, true)
					a.fetch(b.id)
					s.deliver()
				}
			}
		}
		if problem = s.differs(hosts, patient); problem == "" {
			s.tracef("equal after %d rounds, %x", round, hosts[0].store.BlockDigest())
			return
		}
		s.now += 2000
		if round > 4 {
			s.now += 70_000 // past all back-offs
		}
		for _, n := range hosts {
			n.drive()
		}
	}
	s.failf("after the heal: %s", problem)
}

// unrevoked gives the hosts that the first one does not know to be revoked, as far as policies have come about.
func (s *sim) unrevoked() (hosts []*simNode) {
	out := s.nodes[0].rights().out
	for i, n := range s.nodes {
		if !out[i] {
			hosts = append(hosts, n)
		}
	}
	return hosts
}

func (s *sim) differs(hosts []*simNode, patient bool) string {
	available := map[record.Version]bool{} // an entry is asked for, and held, for one slot, whoever named it again
	for _, n := range hosts {
		if n.store.BlockDigest() != hosts[0].store.BlockDigest() {
			return fmt.Sprintf("%s has other blocks than %s", n.name, hosts[0].name)
		}
		n.disk.rows.Ascend(memRow{key: []byte{'s'}}, func(r memRow) bool {
			if r.key[0] != 's' {
				return false
			}
			path, version, _ := parseSlotKey(r.key)
			if sl, err := decodeSlot(path, version, r.value); err == nil && sl.holds() {
				available[version] = true
			}
			return true
		})
	}
	for _, n := range hosts {
		if problem := n.problem(available, patient); problem != "" {
			return problem + "\n" + strings.TrimSpace(n.describe())
		}
	}
	return s.missed(hosts, available)
}

// describe says what a host knows of all paths.
func (n *simNode) describe() string {
	var b strings.Builder
	v := n.disk.View()
	defer v.Close()
	m, r := n.sim.model, n.rights()
	for _, path := range m.paths {
		k := n.sim.network.PathKey(path)
		err := v.Scan(slotKey(k, record.Version{})[:17], nil, true, func(row, value []byte) (bool, error) {
			_, version, _ := parseSlotKey(row)
			s, err := decodeSlot(k, version, value)
			if err != nil {
				return false, err
			}
			_, unready, _ := v.Get(unreadyKey(version.Write))
			_, wanted, _ := v.Get(wantKey(k, version))
			fmt.Fprintf(&b, "%s %s state %d own %v unready %v wanted %v read %v write %v\n", path, version, s.state, s.own, unready, wanted,
				m.reads(r, n.id, path), m.allowed(r, m.number(s.author), path, version))
			return true, nil
		})
		if err != nil {
			fmt.Fprintln(&b, err)
		}
	}
	return b.String()
}

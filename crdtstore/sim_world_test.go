package crdtstore

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"time"

	"syncagent/acl"
)

// act is one thing that happens.
func (s *sim) act() {
	n := s.nodes[s.rand.IntN(len(s.nodes))]
	if n.store == nil {
		if n.joined || s.chance(4) {
			s.restart(n)
		}
		return
	}
	switch x := s.rand.IntN(100); {
	case x < 45:
		n.put(s.ops(n))
		if !s.chance(4) { // else it waits for company
			n.drive()
		}
	case x < 65:
		n.sync(s.peer(n.id), false)
	case x < 70:
		n.fetch(s.peer(n.id))
	case x < 74:
		n.watchSome()
	case x < 78:
		s.now += int64(s.rand.IntN(3000)) // syncs, back-offs, expiry
		n.drive()
	default:
		s.fault(n)
	}
}

func (s *sim) restart(n *simNode) {
	if !n.joined {
		s.join(n)
		return
	}
	if n.start() {
		s.tracef("restart %s", n.name)
		n.drive()
		n.resume()
	}
}

func (s *sim) peer(not int) int {
	p := s.rand.IntN(len(s.keys) - 1)
	if p >= not {
		p++
	}
	return p
}

// fault makes one of the faults that the seed has.
func (s *sim) fault(n *simNode) {
	switch f := simFault(1) << s.rand.IntN(13); {
	case !s.has(f):
	case f == faultPartition:
		s.partition()
	case f == faultCrash:
		n.crash()
	case f == faultCrashInTurn:
		n.armed = 1 + s.rand.IntN(6)
	case f == faultRollback:
		if n.old != nil && s.chance(2) {
			n.rollback()
		} else {
			n.old = n.disk.powerCut(s.rand.IntN(4))
		}
	case f == faultClock:
		n.offset = time.Duration(s.rand.IntN(480_000)-240_000) * time.Millisecond
	case f == faultPolicy:
		s.changePolicy()
		n.offer(s.policy.text)
		n.drive()
	case f == faultHostile:
		s.hostile.act()
	}
}

// partition blocks some links: halves, one-way, one host alone, a bridge between two halves, or none.
func (s *sim) partition() {
	side := s.rand.Uint32()
	bridge, shape := s.rand.IntN(len(s.keys)), s.rand.IntN(5)
	for i := range s.keys {
		for j := range s.keys {
			a, b := side>>i&1, side>>j&1
			switch shape {
			case 0:
				s.blocked[i][j] = a != b
			case 1:
				s.blocked[i][j] = a < b
			case 2:
				s.blocked[i][j] = i == bridge || j == bridge
			case 3:
				s.blocked[i][j] = a != b && i != bridge && j != bridge
			default:
				s.blocked[i][j] = false
			}
		}
	}
	s.tracef("partition shape %d", shape)
}

// ops makes a write of one to three paths.
func (s *sim) ops(n *simNode) []Op {
	var ops []Op
	for _, p := range s.rand.Perm(len(s.model.paths))[:1+s.rand.IntN(3)] {
		op := Op{Path: s.model.paths[p], Value: s.value()}
		switch s.rand.IntN(12) {
		case 0, 1:
			op.Delete, op.Value = true, nil
		case 2:
			op.Expires = time.UnixMilli(s.now + int64(s.rand.IntN(5000)))
		case 3:
			v := n.last[op.Path]
			op.IfVersion = &v
		case 4:
			op.MustExist = true
		case 5:
			if s.has(faultBig) {
				op.Value = append(op.Value, make([]byte, 33<<10)...)
			}
		}
		ops = append(ops, op)
	}
	return ops
}

// valueMark begins every value, so that values are found on a disk.
const valueMark = "simulated value "

func (s *sim) value() []byte { return fmt.Appendf(nil, "%s%016x", valueMark, s.rand.Uint64()) }

func simName(i int) string { return fmt.Sprintf("n%d", i) }

// simPolicy is a policy as its admin meant it: rights by identity and path.
type simPolicy struct {
	serial      uint64
	hash        [32]byte
	text        []byte
	read, write [][]bool
	member      []bool
	revoked     []bool
}

// changePolicy writes another policy: rights, membership, a revocation, sometimes with a serial that is there already.
func (s *sim) changePolicy() {
	old := s.policy
	p := &simPolicy{serial: old.serial + 1, revoked: append([]bool(nil), old.revoked...), member: append([]bool(nil), old.member...)}
	if s.chance(6) {
		p.serial = old.serial
	}
	for i := range old.read {
		p.read = append(p.read, append([]bool(nil), old.read[i]...))
		p.write = append(p.write, append([]bool(nil), old.write[i]...))
	}
	i, k := s.rand.IntN(len(s.keys)), s.rand.IntN(len(s.model.paths))
	switch s.rand.IntN(8) {
	case 0, 1, 2:
		p.read[i][k] = !p.read[i][k]
	case 3, 4, 5:
		p.write[i][k] = !p.write[i][k]
	case 6:
		p.member[i] = !p.member[i]
	case 7:
		p.revoked[i] = i != 0
	}
	if s.chance(4) {
		clear(p.revoked) // an older text's revocations count all the same
	}
	s.publish(p)
}

func (s *sim) firstPolicy() {
	p := &simPolicy{serial: 1}
	for range s.keys {
		var read, write []bool
		for range s.model.paths {
			read, write = append(read, s.rand.IntN(10) < 8), append(write, s.rand.IntN(10) < 8)
		}
		p.read, p.write, p.member, p.revoked = append(p.read, read), append(p.write, write), append(p.member, true), append(p.revoked, false)
	}
	for k := range s.model.paths {
		p.read[0][k] = true
	}
	s.publish(p)
}

// publish signs a policy and shows it to the model.
func (s *sim) publish(p *simPolicy) {
	var b strings.Builder
	fmt.Fprintf(&b, "syncagent-policy 1\nnetwork %s\nserial %d\n", s.network, p.serial)
	for i := range s.keys {
		fmt.Fprintf(&b, "identity n%d %s\n", i, s.keys[i])
	}
	for i := range s.keys {
		if p.member[i] {
			fmt.Fprintf(&b, "n%d peer\n", i)
		}
		for k, path := range s.model.paths {
			if p.read[i][k] {
				fmt.Fprintf(&b, "n%d %s read\n", i, path)
			}
			if p.write[i][k] {
				fmt.Fprintf(&b, "n%d %s write\n", i, path)
			}
		}
		if p.revoked[i] {
			fmt.Fprintf(&b, "revoke %s\n", s.keys[i])
		}
	}
	p.text = acl.Sign([]byte(b.String()), s.network, testKey("admin"))
	p.hash = sha256.Sum256([]byte(b.String()))
	s.model.policies[p.hash] = p
	s.policy = p
	s.tracef("policy %d %x", p.serial, p.hash[:4])
}

package crdtstore

import (
	"fmt"
	"time"
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
	case x < 40:
		n.put(s.ops(n))
		if !s.chance(4) { // else it waits for company
			n.drive()
		}
	case x < 45:
		s.clientWrites(n)
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
		case 6:
			if s.has(faultBig) {
				op.Value = append(op.Value, make([]byte, simLarge-len(op.Value))...)
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

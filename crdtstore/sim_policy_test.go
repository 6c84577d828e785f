package crdtstore

import (
	"crypto/sha256"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"syncagent/acl"
	"syncagent/crdtstore/record"
)

// simPolicy is a policy as its admin meant it: rights by identity and path.
type simPolicy struct {
	serial      uint64
	hash        [32]byte
	text        []byte
	read, write [][]bool
	member      []bool // hosts
	revoked     []bool
	former      []bool
	until       []int64 // forever, or the time up to which a retired identity's writes count
	keeps       map[record.Version]bool
}

const forever = math.MaxInt64

// changed gives a policy to change.
func (p *simPolicy) changed() *simPolicy {
	q := &simPolicy{
		serial: p.serial + 1, member: slices.Clone(p.member), revoked: slices.Clone(p.revoked), former: slices.Clone(p.former),
		until: slices.Clone(p.until), keeps: map[record.Version]bool{},
	}
	for i := range p.read {
		q.read, q.write = append(q.read, slices.Clone(p.read[i])), append(q.write, slices.Clone(p.write[i]))
	}
	for v := range p.keeps {
		q.keeps[v] = true
	}
	return q
}

// changePolicy writes another policy: rights, membership, the end of an identity, sometimes with a serial that is there
// already.
func (s *sim) changePolicy() {
	p := s.policy.changed()
	if s.chance(6) {
		p.serial--
	}
	i, k := s.rand.IntN(len(s.identities)), s.rand.IntN(len(s.model.paths))
	switch s.rand.IntN(12) {
	case 0, 1, 2:
		p.read[i][k] = !p.read[i][k]
	case 3, 4, 5:
		p.write[i][k] = !p.write[i][k]
	case 6:
		i %= len(s.keys)
		p.member[i] = !p.member[i]
	case 7:
		p.revoked[i] = i != 0
	case 8:
		p.former[i] = i != 0 && !p.former[i]
	case 9:
		if p.until[i] = forever; i != 0 && s.chance(2) {
			p.until[i] = (s.now - int64(s.rand.IntN(3000))) / 1000 * 1000 // the text has whole seconds
		}
	default:
		s.keepSome(p)
	}
	if s.chance(4) {
		clear(p.revoked) // an older text's revocations count all the same
	}
	s.publish(p)
}

// keepSome names versions that count whatever the rules say, or forgets those named before.
func (s *sim) keepSome(p *simPolicy) {
	if s.chance(3) || len(s.model.order) == 0 {
		clear(p.keeps)
		return
	}
	for range 1 + s.rand.IntN(3) {
		id := s.model.order[s.rand.IntN(len(s.model.order))]
		w := s.model.writes[id]
		one, whole := s.rand.IntN(len(w.Slots)), s.chance(2)
		for i := range w.Slots {
			if whole || i == one {
				p.keeps[record.Version{HLC: w.HLC, Write: id, Index: uint16(i)}] = true
			}
		}
	}
}

func (s *sim) firstPolicy() {
	p := &simPolicy{serial: 1, keeps: map[record.Version]bool{}}
	for range s.identities {
		var read, write []bool
		for range s.model.paths {
			read, write = append(read, s.rand.IntN(10) < 8), append(write, s.rand.IntN(10) < 8)
		}
		p.read, p.write, p.revoked = append(p.read, read), append(p.write, write), append(p.revoked, false)
		p.former, p.until = append(p.former, false), append(p.until, forever)
	}
	p.member = slices.Repeat([]bool{true}, len(s.keys))
	for k := range s.model.paths {
		p.read[0][k] = true
	}
	s.publish(p)
}

// publish signs a policy and shows it to the model.
func (s *sim) publish(p *simPolicy) {
	var b strings.Builder
	fmt.Fprintf(&b, "syncagent-policy 1\nnetwork %s\nserial %d\n", s.network, p.serial)
	for i, key := range s.identities {
		if p.former[i] {
			fmt.Fprintf(&b, "former %s\n", key)
		} else {
			fmt.Fprintf(&b, "identity n%d %s\n", i, key)
		}
		if p.until[i] != forever {
			fmt.Fprintf(&b, "retired %s %s\n", key, time.UnixMilli(p.until[i]).UTC().Format(time.RFC3339))
		}
		if p.revoked[i] {
			fmt.Fprintf(&b, "revoke %s\n", key)
		}
	}
	for i := range s.identities {
		if i < len(s.keys) && p.member[i] {
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
	}
	for _, id := range s.model.order { // in the order in which they were made, so that a run can be repeated
		w := s.model.writes[id]
		for i := range w.Slots {
			if v := (record.Version{HLC: w.HLC, Write: id, Index: uint16(i)}); p.keeps[v] {
				fmt.Fprintf(&b, "keep %s\n", v)
			}
		}
	}
	p.text = acl.Sign([]byte(b.String()), s.network, testKey("admin"))
	p.hash = sha256.Sum256([]byte(b.String()))
	s.model.policies[p.hash] = p
	s.policy = p
	s.tracef("policy %d %x", p.serial, p.hash[:4])
}

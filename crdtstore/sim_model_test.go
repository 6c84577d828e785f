package crdtstore

import (
	"bytes"

	"syncagent/crdtstore/record"
)

// The model knows everything that was ever written and every policy, and computes the view from the sentences of
// ARCHITECTURE.md. It shares the formats with the store, none of its decisions.

// simModel is what the world outside knows.
type simModel struct {
	network  record.NetworkID
	paths    []string
	who      map[record.PublicKey]int // identities by number
	writes   map[record.ID]*record.Write
	order    []record.ID // of writes, as they were made
	entries  map[record.ID]*record.Entry
	policies map[[32]byte]*simPolicy
	acked    map[record.ID]int     // write -> host that acknowledged it
	asked    map[string]simAsked   // value -> what a client asked for
	lost     map[int]bool          // hosts that were rolled back: what only they had is gone
	pathAt   map[record.Tag]string // path key -> path
}

// simRights is what a set of texts says: the highest counts, and every revocation.
type simRights struct {
	*simPolicy
	out []bool
}

func (m *simModel) rights(texts [][32]byte) simRights {
	var r simRights
	r.out = make([]bool, len(m.who))
	for _, h := range texts {
		p := m.policies[h]
		if r.simPolicy == nil || p.serial > r.serial || p.serial == r.serial && bytes.Compare(p.hash[:], r.hash[:]) > 0 {
			r.simPolicy = p
		}
		for i, out := range p.revoked {
			r.out[i] = r.out[i] || out
		}
	}
	return r
}

// may judges by the rules what an identity did at a time; forever stands for now.
func (m *simModel) may(r simRights, rights func(*simPolicy) [][]bool, who int, path string, at int64) bool {
	if r.simPolicy == nil || who < 0 || r.out[who] || r.former[who] || at > r.until[who] {
		return false
	}
	for i, p := range m.paths {
		if rights(r.simPolicy)[who][i] && record.Covers(p, path) {
			return true
		}
	}
	return false
}

func (m *simModel) reads(r simRights, who int, path string) bool {
	return m.may(r, func(p *simPolicy) [][]bool { return p.read }, who, path, forever)
}

func (m *simModel) mayWrite(r simRights, who int, path string, at int64) bool {
	return m.may(r, func(p *simPolicy) [][]bool { return p.write }, who, path, at)
}

// allowed tells whether a version counts.
func (m *simModel) allowed(r simRights, who int, path string, v record.Version) bool {
	return r.simPolicy != nil && r.keeps[v] || m.mayWrite(r, who, path, v.HLC.Milli())
}

// pathOf gives the path of a slot, "" if its tags are of no path, or of another than its entry's.
func (m *simModel) pathOf(s *record.Slot) string {
	path := m.pathAt[s.PathKey()]
	if path == "" || !s.Matches(m.network, path) {
		return ""
	}
	if e := m.entries[s.Entry]; e != nil && e.Path != path {
		return ""
	}
	return path
}

func (m *simModel) number(k record.PublicKey) int {
	if i, ok := m.who[k]; ok {
		return i
	}
	return -1
}

// view is the oracle: what a host shows of the writes it holds, when every entry that is available has come to it.
func (m *simModel) view(r simRights, host int, now int64, held func(record.ID) bool, available func(record.Version) bool, patient bool) map[string]record.Version {
	shown, ready := map[string]record.Version{}, map[record.ID]bool{}
	for changed := true; changed; {
		changed = false
		for _, id := range m.order {
			w := m.writes[id]
			if !held(id) || w.HLC.Milli() > now+600_000 {
				continue
			}
			settled := true
			for i := range w.Slots {
				path, v := m.pathOf(&w.Slots[i]), record.Version{HLC: w.HLC, Write: id, Index: uint16(i)}
				wanted := path != "" && m.reads(r, host, path) && m.allowed(r, m.number(w.Author), path, v)
				if wanted && !available(v) && shown[path].Compare(v) <= 0 && patient {
					settled = false
				}
				if wanted && ready[id] && available(v) && shown[path].Compare(v) < 0 {
					shown[path], changed = v, true
				}
			}
			if settled && !ready[id] {
				ready[id], changed = true, true
			}
		}
	}
	return shown
}

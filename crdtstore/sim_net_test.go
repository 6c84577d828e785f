package crdtstore

import (
	"container/heap"

	"syncagent/crdtstore/record"
)

// simMsg is a message under way.
type simMsg struct {
	at       int64
	number   int
	from, to int
	kind     simKind
	parcels  []record.Parcel
	digests  []record.Digest
	vector   []record.Position
	digest   [32]byte
	reply    bool
	policies [][]byte
	wants    []record.Want
	answers  []record.Answer

	chunkWants []record.ChunkWant // and answers to these
}

type simKind string

const (
	simParcels  simKind = "parcels"
	simVector   simKind = "vector"
	simAsk      simKind = "ask"
	simWants    simKind = "wants"
	simAnswers  simKind = "answers"
	simPolicies simKind = "policies"

	simChunkWants simKind = "chunk wants"
	simChunks     simKind = "chunks"
)

// simQueue orders messages by the time of their delivery.
type simQueue []simMsg

func (q simQueue) Len() int { return len(q) }
func (q simQueue) Less(i, j int) bool {
	if q[i].at != q[j].at {
		return q[i].at < q[j].at
	}
	return q[i].number < q[j].number
}
func (q simQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *simQueue) Push(x any)   { *q = append(*q, x.(simMsg)) }
func (q *simQueue) Pop() any {
	old := *q
	last := old[len(old)-1]
	*q = old[:len(old)-1]
	return last
}

// send puts a message on its way. No host sends anything but policies to who is no member, and nobody sends an entry
// to who may not read it (G7).
func (s *sim) send(m simMsg) {
	if m.from != s.evil {
		n := s.nodes[m.from]
		if !n.store.Policy().Member(s.keys[m.to]) {
			if m.policies == nil {
				return
			}
			m = simMsg{from: m.from, to: m.to, kind: simPolicies, policies: m.policies}
		}
		n.checkSent(m)
	}
	if s.has(faultDrop) && s.chance(6) {
		return
	}
	if s.has(faultWithhold) && s.chance(3) {
		m.parcels = s.loseEntries(m.parcels)
	}
	s.post(m)
	if s.has(faultDuplicate) && s.chance(6) {
		s.post(m)
	}
}

func (s *sim) post(m simMsg) {
	s.sent++
	m.number, m.at = s.sent, s.now+1+int64(s.rand.IntN(20))
	if s.healing {
		m.at = s.now
	}
	if s.has(faultDelay) && s.chance(4) {
		m.at += int64(s.rand.IntN(3000))
	}
	heap.Push(&s.queue, m)
}

// loseEntries drops entries from parcels on their way.
func (s *sim) loseEntries(in []record.Parcel) (out []record.Parcel) {
	for _, p := range in {
		q := record.Parcel{Block: p.Block}
		for _, e := range p.Entries {
			if s.chance(2) {
				q.Entries = append(q.Entries, e)
			}
		}
		if q.Block != nil || q.Entries != nil {
			out = append(out, q)
		}
	}
	return out
}

package p2p

import (
	"strings"
	"time"

	"syncagent/crdtstore/fault"
	"syncagent/crdtstore/record"
)

// What cannot differ and does differ is damage, or an error in the program. Two things are compared: the blocks of two
// members when neither lacks one that the other has, and what two members show that have the same blocks, policy and
// rights. Both sides find it, within 30 seconds.
const (
	viewEvery  = syncEvery       // every member is told what we show
	viewLasts  = 5 * time.Second // a difference that lasts so long, and twice the difference of the clocks, is an alarm
	roundPause = 3 * time.Second // until the heads are compared again
)

// viewNote says what the sender shows, and what that depends on.
type viewNote struct {
	Settled              bool // nothing is missing, or waits to be judged
	Blocks, Policy, View [32]byte
}

func (v viewNote) encode() []byte {
	b := []byte{0}
	if v.Settled {
		b[0] = 1
	}
	return append(append(append(b, v.Blocks[:]...), v.Policy[:]...), v.View[:]...)
}

func parseViewNote(b []byte) (v viewNote, err error) {
	r := wireReader{b: b}
	flags := r.u8()
	if flags > 1 {
		r.fail("unknown flags %#x", flags)
	}
	v = viewNote{Settled: flags == 1, Blocks: r.array(), Policy: r.array(), View: r.array()}
	return v, r.end()
}

func (n *Node) viewNote() viewNote {
	view, settled := n.replica.View()
	return viewNote{Settled: settled, Blocks: n.replica.BlockDigest(), Policy: n.replica.Rights().Hash(), View: view}
}

// noteView takes what a peer says it shows. What cannot be compared says nothing for or against it.
func (n *Node) noteView(s *session, theirs viewNote) {
	ours, rights := n.viewNote(), n.replica.Rights()
	if !ours.Settled || !theirs.Settled || ours.Blocks != theirs.Blocks {
		return
	}
	differs := ours.Policy == theirs.Policy && ours.View != theirs.View && rights.SameReads(n.self, s.key)
	s.mu.Lock()
	switch {
	case !differs:
		s.differsSince = time.Time{}
	case s.differsSince.IsZero():
		s.differsSince = time.Now()
	}
	s.mu.Unlock()
	n.tellDiverged()
}

// tellDiverged raises or ends the alarm about members that have diverged from this one.
func (n *Node) tellDiverged() {
	rights := n.replica.Rights()
	var found []string
	for _, s := range n.members() {
		s.mu.Lock()
		blocks := s.sameRounds >= sameRounds && !fault.Planted("diverge-silently")
		view := !s.differsSince.IsZero() && time.Since(s.differsSince) >= viewLasts+2*s.skew.Abs()
		s.mu.Unlock()
		switch {
		case blocks:
			found = append(found, nameOf(rights, s.key)+" has other blocks, though neither has one that the other lacks")
		case view:
			found = append(found, nameOf(rights, s.key)+" shows something else, though blocks, policy and rights are the same")
		}
	}
	n.mu.Lock()
	known := n.diverged
	n.diverged = len(found)
	n.mu.Unlock()
	if len(found) > 0 || known > 0 {
		n.o.Alarm(AlarmDiverged, strings.Join(found, "; "))
	}
}

// hasDiverged tells whether the alarm is raised.
func (n *Node) hasDiverged() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.diverged > 0
}

// nameOf is how people know a member.
func nameOf(rights Rights, k record.PublicKey) string {
	if alias := rights.Alias(k); alias != "" {
		return alias
	}
	return k.String()
}

package crdtstore

import (
	"slices"
	"time"

	"syncagent/crdtstore/fault"
	"syncagent/crdtstore/record"
)

const (
	// dueAhead is how far ahead of this agent's time a write may be dated and still be shown.
	dueAhead = 10 * time.Minute
	// horizon is for how long superseded entries are kept at least, and after which an unready write no longer waits
	// for entries that nobody has.
	horizon = 7 * 24 * time.Hour
	// keepNewest is how many superseded versions of a path are kept within the horizon.
	keepNewest = 10
)

// rules is what the view depends on beside the slots: policy, time, readiness.
type rules struct {
	now     int64         // agent time, Unix milliseconds
	history time.Duration // at least horizon
	allowed func(*slot) bool
	reads   func(*slot) bool // this agent may read it
	ready   func(record.ID) bool
	voided  int64 // when the policy in force came into force here, Unix milliseconds
}

func (r *rules) due(v record.Version) bool {
	return v.HLC.Milli() <= r.now+dueAhead.Milliseconds() || fault.Planted("show-early")
}

// holds tells whether nothing of a slot's entry is waited for. The chunks of one that has expired are not.
func (r *rules) holds(s *slot) bool {
	return s.holds() || s.lacking && (s.over(r.now) || fault.Planted("show-lacking"))
}

// verdict is what resolve finds for one path.
type verdict struct {
	shown   *slot   // highest allowed, due, readable slot with a held entry in a ready write; nil if none
	wants   []*slot // allowed, readable, not held, above what is shown, or held and torn; highest first
	drops   []*slot // entries that need not be kept
	changes []int64 // agent times in milliseconds at which something falls due or expires
	release []int64 // agent times in milliseconds at which something may be dropped
}

// resolve is the view: a pure function of the slots of one path in descending order and the rules. ARCHITECTURE.md,
// sections 3 and 6, has the words.
func resolve(slots []*slot, r *rules) verdict {
	var out verdict
	var above *slot // nearest allowed and due slot above the present one
	authors := make(map[record.PublicKey]bool)
	older := 0 // kept superseded versions
	if fault.Planted("winner-by-author") {
		slots = slices.Clone(slots)
		slices.SortStableFunc(slots, func(a, b *slot) int { return record.CompareKeys(b.author, a.author) })
	}
	for _, s := range slots {
		reads := r.reads(s)
		if s.has() && !reads && (!s.own || fault.Planted("drop-own")) && !fault.Planted("keep-unreadable") {
			out.drops = append(out.drops, s) // the right to read was withdrawn
			continue
		}
		switch {
		case s.state == slotVoid:
			continue
		case !r.allowed(s):
			if s.has() {
				if until := r.voided + r.history.Milliseconds(); until > r.now {
					out.release = append(out.release, until)
				} else {
					out.drops = append(out.drops, s)
				}
			}
			continue
		case !r.due(s.version):
			out.changes = append(out.changes, s.version.HLC.Milli()-dueAhead.Milliseconds())
			if reads && !r.holds(s) {
				out.wants = append(out.wants, s)
			}
			continue
		}
		switch {
		case out.shown == nil && !reads:
			// Kept for others only (own), or none of our business.
			if s.own && s.has() && above != nil {
				out.retire(s, above, r, authors, &older)
			}
		case out.shown == nil && r.holds(s) && r.ready(s.version.Write):
			out.shown = s
			out.expires(s, r)
			if s.torn && !s.over(r.now) {
				out.wants = append(out.wants, s)
			}
		case out.shown == nil:
			if !r.holds(s) {
				out.wants = append(out.wants, s)
				out.expires(s, r)
			}
		case s.has():
			out.retire(s, above, r, authors, &older)
		}
		authors[s.author] = true
		above = s
	}
	return out
}

// expires has the path looked at again when the entry expires.
func (out *verdict) expires(s *slot, r *rules) {
	if s.known && s.expires != 0 && int64(s.expires) > r.now {
		out.changes = append(out.changes, int64(s.expires))
	}
}

// retire decides whether a superseded entry is kept: for the horizon after what superseded it, the newest ten of the
// path and the newest of each author, so that a stolen key cannot push out the last good version. One whose chunks have
// not all come is of no use.
func (out *verdict) retire(s, above *slot, r *rules, authors map[record.PublicKey]bool, older *int) {
	until := above.version.HLC.Milli() + r.history.Milliseconds()
	if until <= r.now || !r.holds(s) || (*older >= keepNewest && authors[s.author]) {
		out.drops = append(out.drops, s)
		return
	}
	*older++
	out.release = append(out.release, until)
	if s.torn && r.reads(s) {
		out.wants = append(out.wants, s)
	}
}

package agent

import "sync/atomic"

// limit bounds how many are inside at once. It may change meanwhile: those inside stay. The zero value lets nobody in.
// It is safe for concurrent use.
type limit struct{ most, inside atomic.Int64 }

func (l *limit) set(most int) { l.most.Store(int64(most)) }

// enter tells whether there was room. Who got in must leave.
func (l *limit) enter() bool {
	if l.inside.Add(1) <= l.most.Load() {
		return true
	}
	l.leave()
	return false
}

func (l *limit) leave() { l.inside.Add(-1) }

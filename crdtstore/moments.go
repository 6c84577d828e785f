package crdtstore

import "sync"

// moments numbers the commits, and knows at which of them open views read: badger may forget what no view can see any
// more. Left to itself badger numbers them too, but lets each view wait for the commit that is under way, which takes
// a tenth of a second when a table is full. A view of ours shows the last commit that has ended.
type moments struct {
	mu    sync.Mutex
	ended uint64
	told  uint64   // the oldest moment that leave gave
	open  []moment // ascending
}

type moment struct {
	number uint64
	views  int
}

// enter gives the moment at which a new view reads. Leave ends it.
func (m *moments) enter() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := len(m.open); n > 0 && m.open[n-1].number == m.ended {
		m.open[n-1].views++
	} else {
		m.open = append(m.open, moment{m.ended, 1})
	}
	return m.ended
}

// leave notes that a view at this moment was closed, and gives the oldest moment that views, present and future, need.
// Most often that is the one given before; grown tells when it is not.
func (m *moments) leave(number uint64) (oldest uint64, grown bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.open {
		if m.open[i].number == number {
			m.open[i].views--
		}
	}
	for len(m.open) > 0 && m.open[0].views == 0 {
		m.open = m.open[1:]
	}
	oldest = m.ended
	if len(m.open) > 0 {
		oldest = m.open[0].number
	}
	grown = oldest > m.told
	m.told = max(m.told, oldest)
	return oldest, grown
}

// end notes that the commit of this number has ended: later views show it.
func (m *moments) end(number uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ended = number
}

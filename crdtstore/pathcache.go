package crdtstore

import (
	"math"
	"slices"
	"unsafe"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"syncagent/crdtstore/record"
)

// pathCache holds what the rows say of the paths that turns touched last, so that a path that is written again and again
// is not read each time. A turn takes a path out and puts it back after its commit: what is here is what the next turn
// would read, slot for slot. Entries are not held. Only the owner of the store uses it.
//
// Not held are paths that were new, which would push out others although most are never written again; and what is
// rare: values in chunks, and slots that do not agree on name or prefixes of the path, as only a hostile member makes them.
type pathCache struct {
	lru   *simplelru.LRU[record.Tag, *pathMemo]
	bytes int
	most  int
}

// pathBytes bounds the cache: some 2,000 paths with a history.
const pathBytes = 4 << 20

func newPathCache(most int) (*pathCache, error) {
	l, err := simplelru.NewLRU[record.Tag, *pathMemo](math.MaxInt, nil) // bytes count, not paths
	return &pathCache{lru: l, most: most}, err
}

// pathMemo is the state of a path between two turns, without pointers where there are many of a thing.
type pathMemo struct {
	slots   []slotMemo
	whole   bool
	authors []record.PublicKey
	tags    []record.Tag
	path    string // empty if no entry is held
	view    viewRow
}

type slotMemo struct {
	hlc        record.HLC
	expires    uint64
	write      record.ID
	entry      record.ID
	index      uint16
	author     uint8 // number among the authors of the path
	state      slotState
	kind       record.Kind
	own, known bool
}

// memory estimates what holding a path takes, with its place in the cache.
func (m *pathMemo) memory() int {
	return 400 + len(m.slots)*int(unsafe.Sizeof(slotMemo{})) + 32*len(m.authors) + 16*len(m.tags) + len(m.path)
}

// take gives the state of a path and forgets it, nil if it is not here.
func (c *pathCache) take(key record.Tag) *pathState {
	m := c.drop(key)
	if m == nil {
		return nil
	}
	return m.state(key)
}

func (c *pathCache) holds(key record.Tag) bool { return c.lru.Contains(key) }

func (c *pathCache) drop(key record.Tag) *pathMemo {
	m, ok := c.lru.Peek(key)
	if !ok {
		return nil
	}
	c.lru.Remove(key)
	c.bytes -= m.memory()
	return m
}

func (c *pathCache) clear() {
	c.lru.Purge()
	c.bytes = 0
}

// put takes the state of a path over, as it is committed. Others give way for it, the oldest first.
func (c *pathCache) put(p *pathState, window int) {
	c.drop(p.key)
	m := newPathMemo(p, window)
	if m == nil {
		return
	}
	c.lru.Add(p.key, m)
	for c.bytes += m.memory(); c.bytes > c.most; {
		_, old, _ := c.lru.RemoveOldest()
		c.bytes -= old.memory()
	}
}

// newPathMemo gives what the next turn would read of a path, nil if that is not to be held.
func newPathMemo(p *pathState, window int) *pathMemo {
	if p.isNew || p.dirty {
		return nil
	}
	var w extent
	n := 0
	for ; n < len(p.slots) && !w.enough(window) && p.reaches(p.slots[n].version); n++ {
		w.add(p.slots[n])
	}
	whole := p.whole && n == len(p.slots)
	if n == 0 || !whole && !w.enough(window) {
		return nil
	}
	m := &pathMemo{slots: make([]slotMemo, 0, n), whole: whole, tags: p.slots[0].tags, view: p.view}
	for _, s := range p.slots[:n] {
		if !m.add(s) {
			return nil
		}
	}
	return m
}

// add takes one more slot, unless it is of a kind that is not held.
func (m *pathMemo) add(s *slot) bool {
	known := s.known && s.has() && s.state != slotElsewhere // as describe says
	if known && m.path == "" {
		m.path = s.path
	}
	if s.changed || s.chunked || s.counted || known && (s.kind == record.KindChunked || s.path != m.path) || !slices.Equal(s.tags, m.tags) {
		return false
	}
	author := slices.Index(m.authors, s.author)
	if author < 0 {
		author, m.authors = len(m.authors), append(m.authors, s.author)
	}
	if author > math.MaxUint8 {
		return false
	}
	o := slotMemo{
		hlc: s.version.HLC, write: s.version.Write, index: s.version.Index, entry: s.entry, author: uint8(author), state: s.state, own: s.own,
	}
	if known {
		o.known, o.kind, o.expires = true, s.kind, s.expires
	}
	m.slots = append(m.slots, o)
	return true
}

// state gives the state of the path for a turn.
func (m *pathMemo) state(key record.Tag) *pathState {
	p := &pathState{key: key, whole: m.whole, slots: make([]*slot, len(m.slots), len(m.slots)+4), view: m.view}
	slots := make([]slot, len(m.slots))
	for i := range m.slots {
		o, s := &m.slots[i], &slots[i]
		s.version = record.Version{HLC: o.hlc, Write: o.write, Index: o.index}
		s.author, s.tags, s.entry, s.state, s.own = m.authors[o.author], m.tags, o.entry, o.state, o.own
		if o.known {
			s.known, s.path, s.kind, s.expires = true, m.path, o.kind, o.expires
		}
		p.slots[i] = s
	}
	p.floor = p.slots[len(p.slots)-1].version
	return p
}

// remember puts the paths of a turn that was committed into the cache.
func (t *turn) remember() {
	for _, key := range t.touched {
		p := t.paths[key]
		if len(p.slots) > 0 && !t.policy.MayRead(t.s.self, p.slots[0].tags) {
			t.s.paths.drop(key)
			continue
		}
		t.s.paths.put(p, t.s.window)
	}
}

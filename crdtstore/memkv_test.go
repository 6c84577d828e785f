package crdtstore

import (
	"bytes"
	"sync"

	"github.com/tidwall/btree"
)

// memKV is a disk in memory that can lose power: what was committed after the last Sync may be gone, from the end.
type memKV struct {
	mu      sync.Mutex
	rows    *btree.BTreeG[memRow]
	commits []map[string][]byte // since the last Sync
	synced  *btree.BTreeG[memRow]
	commitN int
	// before is called before every commit and sync; an error is what the disk answers.
	before func(what string) error
	chunks *memChunks
}

type memRow struct{ key, value []byte }

func newMemKV() *memKV {
	less := func(a, b memRow) bool { return bytes.Compare(a.key, b.key) < 0 }
	return &memKV{rows: btree.NewBTreeG(less), synced: btree.NewBTreeG(less), chunks: newMemChunks()}
}

func (m *memKV) View() view {
	m.mu.Lock()
	defer m.mu.Unlock()
	return &memView{rows: m.rows.Copy()}
}

func (m *memKV) Commit(r *rows) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.before != nil {
		if err := m.before("commit"); err != nil {
			return err
		}
	}
	m.commitN++
	applyRows(m.rows, r.m)
	m.commits = append(m.commits, r.m)
	return nil
}

func applyRows(t *btree.BTreeG[memRow], r map[string][]byte) {
	for k, v := range r {
		if v == nil {
			t.Delete(memRow{key: []byte(k)})
		} else {
			t.Set(memRow{[]byte(k), bytes.Clone(v)})
		}
	}
}

func (m *memKV) Sync() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.before != nil {
		if err := m.before("sync"); err != nil {
			return err
		}
	}
	m.synced, m.commits = m.rows.Copy(), nil
	return nil
}

func (m *memKV) Verify() error { return nil }

func (m *memKV) Close() error { return nil }

// spoil flips a bit in every row with a prefix; drop removes them.
func (m *memKV) spoil(prefix []byte) {
	m.each(prefix, func(r memRow) {
		r.value = bytes.Clone(r.value)
		r.value[len(r.value)-1] ^= 1
		m.rows.Set(r)
	})
}

func (m *memKV) drop(prefix []byte) { m.each(prefix, func(r memRow) { m.rows.Delete(r) }) }

func (m *memKV) each(prefix []byte, fn func(memRow)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.rows.Copy().Scan(func(r memRow) bool {
		if bytes.HasPrefix(r.key, prefix) {
			fn(r)
		}
		return true
	})
}

// powerCut gives the disk as a restart finds it when keep of the commits since the last sync reached it.
func (m *memKV) powerCut(keep int) *memKV {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := &memKV{rows: m.synced.Copy()}
	for _, c := range m.commits[:min(keep, len(m.commits))] {
		applyRows(n.rows, c)
	}
	n.synced = n.rows.Copy()
	n.chunks = m.chunks.powerCut(keep > 0)
	return n
}

// has tells whether the bytes occur anywhere on the disk.
func (m *memKV) has(needle []byte) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	found := false
	m.rows.Scan(func(r memRow) bool {
		found = bytes.Contains(r.key, needle) || bytes.Contains(r.value, needle)
		return !found
	})
	return found || m.chunks.has(needle)
}

type memView struct{ rows *btree.BTreeG[memRow] }

func (v *memView) Get(key []byte) ([]byte, bool, error) {
	r, ok := v.rows.Get(memRow{key: key})
	return bytes.Clone(r.value), ok, nil
}

func (v *memView) Scan(prefix, start []byte, down bool, fn func(key, value []byte) (bool, error)) error {
	var failed error
	visit := func(r memRow) bool {
		if !bytes.HasPrefix(r.key, prefix) {
			return false
		}
		more, err := fn(r.key, r.value)
		failed = err
		return more && err == nil
	}
	switch {
	case down && start == nil:
		v.rows.Descend(memRow{key: append(bytes.Clone(prefix), bytes.Repeat([]byte{0xff}, 128)...)}, visit)
	case down:
		v.rows.Descend(memRow{key: start}, visit)
	case start == nil:
		v.rows.Ascend(memRow{key: prefix}, visit)
	default:
		v.rows.Ascend(memRow{key: start}, visit)
	}
	return failed
}

func (v *memView) Close() {}

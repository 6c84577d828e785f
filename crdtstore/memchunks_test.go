package crdtstore

import (
	"bytes"
	"io/fs"
	"maps"
	"slices"
	"sync"
)

// memChunks keeps chunks in memory. What was put survives a power cut; what was removed may come back by one.
type memChunks struct {
	mu      sync.Mutex
	files   map[chunkRef][]byte
	removed map[chunkRef][]byte
	puts    int
	// before is called before every put; an error is what the disk answers.
	before func() error
}

func newMemChunks() *memChunks {
	return &memChunks{files: map[chunkRef][]byte{}, removed: map[chunkRef][]byte{}}
}

func (m *memChunks) Put(ref chunkRef, chunk []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.before != nil {
		if err := m.before(); err != nil {
			return err
		}
	}
	m.files[ref] = bytes.Clone(chunk)
	m.puts++
	return nil
}

func (m *memChunks) Get(ref chunkRef, _ []byte) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	data, ok := m.files[ref]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return bytes.Clone(data), nil
}

func (m *memChunks) Has(ref chunkRef) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.files[ref]
	return ok, nil
}

func (m *memChunks) Remove(ref chunkRef) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if data, ok := m.files[ref]; ok {
		m.removed[ref] = data
		delete(m.files, ref)
	}
	return nil
}

func (m *memChunks) SetAside(ref chunkRef) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.files, ref)
	return nil
}

func (m *memChunks) Each(fn func(chunkRef, bool) error) error {
	for _, ref := range m.refs() {
		if err := fn(ref, true); err != nil {
			return err
		}
	}
	return nil
}

func (m *memChunks) refs() []chunkRef {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.SortedFunc(maps.Keys(m.files), compareRefs)
}

// powerCut gives the files as a restart finds them, with those that were removed or without.
func (m *memChunks) powerCut(back bool) *memChunks {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := newMemChunks()
	if back {
		maps.Copy(n.files, m.removed)
	}
	maps.Copy(n.files, m.files)
	return n
}

// has tells whether the bytes occur in any chunk.
func (m *memChunks) has(needle []byte) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, data := range m.files {
		if bytes.Contains(data, needle) {
			return true
		}
	}
	return false
}

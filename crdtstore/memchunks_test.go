package crdtstore

import (
	"bytes"
	"io/fs"
	"maps"
	"slices"
	"sync"

	"syncagent/crdtstore/record"
)

// memChunks keeps chunks in memory. What was put survives a power cut; what was removed comes back by one.
type memChunks struct {
	mu      sync.Mutex
	files   map[record.ID][]byte
	removed map[record.ID][]byte
	puts    int
	// before is called before every put; an error is what the disk answers.
	before func() error
}

func newMemChunks() *memChunks {
	return &memChunks{files: map[record.ID][]byte{}, removed: map[record.ID][]byte{}}
}

func (m *memChunks) Put(id record.ID, chunk []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.before != nil {
		if err := m.before(); err != nil {
			return err
		}
	}
	m.files[id] = bytes.Clone(chunk)
	m.puts++
	return nil
}

func (m *memChunks) Get(id record.ID) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	data, ok := m.files[id]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return bytes.Clone(data), nil
}

func (m *memChunks) Has(id record.ID) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.files[id]
	return ok, nil
}

func (m *memChunks) Remove(id record.ID) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if data, ok := m.files[id]; ok {
		m.removed[id] = data
		delete(m.files, id)
	}
	return nil
}

func (m *memChunks) Each(fn func(record.ID) error) error {
	for _, id := range m.ids() {
		if err := fn(id); err != nil {
			return err
		}
	}
	return nil
}

func (m *memChunks) ids() []record.ID {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.SortedFunc(maps.Keys(m.files), compareIDs)
}

func (m *memChunks) powerCut() *memChunks {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := newMemChunks()
	maps.Copy(n.files, m.removed)
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

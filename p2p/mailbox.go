package p2p

import "sync"

// mailbox is a bounded queue whose reader takes all that waits at once. A full one refuses: sync repairs what is lost.
type mailbox[T any] struct {
	bell     chan struct{} // rings when something came
	maxItems int
	maxBytes int

	mu    sync.Mutex
	items []T
	bytes int
}

func newMailbox[T any](maxItems, maxBytes int) *mailbox[T] {
	return &mailbox[T]{bell: make(chan struct{}, 1), maxItems: maxItems, maxBytes: maxBytes}
}

// put adds an item of so many bytes; false if the mailbox is full.
func (m *mailbox[T]) put(item T, bytes int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.items) >= m.maxItems || m.bytes+bytes > m.maxBytes {
		return false
	}
	m.items = append(m.items, item)
	m.bytes += bytes
	ring(m.bell)
	return true
}

// take empties the mailbox.
func (m *mailbox[T]) take() []T {
	m.mu.Lock()
	defer m.mu.Unlock()
	items := m.items
	m.items, m.bytes = nil, 0
	return items
}

package mirror

import (
	"sync"

	"syncagent/crdtstore/fault"
)

// inbox takes the changes of a watch while a pass is going on. A later change of a path replaces the one before, so that
// it never holds more than the prefix has paths; changes of a write are handed on only when all of them are there.
type inbox struct {
	bell chan struct{} // rings when there is something to take

	mu    sync.Mutex
	open  []Change // of a write that is not complete yet
	ready map[string]Change
}

func newInbox() *inbox {
	return &inbox{bell: make(chan struct{}, 1), ready: map[string]Change{}}
}

// put adds a change. It does not block.
func (b *inbox) put(c Change) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open = append(b.open, c)
	if c.More {
		return nil
	}
	for _, c := range b.open {
		b.ready[c.Path] = c
	}
	b.open = nil
	if fault.Planted("mirror-bell-lost") {
		return nil
	}
	select {
	case b.bell <- struct{}{}:
	default:
	}
	return nil
}

// take empties the inbox.
func (b *inbox) take() map[string]Change {
	b.mu.Lock()
	defer b.mu.Unlock()
	ready := b.ready
	b.ready = map[string]Change{}
	return ready
}

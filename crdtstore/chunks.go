package crdtstore

import (
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"syscall"

	"syncagent/crdtstore/fault"
	"syncagent/crdtstore/record"
)

// chunks keeps the files of large values in step with the slots that use them. Files are written, durably, before the
// commit that names them, and removed after the commit that drops the last user is durable. In between the pins of
// uploads and readers, and the counts here, say which are needed; at start they follow from the rows k.
type chunks struct {
	files chunkFiles
	bell  chan struct{} // tend has work

	mu   sync.Mutex
	used map[chunkRef]int      // slots that use it, as committed
	pins map[chunkRef]int      // uploads and readers that need it
	idle map[chunkRef]struct{} // perhaps needed by nobody
}

func newChunks(files chunkFiles) *chunks {
	return &chunks{
		files: files, bell: make(chan struct{}, 1),
		used: make(map[chunkRef]int), pins: make(map[chunkRef]int), idle: make(map[chunkRef]struct{}),
	}
}

func (c *chunks) ring() {
	select {
	case c.bell <- struct{}{}:
	default:
	}
}

// pin keeps chunks from being removed until unpin.
func (c *chunks) pin(refs []chunkRef) { c.count(refs, c.pins, 1) }

func (c *chunks) unpin(refs []chunkRef) { c.count(refs, c.pins, -1) }

// use and unuse take over what a commit changed.
func (c *chunks) use(refs []chunkRef) { c.count(refs, c.used, 1) }

func (c *chunks) unuse(refs []chunkRef) { c.count(refs, c.used, -1) }

func (c *chunks) count(refs []chunkRef, in map[chunkRef]int, n int) {
	if len(refs) == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, ref := range refs {
		if in[ref] += n; in[ref] == 0 {
			delete(in, ref)
		}
		if c.used[ref]+c.pins[ref] == 0 {
			c.idle[ref] = struct{}{}
		}
	}
	if len(c.idle) > 0 {
		c.ring()
	}
}

// forget makes the counts those of an empty store.
func (c *chunks) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.used)
	clear(c.idle)
}

// list gives all chunks that are stored, and as not here those of which only a damaged one is.
func (c *chunks) list() (map[chunkRef]bool, error) {
	here := make(map[chunkRef]bool)
	err := c.files.Each(func(ref chunkRef, whole bool) error {
		here[ref] = here[ref] || whole
		return nil
	})
	return here, err
}

func (c *chunks) isUsed(ref chunkRef) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.used[ref] > 0
}

// has tells whether a chunk is stored. For one that is neither used nor pinned the answer may be out of date at once.
func (c *chunks) has(ref chunkRef) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	ok, err := c.files.Has(ref)
	return err == nil && ok
}

// errChunk says that a chunk is not here, or not what it was.
var errChunk = errors.New("chunk is missing or damaged")

// get reads a chunk and checks it; it may come in the room of buf. A damaged file is set aside, so that the chunk is fetched
// again.
func (c *chunks) get(ref chunkRef, buf []byte) ([]byte, error) {
	data, err := c.files.Get(ref, buf)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w: %s", errChunk, ref.id)
	case errors.Is(err, syscall.EIO): // the disk lost it
	case err != nil:
		return nil, fmt.Errorf("read chunk: %w", err)
	case record.ChunkID(data) == ref.id:
		return data, nil
	}
	return nil, errors.Join(fmt.Errorf("%w: %s", errChunk, ref.id), err, c.files.SetAside(ref))
}

// put stores a pinned chunk unless it is here, and whole, already.
func (c *chunks) put(ref chunkRef, data []byte) error {
	if c.has(ref) {
		if _, err := c.get(ref, nil); err == nil {
			return nil
		}
	}
	return c.files.Put(ref, data)
}

// sweep removes what nobody needs of the chunks that were idle. Durable must make the commits so far durable: a power
// cut must not bring back a slot whose files are gone.
func (c *chunks) sweep(durable func() error) error {
	c.mu.Lock()
	idle := c.idle
	c.idle = make(map[chunkRef]struct{})
	c.mu.Unlock()
	if len(idle) == 0 {
		return nil
	}
	if err := durable(); err != nil {
		return err
	}
	var err error
	for ref := range idle {
		err = errors.Join(err, c.removeIdle(ref))
	}
	return err
}

// removeIdle removes a chunk unless somebody needs it by now: whoever does has said so under the same lock.
func (c *chunks) removeIdle(ref chunkRef) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.used[ref]+c.pins[ref] > 0 || fault.Planted("keep-chunks") {
		return nil
	}
	return c.files.Remove(ref)
}

package crdtstore

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"syncagent/crdtstore/record"
)

// Content reads the value of an item that was got with its value, a large one chunk by chunk: at no time is more than
// one in memory, and every chunk is checked before a byte of it is given. The caller has to close it. It fails with
// ErrNotFound if the version was dropped meanwhile, with ErrCorrupt if a chunk was lost: it is then fetched again.
func (s *Store) Content(i *Item) io.ReadCloser {
	if i.Chunks == nil {
		return io.NopCloser(bytes.NewReader(i.Value))
	}
	refs := refsOf(s.network.PathKey(i.Path), i.Chunks)
	s.chunks.pin(refs)
	return &content{s: s, slot: slot{version: i.Version, path: i.Path}, left: refs, pins: refs}
}

// content reads chunks in order.
type content struct {
	s    *Store
	slot slot // whose value it is
	left []chunkRef
	pins []chunkRef
	buf  []byte // of the chunk that is read, what is left
	room []byte // of that chunk, for the next
}

func (c *content) Read(p []byte) (int, error) {
	for len(c.buf) == 0 {
		if len(c.left) == 0 {
			return 0, io.EOF
		}
		data, err := c.s.chunks.get(c.left[0], c.room)
		if err != nil {
			return 0, c.s.lost(&c.slot, c.left[0], err)
		}
		c.buf, c.room, c.left = data, data, c.left[1:]
	}
	n := copy(p, c.buf)
	c.buf = c.buf[n:]
	return n, nil
}

// WriteTo spares io.Copy a buffer.
func (c *content) WriteTo(w io.Writer) (total int64, err error) {
	for {
		n, err := w.Write(c.buf)
		total += int64(n)
		if c.buf = c.buf[n:]; err != nil {
			return total, err
		}
		if _, err = c.Read(nil); errors.Is(err, io.EOF) {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

func (c *content) Close() error {
	c.s.chunks.unpin(c.pins)
	c.pins = nil
	return nil
}

// lost tells of a chunk that a slot needs and that cannot be read, and has it fetched again.
func (s *Store) lost(sl *slot, chunk chunkRef, cause error) error {
	if !errors.Is(cause, errChunk) {
		return fmt.Errorf("read %s: %w", sl.path, cause)
	}
	if !s.chunks.isUsed(chunk) {
		return fmt.Errorf("%s: version %s is gone: %w", sl.path, sl.version, ErrNotFound)
	}
	s.alarm("corrupt", "a part of the value of "+sl.path+" is damaged or missing in data_dir/chunks; it is fetched again from the other agents")
	select {
	case s.inbox <- &chunkNews{chunk.path, sl.version, true}:
	case <-s.stopped:
	}
	return fmt.Errorf("read %s: %w: %w", sl.path, ErrCorrupt, cause)
}

// Reuse makes the value of an item ready for another write of its path, without reading it. It fails with ErrNotFound if the
// version was dropped meanwhile, with ErrCorrupt if a chunk is lost.
func (s *Store) Reuse(i *Item) (*Upload, error) {
	u := &Upload{s: s, path: i.Path, value: i.Value}
	if i.Chunks == nil {
		return u, nil
	}
	u.list = record.ChunkList{Size: uint64(i.Size), Chunks: i.Chunks}
	u.pins = refsOf(s.network.PathKey(i.Path), i.Chunks)
	s.chunks.pin(u.pins)
	for _, ref := range u.pins {
		if !s.chunks.has(ref) {
			u.Close()
			return nil, s.lost(&slot{version: i.Version, path: i.Path}, ref, errChunk)
		}
	}
	return u, nil
}

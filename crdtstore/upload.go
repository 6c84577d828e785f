package crdtstore

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"

	"syncagent/crdtstore/record"
)

const (
	uploadsAtOnce = 32  // others wait
	chunksAtOnce  = 128 // of all uploads, being stored: 32 MiB
	chunkWriters  = 16  // of one upload
)

// Upload is a value that is ready for a write. The chunks of a large one are durable, and stay until Close.
type Upload struct {
	s     *Store
	path  string
	value []byte           // of a small one
	list  record.ChunkList // of a large one
	pins  []chunkRef
}

// Size is the length of the value in bytes.
func (u *Upload) Size() int64 { return max(int64(u.list.Size), int64(len(u.value))) }

// Close lets the chunks go, but those that a write took.
func (u *Upload) Close() {
	u.s.chunks.unpin(u.pins)
	u.pins = nil
}

// defaultMaxValue is the limit of a store that was not told another.
const defaultMaxValue = 64 << 20

// LimitValues sets how large a value may be that Upload takes, in bytes. What others wrote is not held to it.
func (s *Store) LimitValues(bytes int64) { s.maxValue.Store(bytes) }

// Upload reads a value to its end and stores its chunks, for writes of this path. The caller has to close what it gets.
// Errors: ErrTooLarge, ErrDiskFull, and what r fails with.
func (s *Store) Upload(ctx context.Context, path string, r io.Reader) (*Upload, error) {
	limit := s.maxValue.Load()
	select {
	case s.uploads <- struct{}{}:
		defer func() { <-s.uploads }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	u := &Upload{s: s, path: path}
	in := bufio.NewReaderSize(io.LimitReader(r, limit+1), 4096)
	chunk, err := record.ReadChunk(in)
	if err == nil {
		if _, last := in.Peek(1); errors.Is(last, io.EOF) {
			u.value = chunk
		} else {
			err = u.store(ctx, chunk, in)
		}
	}
	if err == nil && u.Size() > limit {
		err = fmt.Errorf("%w: the value of %s has more than %d bytes, which is limits.value", ErrTooLarge, path, limit)
	}
	if err != nil {
		u.Close()
		return nil, err
	}
	return u, nil
}

// store writes the first chunk and all that follow. Several are stored at the same time, since each waits for
// the disk, and they do so together.
func (u *Upload) store(ctx context.Context, chunk []byte, in io.Reader) error {
	writers, failing := errgroup.WithContext(ctx)
	writers.SetLimit(chunkWriters)
	key := u.s.network.PathKey(u.path)
	var err error
	for err == nil && len(chunk) > 0 && failing.Err() == nil {
		if err = u.s.checkRoom(); err != nil {
			break
		}
		data, ref := chunk, chunkRef{key, record.ChunkID(chunk)}
		u.s.chunks.pin([]chunkRef{ref})
		u.pins = append(u.pins, ref)
		u.list.Chunks, u.list.Size = append(u.list.Chunks, ref.id), u.list.Size+uint64(len(chunk))
		u.s.storing <- struct{}{}
		writers.Go(func() error {
			defer func() { <-u.s.storing }()
			return u.s.chunks.put(ref, data)
		})
		chunk, err = record.ReadChunk(in)
	}
	if failed := writers.Wait(); failed != nil {
		return failed
	}
	return errors.Join(err, ctx.Err())
}

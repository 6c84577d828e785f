package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"connectrpc.com/connect"

	"syncagent/agent"
	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore/record"
)

// valueInput is a value that a command writes. One of up to 256 KiB is sent at once, a larger one as it is read.
type valueInput struct {
	small []byte
	large io.Reader // at its beginning; nil: it is small
	size  int64     // of a small one; of a large one what was read

	source io.Seeker // of a large one; nil: it can be read but once
	start  int64     // where it begins there
}

// valueOf opens what a VALUE argument names: itself, "-" for standard input, "@FILE" for a file. Bytes are kept exactly.
func (c *cli) valueOf(arg string) (v *valueInput, done func(), err error) {
	done = func() {}
	name, isFile := strings.CutPrefix(arg, "@")
	switch {
	case arg == "-":
		v, err = newValueInput(c.stdin)
		return v, done, err
	case !isFile:
		v, err = newValueInput(strings.NewReader(arg))
		return v, done, err
	}
	f, err := os.Open(name)
	if err == nil {
		done = func() { _ = f.Close() } // read only
		v, err = newValueInput(f)
	}
	if err != nil {
		done()
		return nil, nil, fileFailure("value file", name, err)
	}
	return v, done, nil
}

// newValueInput reads as much of r as shows whether the value is small.
func newValueInput(r io.Reader) (*valueInput, error) {
	v := &valueInput{}
	if source, ok := r.(io.Seeker); ok {
		var err error
		if v.start, err = source.Seek(0, io.SeekCurrent); err == nil { // else a pipe
			v.source = source
		}
	}
	var first bytes.Buffer
	n, err := io.CopyN(&first, r, record.MaxInlineValue+1)
	switch {
	case n <= record.MaxInlineValue && errors.Is(err, io.EOF):
		v.small, v.size = first.Bytes(), n
		return v, nil
	case err != nil:
		return nil, fmt.Errorf("read the value: %w", err)
	}
	v.large = io.MultiReader(&first, r)
	return v, nil
}

func (v *valueInput) Read(p []byte) (int, error) {
	n, err := v.large.Read(p)
	v.size += int64(n)
	return n, err
}

var errOnce = errors.New("it can be read but once")

// Seek goes back to the beginning of a large value, and nowhere else.
func (v *valueInput) Seek(offset int64, whence int) (int64, error) {
	if v.source == nil || offset != 0 || whence != io.SeekStart {
		return 0, errOnce
	}
	if _, err := v.source.Seek(v.start, io.SeekStart); err != nil {
		return 0, err
	}
	v.large, v.size = v.source.(io.Reader), 0
	return 0, nil
}

// send writes one path.
func (c *cli) send(ctx context.Context, client *agent.Client, put *apiv1.PutRequest, v *valueInput) (*apiv1.WriteResponse, error) {
	switch {
	case v.large != nil:
		return c.sendLarge(ctx, client, put, v)
	case c.signKey != "":
		put.Value = v.small
		return c.writeBatch(ctx, client, []*apiv1.Op{{Op: &apiv1.Op_Put{Put: put}}})
	}
	put.Value = v.small
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	w, err := client.KV.Put(ctx, connect.NewRequest(put))
	if err != nil {
		return nil, err
	}
	return w.Msg, nil
}

func (c *cli) sendLarge(ctx context.Context, client *agent.Client, put *apiv1.PutRequest, v io.Reader) (*apiv1.WriteResponse, error) {
	ctx, cancel := c.streaming(ctx)
	defer cancel()
	if c.signKey == "" {
		return client.Upload(ctx, put, v)
	}
	key, err := loadSignKey(c.signKey)
	if err != nil {
		return nil, err
	}
	network, err := c.networkOfConfig()
	if err != nil {
		return nil, err
	}
	return client.UploadSigned(ctx, key, network, put, v)
}

// fetch opens the value of an entry that was listed, whatever its size.
func fetch(ctx context.Context, client *agent.Client, e *apiv1.Entry) (io.ReadCloser, error) {
	if !e.GetLarge() {
		return io.NopCloser(bytes.NewReader(e.GetValue())), nil
	}
	_, r, err := client.Download(ctx, e.GetPath(), e.GetVersion())
	return r, err
}

var errUnchanged = errors.New("the store shows it already")

// unlessSame reads a large value, and fails with errUnchanged at its end if it is the same as one with this sum: what
// the store calls a large value by.
type unlessSame struct {
	io.Reader
	same func(sum [sha256.Size]byte) bool
	list record.ChunkList
	rest []byte // of a chunk
}

// Seek goes back to the beginning, if the value can be read again.
func (u *unlessSame) Seek(offset int64, whence int) (int64, error) {
	again, ok := u.Reader.(io.Seeker)
	if !ok {
		return 0, errOnce
	}
	u.list, u.rest = record.ChunkList{}, nil
	return again.Seek(offset, whence)
}

func (u *unlessSame) Read(p []byte) (int, error) {
	if len(u.rest) == 0 {
		var err error
		if u.rest, err = record.ReadChunk(u.Reader); err != nil {
			return 0, err
		}
		if len(u.rest) == 0 {
			if u.same(sha256.Sum256(u.list.Encode())) {
				return 0, errUnchanged
			}
			return 0, io.EOF
		}
		u.list.Size += uint64(len(u.rest))
		u.list.Chunks = append(u.list.Chunks, record.ChunkID(u.rest))
	}
	n := copy(p, u.rest)
	u.rest = u.rest[n:]
	return n, nil
}

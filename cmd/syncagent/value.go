package main

import (
	"bytes"
	"context"
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
	var first bytes.Buffer
	n, err := io.CopyN(&first, r, record.MaxInlineValue+1)
	switch {
	case n <= record.MaxInlineValue && errors.Is(err, io.EOF):
		return &valueInput{small: first.Bytes(), size: n}, nil
	case err != nil:
		return nil, fmt.Errorf("read the value: %w", err)
	}
	return &valueInput{large: io.MultiReader(&first, r)}, nil
}

func (v *valueInput) Read(p []byte) (int, error) {
	n, err := v.large.Read(p)
	v.size += int64(n)
	return n, err
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

func (c *cli) sendLarge(ctx context.Context, client *agent.Client, put *apiv1.PutRequest, v *valueInput) (*apiv1.WriteResponse, error) {
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
	// It may have to be sent again, and a pipe can be read but once.
	whole, err := io.ReadAll(v)
	if err != nil {
		return nil, fmt.Errorf("read the value: %w", err)
	}
	return client.UploadSigned(ctx, key, network, put, bytes.NewReader(whole))
}

// fetch opens the value of an entry that was listed, whatever its size.
func fetch(ctx context.Context, client *agent.Client, e *apiv1.Entry) (io.ReadCloser, error) {
	if !e.GetLarge() {
		return io.NopCloser(bytes.NewReader(e.GetValue())), nil
	}
	_, r, err := client.Download(ctx, e.GetPath(), e.GetVersion())
	return r, err
}

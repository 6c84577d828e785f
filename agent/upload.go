package agent

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"time"

	"connectrpc.com/connect"

	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore/record"
)

// Upload writes one path with what r gives, of any size. Put has no value.
func (c *Client) Upload(ctx context.Context, put *apiv1.PutRequest, r io.Reader) (*apiv1.WriteResponse, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // an upload that failed here leaves nothing there
	stream := c.KV.Upload(ctx)
	err := stream.Send(&apiv1.UploadRequest{Put: put})
	if err == nil {
		err = eachPiece(r, func(piece []byte) error { return stream.Send(&apiv1.UploadRequest{Data: piece}) })
	}
	return finishUpload(stream, err)
}

// finishUpload ends an upload. When the agent ended it first, its answer says why.
func finishUpload(stream *connect.ClientStreamForClient[apiv1.UploadRequest, apiv1.WriteResponse], err error) (*apiv1.WriteResponse, error) {
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	r, err := stream.CloseAndReceive()
	if err != nil {
		return nil, err
	}
	return r.Msg, nil
}

// eachPiece calls fn for every chunk of what r gives; only the last may be shorter than the others.
func eachPiece(r io.Reader, fn func([]byte) error) error {
	for {
		piece, err := record.ReadChunk(r)
		if err != nil {
			return fmt.Errorf("read the value: %w", err)
		}
		if len(piece) == 0 {
			return nil
		}
		if err := fn(piece); err != nil {
			return err
		}
	}
}

// UploadSigned is Upload of more than 256 KiB in a write that key signs: see WriteSigned. When somebody else writes the path meanwhile, the
// value is sent again if r is an io.Seeker that goes back to its beginning.
func (c *Client) UploadSigned(ctx context.Context, key ed25519.PrivateKey, network record.NetworkID, put *apiv1.PutRequest, r io.Reader) (*apiv1.WriteResponse, error) {
	entries, err := entriesOf([]*apiv1.Op{{Op: &apiv1.Op_Put{Put: put}}}, time.Now())
	if err != nil {
		return nil, err
	}
	e := entries[0]
	e.Kind = record.KindChunked
	again, _ := r.(io.Seeker)
	for attempt := 1; ; attempt++ {
		w, err := c.uploadSigned(ctx, key, network, put, e, r)
		if failed := ErrorOf(err); failed == nil || failed.Code != CodePrecondition || attempt == signAttempts || again == nil {
			return w, err
		}
		if _, cannot := again.Seek(0, io.SeekStart); cannot != nil {
			return w, err
		}
	}
}

func (c *Client) uploadSigned(ctx context.Context, key ed25519.PrivateKey, network record.NetworkID, put *apiv1.PutRequest, e *record.Entry, r io.Reader) (*apiv1.WriteResponse, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	network, hlc, err := c.clock(ctx, network, e.Path)
	if err != nil {
		return nil, err
	}
	stream := c.KV.Upload(ctx)
	err = stream.Send(&apiv1.UploadRequest{Put: put, Permit: permitFor(key, network, e.Path, hlc)})
	var list record.ChunkList
	if err == nil {
		err = eachPiece(r, func(piece []byte) error {
			list.Size += uint64(len(piece))
			list.Chunks = append(list.Chunks, record.ChunkID(piece))
			return stream.Send(&apiv1.UploadRequest{Data: piece})
		})
	}
	if err == nil {
		e.Value = list.Encode()
		var w *record.Write
		if w, err = c.sign(ctx, key, network, []*record.Entry{e}); err == nil {
			err = stream.Send(&apiv1.UploadRequest{Relay: &apiv1.RelayRequest{Write: w.Append(nil), Entries: [][]byte{e.Encode()}}})
		}
	}
	return finishUpload(stream, err)
}

// Download reads a path, or a version of it, in pieces. The reader fails if not all of the value comes.
func (c *Client) Download(ctx context.Context, path, version string) (*apiv1.Entry, io.ReadCloser, error) {
	ctx, cancel := context.WithCancel(ctx)
	stream, err := c.KV.Download(ctx, connect.NewRequest(&apiv1.DownloadRequest{Path: path, Version: version}))
	if err == nil && !stream.Receive() {
		if err = stream.Err(); err == nil {
			err = io.ErrUnexpectedEOF
		}
	}
	if err != nil {
		cancel()
		return nil, nil, err
	}
	d := &download{stream: stream, cancel: cancel, rest: stream.Msg().GetData()}
	e := stream.Msg().GetEntry()
	d.left = e.GetSize()
	return e, d, nil
}

// download reads the messages of a value.
type download struct {
	stream *connect.ServerStreamForClient[apiv1.DownloadResponse]
	cancel context.CancelFunc
	rest   []byte
	left   int64 // bytes of the value that were not read
}

func (d *download) Read(p []byte) (int, error) {
	for len(d.rest) == 0 {
		if !d.stream.Receive() {
			switch err := d.stream.Err(); {
			case err != nil:
				return 0, err
			case d.left > 0:
				return 0, io.ErrUnexpectedEOF
			}
			return 0, io.EOF
		}
		d.rest = d.stream.Msg().GetData()
	}
	n := copy(p, d.rest)
	d.rest, d.left = d.rest[n:], d.left-int64(n)
	return n, nil
}

func (d *download) Close() error {
	d.cancel()
	return d.stream.Close()
}

package agent

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"

	"connectrpc.com/connect"

	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore"
	"syncagent/crdtstore/record"
)

// Values over 256 KiB go through the API in pieces: none is ever whole in memory.

// take makes what r gives the value of op, in the store's chunks if it is large. Done is called when the write was made,
// or given up.
func (k *kv) take(ctx context.Context, op *crdtstore.Op, r io.Reader) (done func(), err error) {
	in := &arriving{Reader: r}
	var first bytes.Buffer
	n, err := io.CopyN(&first, in, record.MaxInlineValue+1)
	if n <= record.MaxInlineValue && errors.Is(err, io.EOF) {
		op.Value = first.Bytes()
		return func() {}, nil
	}
	if err == nil {
		if op.Upload, err = k.store.Upload(ctx, op.Path, io.MultiReader(&first, in)); err == nil {
			return op.Upload.Close, nil
		}
	}
	if errors.Is(in.failed, os.ErrDeadlineExceeded) {
		return nil, &Error{Code: CodeBadRequest, Message: "the value came too slowly; nothing was written", Err: err,
			Hint: "send at least 1 KiB a second, without pauses of more than 30 s"}
	}
	if _, ours := errors.AsType[*Error](in.failed); in.failed != nil && !ours {
		return nil, &Error{Code: CodeBadRequest, Message: "the value broke off; nothing was written", Err: err}
	}
	return nil, err
}

// arriving remembers whether it was the caller's side that failed.
type arriving struct {
	io.Reader
	failed error
}

func (a *arriving) Read(p []byte) (int, error) {
	n, err := a.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		a.failed = err
	}
	return n, err
}

// Upload serves writes of values of any size.
func (k *kv) Upload(ctx context.Context, stream *connect.ClientStream[apiv1.UploadRequest]) (*connect.Response[apiv1.WriteResponse], error) {
	in := &uploadReader{ctx: ctx, stream: stream}
	first, err := in.receive()
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if first.GetPut() == nil || len(first.GetPut().GetValue()) > 0 {
		return nil, badRequest("the first message of an upload says what to write, in put, without a value")
	}
	op, err := opOfPut(first.GetPut(), k.now())
	signed := first.GetPermit() != nil
	switch { // before the value comes
	case err != nil:
	case first.GetRelay() != nil:
		err = badRequest("relay is for the last message of an upload; a client that signs begins with a permit")
	case signed:
		err = k.permitted(op.Path, first.GetPermit())
	default:
		err = k.mayCommit(ctx, []crdtstore.Op{op})
	}
	if err != nil {
		return nil, err
	}
	in.rest = first.GetData()
	done, err := k.take(ctx, &op, in)
	if err != nil {
		return nil, err
	}
	defer done()
	switch {
	case signed && in.relay == nil:
		return nil, badRequest("the last message brings no write that the client signed")
	case signed:
		return k.relay(ctx, in.relay)
	case in.relay != nil:
		return nil, badRequest("the first message brought no permit")
	}
	return k.write(ctx, []crdtstore.Op{op})
}

// uploadReader gives the value that the messages of an upload carry.
type uploadReader struct {
	ctx    context.Context //nolint:containedctx // lives as long as the one call it serves
	stream *connect.ClientStream[apiv1.UploadRequest]
	rest   []byte
	relay  *apiv1.RelayRequest // from the last message
}

func (u *uploadReader) receive() (*apiv1.UploadRequest, error) {
	came := awaitPiece(u.ctx)
	if !u.stream.Receive() {
		if err := u.stream.Err(); err != nil {
			return nil, err
		}
		return nil, io.EOF
	}
	came(len(u.stream.Msg().GetData()))
	return u.stream.Msg(), refuseUnknown(u.stream.Msg())
}

func (u *uploadReader) Read(p []byte) (int, error) {
	for len(u.rest) == 0 {
		m, err := u.receive()
		switch {
		case err != nil:
			return 0, err
		case m.GetPut() != nil || m.GetPermit() != nil:
			return 0, badRequest("put and permit are for the first message of an upload")
		case u.relay != nil:
			return 0, badRequest("relay is for the last message of an upload")
		}
		u.rest, u.relay = m.GetData(), m.GetRelay()
	}
	n := copy(p, u.rest)
	u.rest = u.rest[n:]
	return n, nil
}

// Download serves a value in pieces.
func (k *kv) Download(ctx context.Context, r *connect.Request[apiv1.DownloadRequest], stream *connect.ServerStream[apiv1.DownloadResponse]) error {
	if err := refuseUnknown(r.Msg); err != nil {
		return err
	}
	item, err := k.version(ctx, r.Msg.GetPath(), r.Msg.GetVersion())
	if err != nil {
		return err
	}
	ctx, cancel := k.streaming(ctx)
	defer cancel()
	content := k.store.Content(&item)
	defer content.Close() //nolint:errcheck // read only
	l := labels{policy: k.store.Policy()}
	message := &apiv1.DownloadResponse{Entry: l.entry(&item)}
	message.Entry.Value = nil
	for {
		if message.Data, err = record.ReadChunk(content); err != nil {
			return err
		}
		if len(message.Data) == 0 && message.Entry == nil {
			return nil
		}
		if err := send(ctx, stream, message); err != nil {
			return streamError(ctx, err)
		}
		message.Entry = nil
	}
}

// version gives what a path shows with its value, or one of its versions.
func (k *kv) version(ctx context.Context, path, version string) (crdtstore.Item, error) {
	want, err := preconditionOf(version, false)
	if err != nil {
		return crdtstore.Item{}, err
	}
	if want == nil {
		return k.get(ctx, path, true)
	}
	items, err := k.history(ctx, path, true)
	if err != nil {
		return crdtstore.Item{}, err
	}
	for _, item := range items {
		if sameVersion(*want, item.Version) {
			return item, restorable(&item, version)
		}
	}
	return crdtstore.Item{}, unknownVersion(path, version)
}

// restorable tells why a version has no value to give.
func restorable(i *crdtstore.Item, version string) error {
	switch {
	case i.Deleted:
		return &Error{Code: CodeBadRequest, Message: fmt.Sprintf("version %s of %s is a delete or has expired", version, i.Path),
			Hint: "syncagent rm deletes; syncagent history shows which versions have a value"}
	case i.Size < 0:
		return &Error{Code: CodeNotFound, Message: fmt.Sprintf("version %s of %s is known, but its value is no longer held here", version, i.Path),
			Hint: "superseded values are kept for store.history; another agent may keep them longer"}
	}
	return nil
}

// tooLargeFor refuses to put a large value into one message.
func tooLargeFor(i *crdtstore.Item) error {
	return &Error{Code: CodeTooLarge, Message: fmt.Sprintf("the value of %s has %d bytes, too many for one answer", i.Path, i.Size),
		Hint: "Download, syncagent get, and GET " + rawPrefix + i.Path + " give it in pieces"}
}

// largeID names a large value by its content.
func largeID(i *crdtstore.Item) []byte {
	sum := sha256.Sum256(record.ChunkList{Size: uint64(i.Size), Chunks: i.Chunks}.Encode())
	return sum[:]
}

package agent

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"

	"connectrpc.com/connect"

	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore"
	"syncagent/crdtstore/record"
)

// reading is what a caller sees at and below a prefix, in one state of the store.
type reading struct {
	snapshot
	prefix string
	sees   func(path string) bool
	all    bool // sees everything that the snapshot shows
}

var errFound = errors.New("found")

// open checks a prefix and opens a snapshot for reading below it. A prefix that may not be read is denied unless the
// caller sees something below it: rights may begin further down.
func (k *kv) open(ctx context.Context, prefix string) (*reading, error) {
	clean, err := record.CleanPrefix(prefix)
	if err != nil {
		return nil, err
	}
	p := k.store.Policy()
	if p == nil {
		return nil, crdtstore.ErrNoPolicy
	}
	denied := fmt.Errorf("read %s: %w", clean, crdtstore.ErrDenied)
	if record.Reserved(clean) {
		return nil, denied
	}
	snap, err := k.store.Snapshot()
	if err != nil {
		return nil, err
	}
	c := callerOf(ctx)
	b := &reading{snapshot: snap, prefix: clean, all: c.rights.reads(p, clean), sees: func(path string) bool { return c.rights.reads(p, path) }}
	if clean == "/" || b.all && p.MayReadPath(k.self, clean) {
		return b, nil
	}
	err = b.list(ctx, false, func(crdtstore.Item) error { return errFound })
	if errors.Is(err, errFound) {
		return b, nil
	}
	b.Close()
	return nil, cmp.Or(err, denied)
}

// list calls fn for every entry that the caller sees, until ctx ends: nobody is left to be told, or the store closes.
func (b *reading) list(ctx context.Context, values bool, fn func(crdtstore.Item) error) error {
	return b.List(b.prefix, values, func(i crdtstore.Item) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if record.Reserved(i.Path) || !b.all && !b.sees(i.Path) {
			return nil
		}
		return fn(i)
	})
}

// count is the number of entries that list would tell. To who sees all the store can tell it faster.
func (b *reading) count(ctx context.Context) (n int64, err error) {
	if !b.all {
		err = b.list(ctx, false, func(crdtstore.Item) error { n++; return nil })
		return n, err
	}
	if n, err = b.Count(b.prefix); err != nil || b.prefix != "/" {
		return n, err
	}
	hidden, err := b.Count("/.sys")
	return n - hidden, err
}

// Count serves the number of entries below a prefix.
func (k *kv) Count(ctx context.Context, r *connect.Request[apiv1.CountRequest]) (*connect.Response[apiv1.CountResponse], error) {
	b, err := k.open(ctx, r.Msg.GetPrefix())
	if err != nil {
		return nil, err
	}
	defer b.Close()
	n, err := b.count(ctx)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&apiv1.CountResponse{Count: n}), nil
}

// List serves the entries below a prefix.
func (k *kv) List(ctx context.Context, r *connect.Request[apiv1.ListRequest], stream *connect.ServerStream[apiv1.ListResponse]) error {
	if err := refuseUnknown(r.Msg); err != nil {
		return err
	}
	name, value := r.Msg.GetIndex(), r.Msg.GetIndexValue()
	indexed := name != "" || value != ""
	if indexed {
		if _, err := k.indexes.wait(ctx, name, 0); err != nil {
			return err
		}
	}
	b, err := k.open(ctx, r.Msg.GetPrefix())
	if err != nil {
		return err
	}
	defer b.Close()
	ctx, cancel := k.streaming(ctx)
	defer cancel()
	l := labels{policy: k.store.Policy()}
	message, size := &apiv1.ListResponse{Cursor: cursorFor(callerOf(ctx), b.Cursor())}, 0
	list := b.list
	if indexed {
		list = func(ctx context.Context, values bool, fn func(crdtstore.Item) error) error {
			return k.indexes.list(ctx, name, value, b, values, fn)
		}
	}
	err = list(ctx, r.Msg.GetValues(), func(i crdtstore.Item) error {
		if size >= streamBytes || len(message.Entries) >= streamEntries {
			if err := send(ctx, stream, message); err != nil {
				return err
			}
			message, size = &apiv1.ListResponse{}, 0
		}
		i.Value = bytes.Clone(i.Value) // the store's until fn returns
		message.Entries = append(message.Entries, l.entry(&i))
		size += len(i.Path) + len(i.Value) + 256
		return nil
	})
	if err != nil {
		return streamError(ctx, err)
	}
	return send(ctx, stream, message)
}

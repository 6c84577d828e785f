package agent

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"connectrpc.com/connect"

	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore"
	"syncagent/crdtstore/record"
)

// A message of a stream is sent when it has this much.
const (
	streamBytes   = 256 << 10
	streamEntries = 1000
)

// kv serves the KV service. Its callers act as this agent: the store signs their writes and judges them by the policy;
// reads are judged here.
type kv struct {
	self    record.PublicKey
	network record.NetworkID
	store   store
	stop    context.Context //nolint:containedctx // ends all streams when the agent stops; it is no request's context
	now     func() time.Time
	name    string
	peers   network
}

func (k *kv) Put(ctx context.Context, r *connect.Request[apiv1.PutRequest]) (*connect.Response[apiv1.WriteResponse], error) {
	op, err := opOfPut(r.Msg, k.now())
	if err != nil {
		return nil, err
	}
	return k.write(ctx, []crdtstore.Op{op})
}

func (k *kv) Delete(ctx context.Context, r *connect.Request[apiv1.DeleteRequest]) (*connect.Response[apiv1.WriteResponse], error) {
	op, err := opOfDelete(r.Msg)
	if err != nil {
		return nil, err
	}
	return k.write(ctx, []crdtstore.Op{op})
}

func (k *kv) Batch(ctx context.Context, r *connect.Request[apiv1.BatchRequest]) (*connect.Response[apiv1.WriteResponse], error) {
	ops, err := opsOfBatch(r.Msg, k.now())
	if err != nil {
		return nil, err
	}
	return k.write(ctx, ops)
}

func (k *kv) write(ctx context.Context, ops []crdtstore.Op) (*connect.Response[apiv1.WriteResponse], error) {
	v, err := k.store.Write(ctx, ops)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&apiv1.WriteResponse{
		Version: v.WriteString(), Hlc: v.HLC.String(), Paths: int64(len(ops)),
	}), nil
}

// get reads one path for a caller, or tells that it may not.
func (k *kv) get(path string, value bool) (crdtstore.Item, error) {
	snap, err := k.readable(path)
	if err != nil {
		return crdtstore.Item{}, err
	}
	defer snap.Close()
	return snap.Get(path, value)
}

// readable opens a snapshot for reading one path, if the caller may.
func (k *kv) readable(path string) (snapshot, error) {
	if err := record.CheckPath(path); err != nil {
		return nil, err
	}
	p := k.store.Policy()
	if p == nil {
		return nil, crdtstore.ErrNoPolicy
	}
	if record.Reserved(path) || !p.MayReadPath(k.self, path) {
		return nil, fmt.Errorf("read %s: %w", path, crdtstore.ErrDenied)
	}
	return k.store.Snapshot()
}

func (k *kv) Get(_ context.Context, r *connect.Request[apiv1.GetRequest]) (*connect.Response[apiv1.GetResponse], error) {
	item, err := k.get(r.Msg.GetPath(), !r.Msg.GetWithoutValue())
	if err != nil {
		return nil, err
	}
	l := labels{policy: k.store.Policy()}
	e := l.entry(&item)
	if e.Value == nil && !r.Msg.GetWithoutValue() {
		e.Value = []byte{} // an empty value is there, and says so
	}
	return connect.NewResponse(&apiv1.GetResponse{Entry: e}), nil
}

// open checks a prefix and opens a snapshot for reading below it. A prefix that the caller may not read is denied
// unless something below it is visible: rights may begin further down.
func (k *kv) open(prefix string) (string, snapshot, error) {
	clean, err := record.CleanPrefix(prefix)
	if err != nil {
		return "", nil, err
	}
	p := k.store.Policy()
	if p == nil {
		return "", nil, crdtstore.ErrNoPolicy
	}
	if record.Reserved(clean) {
		return "", nil, fmt.Errorf("read %s: %w", clean, crdtstore.ErrDenied)
	}
	snap, err := k.store.Snapshot()
	if err != nil {
		return "", nil, err
	}
	if clean == "/" || p.MayReadPath(k.self, clean) {
		return clean, snap, nil
	}
	n, err := snap.Count(clean)
	if err == nil && n == 0 {
		err = fmt.Errorf("read %s: %w", clean, crdtstore.ErrDenied)
	}
	if err != nil {
		snap.Close()
		return "", nil, err
	}
	return clean, snap, nil
}

func (k *kv) Count(_ context.Context, r *connect.Request[apiv1.CountRequest]) (*connect.Response[apiv1.CountResponse], error) {
	prefix, snap, err := k.open(r.Msg.GetPrefix())
	if err != nil {
		return nil, err
	}
	defer snap.Close()
	n, err := snap.Count(prefix)
	if err != nil {
		return nil, err
	}
	if prefix == "/" {
		hidden, err := snap.Count("/.sys")
		if err != nil {
			return nil, err
		}
		n -= hidden
	}
	return connect.NewResponse(&apiv1.CountResponse{Count: n}), nil
}

func (k *kv) List(ctx context.Context, r *connect.Request[apiv1.ListRequest], stream *connect.ServerStream[apiv1.ListResponse]) error {
	if err := refuseUnknown(r.Msg); err != nil {
		return err
	}
	prefix, snap, err := k.open(r.Msg.GetPrefix())
	if err != nil {
		return err
	}
	defer snap.Close()
	ctx, cancel := k.streaming(ctx)
	defer cancel()
	l := labels{policy: k.store.Policy()}
	message, size := &apiv1.ListResponse{Cursor: snap.Cursor()}, 0
	err = snap.List(prefix, r.Msg.GetValues(), func(i crdtstore.Item) error {
		if record.Reserved(i.Path) {
			return nil
		}
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

func (k *kv) Watch(ctx context.Context, r *connect.Request[apiv1.WatchRequest], stream *connect.ServerStream[apiv1.WatchResponse]) error {
	if err := refuseUnknown(r.Msg); err != nil {
		return err
	}
	return k.watch(ctx, r.Msg, func(ctx context.Context, m *apiv1.WatchResponse) error { return send(ctx, stream, m) })
}

// watch checks a request and hands its events to out until ctx ends, the agent stops, or out fails.
func (k *kv) watch(ctx context.Context, r *apiv1.WatchRequest, out func(context.Context, *apiv1.WatchResponse) error) error {
	if n := len(r.GetPrefixes()); n == 0 || n > maxWatchPrefixes {
		return badRequest("want 1 to %d prefixes, not %d", maxWatchPrefixes, n)
	}
	prefixes := make([]string, len(r.GetPrefixes()))
	for i, prefix := range r.GetPrefixes() {
		clean, snap, err := k.open(prefix)
		if err != nil {
			return err
		}
		snap.Close()
		prefixes[i] = clean
	}
	ctx, cancel := k.streaming(ctx)
	defer cancel()
	w := watcher{ctx: ctx, store: k.store, out: out, synced: r.GetSince() != "", message: &apiv1.WatchResponse{}}
	err := k.store.Watch(ctx, watchOptions{prefixes: prefixes, since: r.GetSince(), values: r.GetValues()}, w.event)
	return streamError(ctx, err)
}

const maxWatchPrefixes = 256

// watcher gathers events into messages: one message a write once the present state is through.
type watcher struct {
	ctx     context.Context //nolint:containedctx // lives as long as the one call it serves
	store   store
	out     func(context.Context, *apiv1.WatchResponse) error
	synced  bool
	labels  labels
	message *apiv1.WatchResponse
	size    int
}

func (w *watcher) event(e crdtstore.Event) error {
	if e.Type == crdtstore.EventPolicy || w.labels.policy == nil {
		w.labels = labels{policy: w.store.Policy()}
	}
	hidden := record.Reserved(e.Item.Path)
	if hidden && e.More {
		return nil
	}
	switch e.Type {
	case crdtstore.EventReset:
		w.synced = false
	case crdtstore.EventSynced:
		w.synced = true
	}
	if !hidden {
		e.Item.Value = bytes.Clone(e.Item.Value) // the store's until this returns
		w.message.Events = append(w.message.Events, w.labels.event(&e))
		w.size += len(e.Item.Path) + len(e.Item.Value) + 320
	} else if n := len(w.message.Events); n > 0 {
		w.message.Events[n-1].More = false // the write's last event was not for this caller
	}
	settled := w.synced && !e.More
	if len(w.message.Events) > 0 && (settled || w.size >= streamBytes || e.Type == crdtstore.EventReset) {
		return w.flush()
	}
	return nil
}

func (w *watcher) flush() error {
	err := w.out(w.ctx, w.message)
	w.message, w.size = &apiv1.WatchResponse{}, 0
	return err
}

// streaming gives a context that also ends when the agent stops, and frees the connection of its read deadline.
func (k *kv) streaming(ctx context.Context) (context.Context, context.CancelFunc) {
	clearReadDeadline(ctx)
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(k.stop, func() { cancel(crdtstore.ErrClosed) })
	return ctx, func() { stop(); cancel(nil) }
}

// streamError tells a caller whose stream was ended by us why.
func streamError(ctx context.Context, err error) error {
	if err != nil && context.Cause(ctx) == crdtstore.ErrClosed { //nolint:errorlint // set by streaming, never wrapped
		return fmt.Errorf("agent stops: %w", crdtstore.ErrClosed)
	}
	return err
}

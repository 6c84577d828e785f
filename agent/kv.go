package agent

import (
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

// kv serves the KV service. The store signs writes as this agent and judges this agent by the policy; callers are judged
// here.
type kv struct {
	self    record.PublicKey
	network record.NetworkID
	store   store
	stop    context.Context //nolint:containedctx // ends all streams when the agent stops; it is no request's context
	now     func() time.Time
	name    string
	peers   network

	progress progress
	indexes  *indexSet
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
	v, err := k.commit(ctx, ops)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&apiv1.WriteResponse{
		Version: v.WriteString(), Hlc: v.HLC.String(), Paths: int64(len(ops)),
	}), nil
}

// mayCommit tells a caller that may not write so, before its value comes.
func (k *kv) mayCommit(ctx context.Context, ops []crdtstore.Op) error {
	p := k.store.Policy()
	if err := callerOf(ctx).mayWrite(p, ops); err != nil {
		return err
	}
	for i := range ops {
		if !p.MayWritePath(k.self, ops[i].Path) {
			return fmt.Errorf("write %s: %w", ops[i].Path, crdtstore.ErrDenied)
		}
	}
	return nil
}

// commit is the one way of callers to the store's Write.
func (k *kv) commit(ctx context.Context, ops []crdtstore.Op) (record.Version, error) {
	if err := callerOf(ctx).mayWrite(k.store.Policy(), ops); err != nil {
		return record.Version{}, err
	}
	return k.store.Write(ctx, ops)
}

// get reads one path for a caller, or tells that it may not.
func (k *kv) get(ctx context.Context, path string, value bool) (crdtstore.Item, error) {
	snap, err := k.readable(ctx, path)
	if err != nil {
		return crdtstore.Item{}, err
	}
	defer snap.Close()
	return snap.Get(path, value)
}

// readable opens a snapshot for reading one path, if the caller may.
func (k *kv) readable(ctx context.Context, path string) (snapshot, error) {
	if err := record.CheckPath(path); err != nil {
		return nil, err
	}
	p := k.store.Policy()
	if p == nil {
		return nil, crdtstore.ErrNoPolicy
	}
	if record.Reserved(path) || !k.reads(ctx, p, path) {
		return nil, fmt.Errorf("read %s: %w", path, crdtstore.ErrDenied)
	}
	return k.store.Snapshot()
}

// reads tells whether both the caller and this agent may read a path or all below a prefix.
func (k *kv) reads(ctx context.Context, p policy, path string) bool {
	return p.MayReadPath(k.self, path) && callerOf(ctx).rights.reads(p, path)
}

func (k *kv) Get(ctx context.Context, r *connect.Request[apiv1.GetRequest]) (*connect.Response[apiv1.GetResponse], error) {
	item, err := k.get(ctx, r.Msg.GetPath(), !r.Msg.GetWithoutValue())
	if err != nil {
		return nil, err
	}
	if item.Chunks != nil && !r.Msg.GetWithoutValue() {
		return nil, tooLargeFor(&item)
	}
	l := labels{policy: k.store.Policy()}
	e := l.entry(&item)
	if e.Value == nil && !r.Msg.GetWithoutValue() {
		e.Value = []byte{} // an empty value is there, and says so
	}
	return connect.NewResponse(&apiv1.GetResponse{Entry: e}), nil
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
		b, err := k.open(ctx, prefix)
		if err != nil {
			return err
		}
		b.Close()
		prefixes[i] = b.prefix
	}
	ctx, cancel := k.streaming(ctx)
	defer cancel()
	w := newWatcher(ctx, k.store, out)
	return streamError(ctx, w.run(watchOptions{prefixes: prefixes, since: r.GetSince(), values: r.GetValues(), durable: r.GetDurable()}))
}

const maxWatchPrefixes = 256

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

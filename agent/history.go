package agent

import (
	"context"
	"fmt"

	"connectrpc.com/connect"

	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore"
	"syncagent/crdtstore/record"
)

const (
	defaultHistory = 100
	maxHistory     = 1000
)

// History serves the known versions of one path.
func (k *kv) History(ctx context.Context, r *connect.Request[apiv1.HistoryRequest]) (*connect.Response[apiv1.HistoryResponse], error) {
	limit := int(r.Msg.GetLimit())
	switch {
	case limit == 0:
		limit = defaultHistory
	case limit < 0 || limit > maxHistory:
		return nil, badRequest("limit: want 1 to %d, not %d", maxHistory, limit)
	}
	only, err := preconditionOf(r.Msg.GetVersion(), false)
	if err != nil {
		return nil, err
	}
	items, err := k.history(ctx, r.Msg.GetPath(), r.Msg.GetValues())
	if err != nil {
		return nil, err
	}
	out, l, size := &apiv1.HistoryResponse{}, labels{policy: k.store.Policy()}, 0
	for i := range items {
		if only != nil && !sameVersion(*only, items[i].Version) {
			continue
		}
		if len(out.Entries) == limit || size > record.MaxWriteBytes {
			out.More = true
			break
		}
		size += len(items[i].Value)
		out.Entries = append(out.Entries, l.past(&items[i]))
	}
	if len(out.Entries) == 0 {
		return nil, unknownVersion(r.Msg.GetPath(), r.Msg.GetVersion())
	}
	return connect.NewResponse(out), nil
}

// past is entry for a version of history.
func (l *labels) past(i *crdtstore.Item) *apiv1.Entry {
	e := l.entry(i)
	if i.Size < 0 {
		e.Size, e.Dropped = 0, true
	}
	return e
}

// history reads the versions of a path for a caller, or tells that it may not.
func (k *kv) history(ctx context.Context, path string, values bool) ([]crdtstore.Item, error) {
	snap, err := k.readable(ctx, path)
	if err != nil {
		return nil, err
	}
	defer snap.Close()
	return snap.History(path, values)
}

// Restore serves the way back to an earlier version: a new write with the same value and mode. An expiry is not taken
// over: it may have passed, and the new write is another one.
func (k *kv) Restore(ctx context.Context, r *connect.Request[apiv1.RestoreRequest]) (*connect.Response[apiv1.WriteResponse], error) {
	path := r.Msg.GetPath()
	if r.Msg.GetVersion() == "" {
		return nil, badRequest("name a version")
	}
	op := crdtstore.Op{Path: path}
	var err error
	if op.IfVersion, err = preconditionOf(r.Msg.GetIfVersion(), false); err != nil {
		return nil, err
	}
	if err := checkWritable(path); err != nil {
		return nil, err
	}
	item, err := k.version(ctx, path, r.Msg.GetVersion())
	if err != nil {
		return nil, err
	}
	op.Value, op.Mode = item.Value, item.Mode
	if item.Chunks != nil {
		if op.Upload, err = k.store.Reuse(&item); err != nil {
			return nil, err
		}
		defer op.Upload.Close()
	}
	return k.write(ctx, []crdtstore.Op{op})
}

// sameVersion compares where want may stand for any index of its write.
func sameVersion(want, have record.Version) bool {
	if want.Index == crdtstore.AnyIndex {
		want.Index = have.Index
	}
	return want == have
}

func unknownVersion(path, version string) error {
	return &Error{Code: CodeNotFound, Message: fmt.Sprintf("%s has no version %s here", path, version), Hint: "syncagent history lists the versions"}
}

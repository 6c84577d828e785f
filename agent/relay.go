package agent

import (
	"context"
	"errors"

	"connectrpc.com/connect"

	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore/record"
)

// Clock and Relay are for clients that sign their writes themselves. This agent judges a write by its author's rights,
// and can neither forge nor change it. So they are open to all callers: who brings a write does not count, and the time
// tells of a path no more than that somebody's clock runs ahead.

func (k *kv) Clock(_ context.Context, r *connect.Request[apiv1.ClockRequest]) (*connect.Response[apiv1.ClockResponse], error) {
	if n := len(r.Msg.GetPaths()); n == 0 || n > record.MaxSlots {
		return nil, badRequest("want 1 to %d paths, not %d", record.MaxSlots, n)
	}
	for _, path := range r.Msg.GetPaths() {
		if err := checkWritable(path); err != nil {
			return nil, err
		}
	}
	hlc, err := k.store.HLCFor(r.Msg.GetPaths())
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&apiv1.ClockResponse{Hlc: hlc.String(), Network: k.network.String()}), nil
}

func (k *kv) Relay(ctx context.Context, r *connect.Request[apiv1.RelayRequest]) (*connect.Response[apiv1.WriteResponse], error) {
	return k.relay(ctx, r.Msg)
}

func (k *kv) relay(ctx context.Context, r *apiv1.RelayRequest) (*connect.Response[apiv1.WriteResponse], error) {
	w, err := record.ParseWrite(r.GetWrite(), k.self)
	if err != nil {
		return nil, badRequest("write: %v", err)
	}
	if w.Sig == nil { // it would be taken for our own
		return nil, badRequest("write: it has no signature of its author")
	}
	for i, b := range r.GetEntries() {
		e, err := record.ParseEntry(b)
		if err != nil {
			return nil, badRequest("entry %d: %v", i+1, err)
		}
		if err := checkWritable(e.Path); err != nil {
			return nil, err
		}
	}
	v, err := k.store.Relay(ctx, w, r.GetEntries())
	if errors.Is(err, record.ErrFormat) {
		return nil, badRequest("write: %v", err)
	}
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&apiv1.WriteResponse{
		Version: v.WriteString(), Hlc: v.HLC.String(), Paths: int64(len(w.Slots)),
	}), nil
}

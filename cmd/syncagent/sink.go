package main

import (
	"context"
	"fmt"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"syncagent/agent"
	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore/record"
	"syncagent/sync/mirror"
)

// Write implements mirror.Sink.
func (s apiSource) Write(ctx context.Context, edits []mirror.Edit) (record.Version, error) {
	w, err := s.write(ctx, edits)
	if err != nil {
		switch e := agent.ErrorOf(err); e.Code {
		case agent.CodePrecondition:
			err = fmt.Errorf("%w: %w", mirror.ErrConflict, err)
		case agent.CodeDenied, agent.CodeTooLarge, agent.CodeBadPath, agent.CodeBadRequest:
			err = fmt.Errorf("%w: %w", mirror.ErrRefused, err)
		}
		return record.Version{}, err
	}
	v, _, err := record.ParseVersion(w.GetVersion()) // without an index: that of the first
	return v, err
}

func (s apiSource) write(ctx context.Context, edits []mirror.Edit) (*apiv1.WriteResponse, error) {
	ops := make([]*apiv1.Op, len(edits))
	for i := range edits {
		ops[i] = opOf(&edits[i])
	}
	if content := edits[0].Content; content != nil {
		return s.client.Upload(ctx, ops[0].GetPut(), content)
	}
	r, err := s.client.KV.Batch(ctx, connect.NewRequest(&apiv1.BatchRequest{Ops: ops}))
	if err != nil {
		return nil, err
	}
	return r.Msg, nil
}

// opOf translates an edit of a mirror.
func opOf(e *mirror.Edit) *apiv1.Op {
	shown := ""
	if !e.Shown.IsZero() {
		shown = e.Shown.String()
	}
	if e.Delete {
		op := deleteOp(e.Path)
		op.GetDelete().IfVersion = shown
		return op
	}
	put := &apiv1.PutRequest{Path: e.Path, Value: e.Value, IfVersion: shown, IfAbsent: shown == ""}
	if e.Mode != 0 {
		mode := uint32(e.Mode)
		put.Mode = &mode
	}
	if !e.Expires.IsZero() {
		put.Expiry = &apiv1.PutRequest_Expires{Expires: timestamppb.New(e.Expires)}
	}
	return &apiv1.Op{Op: &apiv1.Op_Put{Put: put}}
}

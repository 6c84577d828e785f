package agent

import (
	"context"
	"encoding/hex"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"syncagent/acl"
	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore"
	"syncagent/crdtstore/record"
)

// Log tells of the texts that the store keeps.
func (s *service) Log(ctx context.Context, _ *connect.Request[apiv1.LogRequest]) (*connect.Response[apiv1.LogResponse], error) {
	if err := callerOf(ctx).mayKnowPolicy(); err != nil {
		return nil, err
	}
	r := &apiv1.LogResponse{}
	p := s.store.Policy()
	for _, signed := range s.keptPolicies() {
		text := &apiv1.PolicyText{
			Signed: signed.Encode(), Serial: signed.Serial, Hash: hex.EncodeToString(signed.Hash[:]),
			InForce: p != nil && p.Hash() == signed.Hash, Revokes: int64(len(signed.File.Revoked)),
		}
		if t := s.store.PolicyTaken(signed.Hash); !t.IsZero() {
			text.Taken = timestamppb.New(t)
		}
		for _, sig := range signed.Signatures {
			text.Signers = append(text.Signers, sig.Admin.String())
		}
		r.Texts = append(r.Texts, text)
	}
	return connect.NewResponse(r), nil
}

// keptPolicies parses what the store keeps, which it parsed before it kept it.
func (s *service) keptPolicies() (kept []*acl.Signed) {
	for _, b := range s.store.Policies() {
		if signed, err := acl.ParseSigned(b); err == nil {
			kept = append(kept, signed)
		}
	}
	return kept
}

// Preview tells what another text would change here. Revocations of all texts count with it, as they would.
func (s *service) Preview(ctx context.Context, r *connect.Request[apiv1.PreviewRequest], stream *connect.ServerStream[apiv1.PreviewResponse]) error {
	if err := refuseUnknown(r.Msg); err != nil {
		return err
	}
	if err := callerOf(ctx).mayKnowAll(s.store.Policy(), "a preview"); err != nil {
		return err
	}
	file, err := acl.Parse(acl.Unsigned(r.Msg.GetText()))
	if err != nil {
		return &Error{Code: CodeBadPolicy, Message: err.Error(), Hint: rowOf(CodeBadPolicy).hint, Err: err}
	}
	next := acl.Compile(s.network, &acl.Signed{File: file, Network: s.network}, s.keptPolicies())
	snap, err := s.store.Snapshot()
	if err != nil {
		return err
	}
	defer snap.Close()
	clearReadDeadline(ctx)
	l := labels{policy: s.store.Policy()}
	out := batched[apiv1.PreviewResponse]{ctx: ctx, stream: stream, message: &apiv1.PreviewResponse{}}
	err = snap.Preview(ctx, next, func(c crdtstore.PathChange) error {
		change := &apiv1.PathChange{Path: c.Path}
		if c.Lost != nil {
			change.Lost = c.Lost.String()
		}
		if c.Now != nil {
			change.Now = l.entry(c.Now)
		}
		if c.Then != nil {
			change.Then = l.entry(c.Then)
		}
		out.message.Changes = append(out.message.Changes, change)
		return out.added(len(c.Path))
	})
	if err != nil {
		return err
	}
	return out.flush()
}

// Written tells what a key wrote.
func (s *service) Written(ctx context.Context, r *connect.Request[apiv1.WrittenRequest], stream *connect.ServerStream[apiv1.WrittenResponse]) error {
	if err := refuseUnknown(r.Msg); err != nil {
		return err
	}
	if err := callerOf(ctx).mayKnowAll(s.store.Policy(), "what a key wrote"); err != nil {
		return err
	}
	author, err := record.ParsePublicKey(r.Msg.GetAuthor())
	if err != nil {
		return badRequest("author: %v", err)
	}
	var since record.HLC
	if t := r.Msg.GetSince(); t != nil {
		if err := t.CheckValid(); err != nil {
			return badRequest("since: not a valid time")
		}
		since = record.NewHLC(t.AsTime())
	}
	snap, err := s.store.Snapshot()
	if err != nil {
		return err
	}
	defer snap.Close()
	clearReadDeadline(ctx)
	l := labels{policy: s.store.Policy()}
	out := batched[apiv1.WrittenResponse]{ctx: ctx, stream: stream, message: &apiv1.WrittenResponse{}}
	err = snap.Written(ctx, author, since, func(i crdtstore.Item, shown bool) error {
		out.message.Entries = append(out.message.Entries, &apiv1.WrittenEntry{Entry: l.entry(&i), Shown: shown})
		return out.added(len(i.Path))
	})
	if err != nil {
		return err
	}
	return out.flush()
}

// batched sends what is gathered in message when it has grown enough.
type batched[T any] struct {
	ctx     context.Context //nolint:containedctx // lives as long as the one call it serves
	stream  *connect.ServerStream[T]
	message *T
	items   int
	size    int
}

// added notes one more item in message, whose path has so many bytes.
func (b *batched[T]) added(path int) error {
	b.items++
	b.size += 2*path + 512
	if b.items < streamEntries && b.size < streamBytes {
		return nil
	}
	return b.flush()
}

func (b *batched[T]) flush() error {
	err := send(b.ctx, b.stream, b.message)
	b.message, b.items, b.size = new(T), 0, 0
	return err
}

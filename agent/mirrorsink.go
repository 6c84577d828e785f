package agent

import (
	"context"
	"errors"
	"fmt"
	"io"

	"syncagent/crdtstore"
	"syncagent/crdtstore/record"
	"syncagent/sync/mirror"
)

// write makes ops one write, the first of them with what content gives if it is not nil.
func (s storeSource) write(ctx context.Context, ops []crdtstore.Op, content io.Reader) (record.Version, error) {
	if content != nil {
		u, err := s.store.Upload(ctx, ops[0].Path, content)
		if err != nil {
			return record.Version{}, err
		}
		defer u.Close()
		ops[0].Upload = u
	}
	return s.store.Write(ctx, ops)
}

// Write implements mirror.Sink.
func (s storeSource) Write(ctx context.Context, edits []mirror.Edit) (record.Version, error) {
	ops := make([]crdtstore.Op, len(edits))
	for i, e := range edits {
		ops[i] = crdtstore.Op{
			Path: e.Path, Delete: e.Delete, Value: e.Value, Mode: e.Mode, Expires: e.Expires, IfVersion: &edits[i].Shown,
		}
	}
	v, err := s.write(ctx, ops, edits[0].Content)
	_, badPath := errors.AsType[*record.PathError](err)
	switch {
	case err == nil:
		return v, nil
	case errors.Is(err, crdtstore.ErrPrecondition):
		err = fmt.Errorf("%w: %w", mirror.ErrConflict, err)
	case badPath, errors.Is(err, crdtstore.ErrDenied), errors.Is(err, crdtstore.ErrTooLarge):
		err = fmt.Errorf("%w: %w", mirror.ErrRefused, err)
	}
	return record.Version{}, err
}

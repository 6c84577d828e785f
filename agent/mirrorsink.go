package agent

import (
	"context"
	"errors"
	"fmt"

	"syncagent/crdtstore"
	"syncagent/crdtstore/record"
	"syncagent/sync/mirror"
)

// Write implements mirror.Sink.
func (s storeSource) Write(ctx context.Context, edits []mirror.Edit) (record.Version, error) {
	ops := make([]crdtstore.Op, len(edits))
	for i, e := range edits {
		ops[i] = crdtstore.Op{
			Path: e.Path, Delete: e.Delete, Value: e.Value, Mode: e.Mode, Expires: e.Expires, IfVersion: &edits[i].Shown,
		}
	}
	v, err := s.store.Write(ctx, ops)
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

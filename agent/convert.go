package agent

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore"
	"syncagent/crdtstore/record"
)

// badRequest makes an error about wrong input.
func badRequest(format string, args ...any) error {
	return &Error{Code: CodeBadRequest, Message: fmt.Sprintf(format, args...)}
}

// opOfPut checks a put request and makes the store's operation of it.
func opOfPut(r *apiv1.PutRequest, now time.Time) (crdtstore.Op, error) {
	op := crdtstore.Op{Path: r.GetPath(), Value: r.GetValue()}
	if err := checkWritable(op.Path); err != nil {
		return op, err
	}
	if len(op.Value) > record.MaxInlineValue {
		return op, &Error{Code: CodeTooLarge, Message: fmt.Sprintf("value of %s: %d bytes, the limit here is %d", op.Path, len(op.Value), record.MaxInlineValue),
			Hint: "a larger one is written alone: by Upload, syncagent put PATH @FILE, or PUT " + rawPrefix + op.Path}
	}
	if r.Mode != nil {
		if *r.Mode == 0 || *r.Mode > 0o777 {
			return op, badRequest("mode of %s: want permission bits from 0001 to 0777, not %04o", op.Path, *r.Mode)
		}
		op.Mode = uint16(*r.Mode)
	}
	var err error
	if op.Expires, err = expiryOf(r, now); err != nil {
		return op, fmt.Errorf("expiry of %s: %w", op.Path, err)
	}
	op.IfVersion, err = preconditionOf(r.GetIfVersion(), r.GetIfAbsent())
	return op, err
}

func expiryOf(r *apiv1.PutRequest, now time.Time) (t time.Time, err error) {
	switch e := r.GetExpiry().(type) {
	case *apiv1.PutRequest_Expires:
		if err := e.Expires.CheckValid(); err != nil {
			return t, badRequest("not a valid time")
		}
		t = e.Expires.AsTime()
	case *apiv1.PutRequest_Ttl:
		if err := e.Ttl.CheckValid(); err != nil {
			return t, badRequest("not a valid duration")
		}
		t = now.Add(e.Ttl.AsDuration())
	default:
		return t, nil
	}
	if !t.After(now) {
		return t, badRequest("expiry must lie in the future")
	}
	return t, nil
}

// opOfDelete checks a delete request and makes the store's operation of it.
func opOfDelete(r *apiv1.DeleteRequest) (crdtstore.Op, error) {
	op := crdtstore.Op{Path: r.GetPath(), Delete: true, MustExist: !r.GetAllowMissing()}
	if err := checkWritable(op.Path); err != nil {
		return op, err
	}
	var err error
	op.IfVersion, err = preconditionOf(r.GetIfVersion(), false)
	return op, err
}

// opsOfBatch checks a batch as a whole.
func opsOfBatch(r *apiv1.BatchRequest, now time.Time) ([]crdtstore.Op, error) {
	if len(r.GetOps()) == 0 {
		return nil, badRequest("a batch needs at least one operation")
	}
	if n := len(r.GetOps()); n > record.MaxSlots {
		return nil, &Error{Code: CodeTooLarge, Message: fmt.Sprintf("batch of %d operations, the limit is %d", n, record.MaxSlots)}
	}
	ops := make([]crdtstore.Op, len(r.GetOps()))
	seen := make(map[string]struct{}, len(ops))
	for i, o := range r.GetOps() {
		var err error
		switch o := o.GetOp().(type) {
		case *apiv1.Op_Put:
			ops[i], err = opOfPut(o.Put, now)
		case *apiv1.Op_Delete:
			ops[i], err = opOfDelete(o.Delete)
		default:
			err = badRequest("neither put nor delete")
		}
		if err != nil {
			return nil, nthOp(i, err)
		}
		if _, twice := seen[ops[i].Path]; twice {
			return nil, nthOp(i, badRequest("path %s is in the batch twice", ops[i].Path))
		}
		seen[ops[i].Path] = struct{}{}
	}
	return ops, nil
}

// nthOp says which operation of a batch was meant, and keeps code and hint.
func nthOp(i int, err error) error {
	e := *classify(err)
	e.Message = fmt.Sprintf("operation %d: %s", i+1, e.Message)
	return &e
}

// preconditionOf reads a version with or without its index.
func preconditionOf(version string, absent bool) (*record.Version, error) {
	switch {
	case version != "" && absent:
		return nil, badRequest("if_version and if_absent exclude each other")
	case absent:
		return new(record.Version), nil
	case version == "":
		return nil, nil
	}
	v, whole, err := record.ParseVersion(version)
	if err != nil {
		return nil, badRequest("%v", err)
	}
	if whole {
		v.Index = crdtstore.AnyIndex
	}
	return &v, nil
}

// checkWritable tells whether users may name path at all.
func checkWritable(path string) error {
	if err := record.CheckPath(path); err != nil {
		return err
	}
	if record.Reserved(path) {
		return fmt.Errorf("path %s is reserved: %w", path, crdtstore.ErrDenied)
	}
	return nil
}

// labels names authors. It remembers what it named, as a list has many entries of few authors. The zero value names
// without a policy; it is for one goroutine.
type labels struct {
	policy policy
	known  map[record.PublicKey]label
}

type label struct{ id, alias string }

func (l *labels) of(k record.PublicKey) label {
	if known, ok := l.known[k]; ok {
		return known
	}
	n := label{id: k.String()}
	if l.policy != nil {
		n.alias = l.policy.Alias(k)
	}
	if l.known == nil || len(l.known) >= 1024 {
		l.known = map[record.PublicKey]label{}
	}
	l.known[k] = n
	return n
}

// entry makes the message for an item. It shares the item's value.
func (l *labels) entry(i *crdtstore.Item) *apiv1.Entry {
	if i.Version.IsZero() { // what made a path go may have no version or author to tell
		return &apiv1.Entry{Path: i.Path, Deleted: i.Deleted}
	}
	author := l.of(i.Author)
	e := &apiv1.Entry{
		Path:    i.Path,
		Version: i.Version.String(),
		Hlc:     i.Version.HLC.String(),
		Author:  author.id,
		Alias:   author.alias,
		Size:    i.Size,
		Deleted: i.Deleted,
		Value:   i.Value,
	}
	if i.Chunks != nil {
		e.Large, e.LargeId = true, largeID(i)
	}
	if i.Mode != 0 {
		mode := uint32(i.Mode)
		e.Mode = &mode
	}
	if !i.Expires.IsZero() {
		e.Expires = timestamppb.New(i.Expires)
	}
	return e
}

var eventTypes = map[crdtstore.EventType]apiv1.EventType{
	crdtstore.EventPut:    apiv1.EventType_EVENT_TYPE_PUT,
	crdtstore.EventDelete: apiv1.EventType_EVENT_TYPE_DELETE,
	crdtstore.EventSynced: apiv1.EventType_EVENT_TYPE_SYNCED,
	crdtstore.EventReset:  apiv1.EventType_EVENT_TYPE_RESET,
	crdtstore.EventPolicy: apiv1.EventType_EVENT_TYPE_POLICY,
}

func (l *labels) event(e *crdtstore.Event) *apiv1.Event {
	out := &apiv1.Event{Type: eventTypes[e.Type], Cursor: e.Cursor, More: e.More}
	if e.Type == crdtstore.EventPut || e.Type == crdtstore.EventDelete {
		out.Entry = l.entry(&e.Item)
		out.Entry.Deleted = e.Type == crdtstore.EventDelete
	}
	return out
}

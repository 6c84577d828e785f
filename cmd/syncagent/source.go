package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"

	"syncagent/agent"
	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore/record"
	"syncagent/sync/mirror"
)

// parallelFetches is how many values are asked for at the same time.
const parallelFetches = 16

// apiSource is a mirror's source that asks an agent.
type apiSource struct{ client *agent.Client }

func (s apiSource) List(ctx context.Context, prefix string, fn func(mirror.File) error) (string, error) {
	cursor, err := listEntries(ctx, s.client, prefix, false, func(e *apiv1.Entry) error {
		f, err := fileOf(e)
		if err != nil {
			return err
		}
		return fn(f)
	})
	if _, ok := errors.AsType[*connect.Error](err); ok {
		err = agent.ErrorOf(err) // it says what to a person, who finds it in the log
	}
	return cursor, err
}

func (s apiSource) Fetch(ctx context.Context, paths []string, fn func(mirror.File, io.Reader) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallelFetches)
	var one sync.Mutex // fn is called by one at a time
	for _, path := range paths {
		g.Go(func() error {
			r, err := s.client.KV.Get(ctx, connect.NewRequest(&apiv1.GetRequest{Path: path}))
			one.Lock()
			defer one.Unlock()
			if err := ctx.Err(); err != nil {
				return err
			}
			if e := agent.ErrorOf(err); e != nil && e.Code == agent.CodeTooLarge {
				entry, content, err := s.client.Download(ctx, path, "")
				return handOver(path, entry, content, err, fn)
			}
			if err != nil {
				return handOver(path, nil, nil, err, fn)
			}
			e := r.Msg.GetEntry()
			return handOver(path, e, io.NopCloser(bytes.NewReader(e.GetValue())), nil, fn)
		})
	}
	return g.Wait()
}

// handOver calls fn for what the agent answered for a path.
func handOver(path string, e *apiv1.Entry, content io.ReadCloser, err error, fn func(mirror.File, io.Reader) error) error {
	switch failed := agent.ErrorOf(err); {
	case failed == nil:
	case failed.Code == agent.CodeNotFound:
		return nil
	case failed.Code == agent.CodeCorrupt:
		return fn(mirror.File{Path: path}, failedReader{err}) // wrong with this path alone
	default:
		return err
	}
	defer content.Close() //nolint:errcheck // read only
	f, err := fileOf(e)
	if err != nil {
		return err
	}
	return fn(f, content)
}

// failedReader gives an error in place of content.
type failedReader struct{ err error }

func (r failedReader) Read([]byte) (int, error) { return 0, r.err }

func (s apiSource) Unknown(ctx context.Context, versions map[string]record.Version) (map[string]struct{}, error) {
	var asked []*apiv1.KnownRequest_Version
	for path, v := range versions {
		asked = append(asked, &apiv1.KnownRequest_Version{Path: path, Version: v.String()})
	}
	answers, err := s.client.Known(ctx, asked)
	unknown := map[string]struct{}{}
	for i, a := range answers {
		if !a.GetKnown() {
			unknown[asked[i].GetPath()] = struct{}{}
		}
	}
	return unknown, err
}

func (s apiSource) Watch(ctx context.Context, prefix, cursor string, fn func(mirror.Change) error) error {
	stream, err := s.client.KV.Watch(ctx, connect.NewRequest(&apiv1.WatchRequest{Prefixes: []string{prefix}, Since: cursor, Durable: true}))
	if err != nil {
		return err
	}
	defer stream.Close() //nolint:errcheck // its error is stream.Err
	for stream.Receive() {
		for _, e := range stream.Msg().GetEvents() {
			c, ok, err := changeOf(e)
			if err == nil && ok {
				err = fn(c)
			}
			if err != nil {
				return err
			}
		}
	}
	err = stream.Err()
	if e := agent.ErrorOf(err); e != nil && e.Code == agent.CodeBadCursor {
		return fmt.Errorf("%w: %w", mirror.ErrReset, err)
	}
	if err == nil && ctx.Err() == nil {
		err = errors.New("the agent ended the watch")
	}
	return err
}

// changeOf translates an event. Not ok: the mirror need not know of it.
func changeOf(e *apiv1.Event) (c mirror.Change, ok bool, err error) {
	switch e.GetType() {
	case apiv1.EventType_EVENT_TYPE_RESET:
		return c, false, mirror.ErrReset
	case apiv1.EventType_EVENT_TYPE_PUT, apiv1.EventType_EVENT_TYPE_DELETE:
		c.Deleted = e.GetType() == apiv1.EventType_EVENT_TYPE_DELETE
		c.More = e.GetMore()
		c.File, err = fileOf(e.GetEntry())
		return c, true, err
	}
	return c, false, nil
}

// fileOf translates an entry. What went because the policy changed has no version.
func fileOf(e *apiv1.Entry) (f mirror.File, err error) {
	f = mirror.File{Path: e.GetPath(), Mode: uint16(e.GetMode() & record.MaxMode), Size: e.GetSize()}
	if e.GetExpires() != nil {
		f.Expires = e.GetExpires().AsTime()
	}
	if e.GetVersion() == "" {
		return f, nil
	}
	f.Version, _, err = record.ParseVersion(e.GetVersion())
	if err != nil {
		return f, fmt.Errorf("path %s: %w", e.GetPath(), err)
	}
	return f, nil
}

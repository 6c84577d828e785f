package agent

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"time"

	"connectrpc.com/connect"

	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore"
	"syncagent/crdtstore/record"
)

const (
	signAttempts = 5                // somebody else may write the same paths meanwhile
	signAhead    = 15 * time.Minute // an agent's time beyond ours that we sign; agents show what is 10 minutes ahead
)

// WriteSigned makes ops one atomic write that key signs, and has the agent pass it on: the rights are those of key, and
// the agent can neither forge nor change the write. Network is the one that the write is for; the zero value takes the
// agent's word for it. A signed write has no conditions on what an agent shows.
func (c *Client) WriteSigned(ctx context.Context, key ed25519.PrivateKey, network record.NetworkID, ops []*apiv1.Op) (*apiv1.WriteResponse, error) {
	entries, err := entriesOf(ops, time.Now())
	if err != nil {
		return nil, err
	}
	for attempt := 1; ; attempt++ {
		w, err := c.sign(ctx, key, network, entries)
		if err != nil {
			return nil, err
		}
		request := &apiv1.RelayRequest{Write: w.Append(nil)}
		for _, e := range entries {
			request.Entries = append(request.Entries, e.Encode())
		}
		r, err := c.KV.Relay(ctx, connect.NewRequest(request))
		if err == nil {
			return r.Msg, nil
		}
		if e := ErrorOf(err); e.Code != CodePrecondition || attempt == signAttempts {
			return nil, err
		}
	}
}

// entriesOf makes the entries of a write.
func entriesOf(ops []*apiv1.Op, now time.Time) ([]*record.Entry, error) {
	checked, err := opsOfBatch(&apiv1.BatchRequest{Ops: ops}, now)
	if err != nil {
		return nil, err
	}
	entries := make([]*record.Entry, len(checked))
	for i, op := range checked {
		if op.IfVersion != nil {
			return nil, nthOp(i, badRequest("a write with a signature of its own has no conditions"))
		}
		entries[i] = entryOf(op)
	}
	return entries, nil
}

func entryOf(op crdtstore.Op) *record.Entry {
	e := &record.Entry{Kind: record.KindPut, Mode: op.Mode, Path: op.Path, Value: op.Value}
	if op.Delete {
		e = &record.Entry{Kind: record.KindDelete, Path: op.Path}
	} else if !op.Expires.IsZero() {
		e.Expires = uint64(max(op.Expires.UnixMilli(), 1))
	}
	_, _ = rand.Read(e.Salt[:]) // it cannot fail since Go 1.24
	return e
}

// sign asks the agent for the time and signs the entries with it.
func (c *Client) sign(ctx context.Context, key ed25519.PrivateKey, network record.NetworkID, entries []*record.Entry) (*record.Write, error) {
	var paths []string
	for _, e := range entries {
		paths = append(paths, e.Path)
	}
	network, hlc, err := c.clock(ctx, network, paths...)
	if err != nil {
		return nil, err
	}
	w := &record.Write{Author: record.KeyOf(key), HLC: hlc}
	for _, e := range entries {
		w.Slots = append(w.Slots, record.Slot{Entry: e.ID(), Tags: network.Tags(e.Path)})
	}
	w.Sign(key, network)
	return w, nil
}

// clock asks the agent for its network and the time to sign paths with, and refuses what is not to be signed.
func (c *Client) clock(ctx context.Context, network record.NetworkID, paths ...string) (record.NetworkID, record.HLC, error) {
	r, err := c.KV.Clock(ctx, connect.NewRequest(&apiv1.ClockRequest{Paths: paths}))
	if err != nil {
		return network, 0, err
	}
	theirs, err := record.ParseNetworkID(r.Msg.GetNetwork())
	if err != nil {
		return network, 0, fmt.Errorf("agent's network: %w", err)
	}
	if network == (record.NetworkID{}) {
		network = theirs
	}
	if network != theirs {
		return network, 0, &Error{Code: CodeBadRequest, Message: fmt.Sprintf("the agent is of network %s, the write is for %s", theirs, network)}
	}
	hlc, err := record.ParseHLC(r.Msg.GetHlc())
	if err != nil {
		return network, 0, fmt.Errorf("agent's time: %w", err)
	}
	// A hostile agent must not get a signature under a time that wins for years.
	if ahead := time.Until(hlc.Time()); ahead > signAhead {
		return network, 0, &Error{
			Code: CodeClock, Message: fmt.Sprintf("the agent's time is %s ahead of this host's: not signed", ahead.Round(time.Second)),
			Hint: "check the time service of both hosts",
		}
	}
	return network, hlc, nil
}

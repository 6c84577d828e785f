package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"syncagent/agent"
	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore/record"
)

// Limits of one request that changes many paths, well below those of a write (1,024 slots, 16 MiB) and of a block
// (512 KiB): a request of ours always fits.
const (
	maxBatchPaths     = 1000
	maxBatchBytes     = 4 << 20   // values
	maxBatchSlotBytes = 440 << 10 // what the paths cost in a block
)

// Limits of completion: what takes long is worse than nothing.
const (
	completionTime = 2 * time.Second
	maxCompleted   = 20000 // paths looked at
)

// slotBytes is what one path costs in a block: the entry's ID, and a tag for each of its segments.
func slotBytes(path string) int { return 33 + 16*strings.Count(path, "/") }

// dial gives a client of the agent that --server, --socket or the configuration names. It does not connect yet.
func (c *cli) dial() (*agent.Client, error) {
	if c.server.Address != "" {
		return c.dialServers()
	}
	if c.socket != "" {
		return agent.Dial(c.socket)
	}
	cfg, err := c.loadConfig(nil)
	if errors.Is(err, fs.ErrNotExist) && c.configFile == "" {
		return agent.Dial(agent.DefaultConfig().API.Socket) // a host without an agent's config may still see its socket
	}
	if err != nil {
		return nil, err
	}
	return agent.Dial(cfg.API.Socket)
}

// dialServers gives a client of the agents that --server names, with the certificates of the other flags.
func (c *cli) dialServers() (*agent.Client, error) {
	var targets []agent.Target
	for _, address := range strings.Split(c.server.Address, ",") {
		t := c.server
		var socket bool
		if t.Address, socket = strings.CutPrefix(address, "unix:"); socket && t.Address == "" || !socket && !strings.Contains(address, "://") {
			return nil, usagef("--server %s: want https://HOST:PORT, or unix:PATH for a socket; several are joined by commas", address)
		}
		targets = append(targets, t)
	}
	return agent.DialTargets(targets...)
}

// listEntries calls fn for every entry at and below prefix, ascending by path, from one state of the store. A watch
// with the cursor tells what changed after that state.
func listEntries(ctx context.Context, client *agent.Client, prefix string, values bool, fn func(*apiv1.Entry) error) (cursor string, err error) {
	return listRequested(ctx, client, &apiv1.ListRequest{Prefix: prefix, Values: values}, fn)
}

func listRequested(ctx context.Context, client *agent.Client, r *apiv1.ListRequest, fn func(*apiv1.Entry) error) (cursor string, err error) {
	stream, err := client.KV.List(ctx, connect.NewRequest(r))
	if err != nil {
		return "", err
	}
	defer stream.Close() //nolint:errcheck // its error is stream.Err
	for stream.Receive() {
		if c := stream.Msg().GetCursor(); c != "" {
			cursor = c
		}
		for _, e := range stream.Msg().GetEntries() {
			if err := fn(e); err != nil {
				return "", err
			}
		}
	}
	return cursor, stream.Err()
}

// orBelow adds to the error that nothing is at a path what lies below it: that may be meant, and command takes it.
func orBelow(ctx context.Context, client *agent.Client, path string, err error, command string) error {
	e := agent.ErrorOf(err)
	if e == nil || e.Code != agent.CodeNotFound {
		return err
	}
	r, cerr := client.KV.Count(ctx, connect.NewRequest(&apiv1.CountRequest{Prefix: path}))
	if cerr == nil && r.Msg.GetCount() > 0 {
		e.Hint = fmt.Sprintf("paths below it: %d (%s %s)", r.Msg.GetCount(), command, path)
	}
	return e
}

// writeBatch makes ops one atomic write, signed by the user's key if there is one.
func (c *cli) writeBatch(ctx context.Context, client *agent.Client, ops []*apiv1.Op) (*apiv1.WriteResponse, error) {
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	if c.signKey != "" {
		return c.writeSigned(ctx, client, ops)
	}
	w, err := client.KV.Batch(ctx, connect.NewRequest(&apiv1.BatchRequest{Ops: ops}))
	if err != nil {
		return nil, err
	}
	return w.Msg, nil
}

// changer gathers changes and sends them in atomic writes that surely fit.
type changer struct {
	cli     *cli
	client  *agent.Client
	written int                        // changes sent
	sent    func(*apiv1.WriteResponse) // called after every write; may be nil
	keep    bool                       // note the writes, for a waiter
	writes  []write

	ops              []*apiv1.Op
	bytes, slotBytes int
}

// add takes a change of path to a value of so many bytes. It sends those before it if all together would not fit.
func (b *changer) add(ctx context.Context, path string, size int, op *apiv1.Op) error {
	full := len(b.ops) == maxBatchPaths || b.bytes+size > maxBatchBytes || b.slotBytes+slotBytes(path) > maxBatchSlotBytes
	if full {
		if err := b.flush(ctx); err != nil {
			return err
		}
	}
	b.ops = append(b.ops, op)
	b.bytes += size
	b.slotBytes += slotBytes(path)
	return nil
}

// flush sends what is gathered.
func (b *changer) flush(ctx context.Context) error {
	if len(b.ops) == 0 {
		return nil
	}
	w, err := b.cli.writeBatch(ctx, b.client, b.ops)
	if err != nil {
		return err
	}
	b.note(w, b.ops)
	b.ops, b.bytes, b.slotBytes = nil, 0, 0
	return nil
}

// note takes down what was written.
func (b *changer) note(w *apiv1.WriteResponse, ops []*apiv1.Op) {
	if b.keep {
		b.writes = append(b.writes, writeOf(w, ops))
	}
	b.written += len(ops)
	if b.sent != nil {
		b.sent(w)
	}
}

// failure makes the exit code of an error: some of many failed, if anything was written before it.
func (b *changer) failure(err error, done string) error {
	if err == nil || b.written == 0 {
		return err
	}
	return failf(exitPartly, "partly", "%s %d paths, then: %w", done, b.written, agent.ErrorOf(err))
}

// completePaths completes the first n arguments with paths from the agent, one segment at a time.
func (c *cli) completePaths(n int) cobra.CompletionFunc {
	return func(cmd *cobra.Command, words []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(words) >= n {
			return nil, cobra.ShellCompDirectiveDefault
		}
		const none = cobra.ShellCompDirectiveNoFileComp
		if err := fromEnvironment(cmd); err != nil {
			return nil, none
		}
		client, err := c.dial()
		if err != nil {
			return nil, none
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
		defer cancel()
		words, more := nextSegments(ctx, client, typed)
		if more {
			return words, none | cobra.ShellCompDirectiveNoSpace
		}
		return words, none
	}
}

// nextSegments gives what typed can be continued with up to the next slash, and whether any of them goes on below.
func nextSegments(ctx context.Context, client *agent.Client, typed string) (words []string, more bool) {
	dir := typed[:strings.LastIndexByte(typed, '/')+1]
	if dir == "" {
		dir = "/"
	}
	prefix, err := record.CleanPrefix(dir)
	if err != nil {
		return nil, false
	}
	seen := 0
	_, _ = listEntries(ctx, client, prefix, false, func(e *apiv1.Entry) error { // what came until an error is good enough
		if seen++; seen > maxCompleted {
			return context.Canceled
		}
		word, deeper := segmentAfter(dir, e.GetPath())
		if word == "" || !strings.HasPrefix(word, typed) {
			return nil
		}
		more = more || deeper
		if len(words) == 0 || words[len(words)-1] != word {
			words = append(words, word)
		}
		return nil
	})
	return words, more
}

// segmentAfter cuts path after the first segment below dir. Deeper tells that something was cut off; the slash stays.
func segmentAfter(dir, path string) (word string, deeper bool) {
	rest, ok := strings.CutPrefix(path, dir)
	if !ok || rest == "" {
		return "", false
	}
	segment, _, deeper := strings.Cut(rest, "/")
	if deeper {
		segment += "/"
	}
	return dir + segment, deeper
}

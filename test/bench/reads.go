package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"

	apiv1 "syncagent/agent/api/v1"
)

// readFigures are of reading what is there, with client and agent on the same CPUs.
func readFigures() []figure {
	return []figure{
		{name: "read in process, 10k keys, 2 readers", goal: "200k", unit: "/s", measure: readStore(10_000)},
		{name: "read in process, 100k keys, 2 readers", unit: "/s", measure: readStore(100_000)},
		{name: "read by raw GET, 10k keys, 16 clients", goal: "10k, stretch 20k", unit: "/s", measure: readAPI((*host).rawGet)},
		{name: "read by Connect Get, 10k keys, 16 clients", goal: "10k, stretch 20k", unit: "/s", measure: readAPI((*host).connectGet)},
	}
}

const readTime = 2 * time.Second

// countFor has workers repeat do for a while, and gives how often that was a second.
func countFor(workers int, do func(i int) error) (float64, error) {
	var group errgroup.Group
	var done atomic.Int64
	began := time.Now()
	for w := range workers {
		group.Go(func() error {
			for i := w; time.Since(began) < readTime; i += workers {
				if err := do(i); err != nil {
					return err
				}
				done.Add(1)
			}
			return nil
		})
	}
	err := group.Wait()
	return float64(done.Load()) / time.Since(began).Seconds(), err
}

// spread goes through keys in no order.
func spread(i, keys int) int { return i * 7919 % keys }

func readStore(keys int) func(string) (float64, string, error) {
	return func(dir string) (rate float64, note string, err error) {
		f := newFleet(dir, 1)
		n := f.nodes[0]
		if err := n.open(); err != nil {
			return 0, "", err
		}
		if err := n.fill("/put", keys, 100, 4); err != nil {
			return 0, "", err
		}
		err = profiled(func() error {
			rate, err = countFor(2, func(i int) error { return n.read(spread(i, keys)) })
			return err
		})
		perSecond := rate * readTime.Seconds() / used.Seconds()
		return rate, fmt.Sprintf("100 bytes, each a snapshot of its own; %.0f for a second of one processor", perSecond), errors.Join(err, f.stop())
	}
}

// read reads one of the values that fill made.
func (n *node) read(k int) error {
	snap, err := n.Snapshot()
	if err != nil {
		return err
	}
	defer snap.Close()
	_, err = snap.Get(fmt.Sprintf("/put/%d/%d", k%100, k), true)
	return err
}

func readAPI(get func(h *host, path string) error) func(string) (float64, string, error) {
	return func(dir string) (float64, string, error) {
		hosts, stop, err := processes(dir, 1)
		defer stop()
		if err != nil {
			return 0, "", err
		}
		h := hosts[0]
		const keys = 10_000
		for from := 0; from < keys; from += 1000 {
			r := &apiv1.BatchRequest{}
			for i := range 1000 {
				put := &apiv1.PutRequest{Path: fmt.Sprintf("/read/%d", from+i), Value: make([]byte, 100)}
				r.Ops = append(r.Ops, &apiv1.Op{Op: &apiv1.Op_Put{Put: put}})
			}
			if _, err := h.client.KV.Batch(context.Background(), connect.NewRequest(r)); err != nil {
				return 0, "", err
			}
		}
		rate, err := countFor(16, func(i int) error { return get(h, fmt.Sprintf("/read/%d", spread(i, keys))) })
		return rate, "socket, 100 bytes each", err
	}
}

func (h *host) connectGet(path string) error {
	_, err := h.client.KV.Get(context.Background(), connect.NewRequest(&apiv1.GetRequest{Path: path}))
	return err
}

func (h *host) rawGet(path string) error {
	h.once.Do(func() {
		h.raw = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(h.dir, "agent.sock"))
			}}}
	})
	r, err := h.raw.Get("http://agent/v1/kv" + path)
	if err != nil {
		return err
	}
	defer r.Body.Close() //nolint:errcheck // read to its end
	if _, err := io.Copy(io.Discard, r.Body); err != nil || r.StatusCode != http.StatusOK {
		return fmt.Errorf("get %s: %s, %w", path, r.Status, err)
	}
	return nil
}

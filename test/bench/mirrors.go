package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"connectrpc.com/connect"

	apiv1 "syncagent/agent/api/v1"
)

// mirrored is where the host's mirror lies.
func (h *host) mirrored() string { return filepath.Join(h.dir, "mirror") }

// triggered is from the call of a put until a command on another host, which runs after the file changed there, has
// ended. The command waits for quiet as short as it can.
func triggered(dir string) (float64, string, error) {
	const count = 50
	hosts, stop, err := processes(dir, 2)
	defer stop()
	if err != nil {
		return 0, "", err
	}
	to := hosts[1]
	done := filepath.Join(to.dir, "done")
	settings := fmt.Sprintf("on_change: [/bin/cp, %q, %q], debounce: {min: 1ms, max: 1ms}", filepath.Join(to.mirrored(), "tls.key"), done)
	if err := to.mirror("/certs", settings); err != nil {
		return 0, "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var took []time.Duration
	for i := range count {
		value := fmt.Append(nil, "key ", i)
		began := time.Now()
		if _, err := hosts[0].client.KV.Put(ctx, connect.NewRequest(&apiv1.PutRequest{Path: "/certs/tls.key", Value: value})); err != nil {
			return 0, "", err
		}
		for {
			got, err := os.ReadFile(done)
			if err == nil && bytes.Equal(got, value) {
				break
			}
			if ctx.Err() != nil {
				return 0, "", fmt.Errorf("the command did not run: %q, %w", got, err)
			}
			time.Sleep(200 * time.Microsecond)
		}
		took = append(took, time.Since(began))
		time.Sleep(50 * time.Millisecond)
	}
	slices.Sort(took)
	return took[count/2].Seconds(), fmt.Sprintf("slowest %s", took[count-1].Round(time.Millisecond)), nil
}

// newHost is from the moment when a host is given a mirror until all its files are in place; the store has them already.
func newHost(dir string) (float64, string, error) {
	const count = 10_000
	hosts, stop, err := processes(dir, 1)
	defer stop()
	if err != nil {
		return 0, "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for first := 0; first < count; first += 1000 {
		var batch apiv1.BatchRequest
		for i := range 1000 {
			put := &apiv1.PutRequest{Path: fmt.Sprintf("/m/d%d/f%d", i%100, first+i), Value: bytes.Repeat([]byte{byte(i)}, 1024)}
			batch.Ops = append(batch.Ops, &apiv1.Op{Op: &apiv1.Op_Put{Put: put}})
		}
		if _, err := hosts[0].client.KV.Batch(ctx, connect.NewRequest(&batch)); err != nil {
			return 0, "", err
		}
	}
	began := time.Now()
	if err := hosts[0].mirror("/m", "mode: pull"); err != nil {
		return 0, "", err
	}
	err = wait(func() error {
		s, err := hosts[0].client.Agent.Status(ctx, connect.NewRequest(&apiv1.StatusRequest{}))
		if err != nil {
			return err
		}
		if m := s.Msg.GetMirrors(); len(m) != 1 || m[0].GetFiles() != count || m[0].GetState() != "ok" {
			return fmt.Errorf("not yet: %v", m)
		}
		return nil
	})
	return time.Since(began).Seconds(), "", err
}

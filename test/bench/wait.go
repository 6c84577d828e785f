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

// waitTriggered is from the call of a put until each of five agents has the file in its mirror and has run the command
// after it.
func waitTriggered(dir string) (float64, string, error) {
	const count = 30
	hosts, stop, err := processes(dir, 5)
	defer stop()
	if err != nil {
		return 0, "", err
	}
	for _, h := range hosts {
		if err := h.mirror("/certs", "/bin/true"); err != nil {
			return 0, "", err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var took []time.Duration
	for i := range count {
		path := fmt.Sprintf("/certs/%d", i%5)
		began := time.Now()
		w, err := hosts[0].client.KV.Put(ctx, connect.NewRequest(&apiv1.PutRequest{Path: path, Value: []byte{byte(i)}}))
		if err != nil {
			return 0, "", err
		}
		r, err := hosts[0].client.KV.Wait(ctx, connect.NewRequest(&apiv1.WaitRequest{
			Path: path, Version: w.Msg.GetVersion(), Stage: apiv1.Stage_STAGE_TRIGGERED,
		}))
		if err != nil {
			return 0, "", err
		}
		if !r.Msg.GetDone() || len(r.Msg.GetStored()) != len(hosts) {
			return 0, "", fmt.Errorf("not all are that far: %v", r.Msg)
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return took[count/2].Seconds(), fmt.Sprintf("slowest %s; 100 ms of it is the debounce", took[count-1].Round(time.Millisecond)), nil
}

// mirror gives a running agent a mirror with a command after changes.
func (h *host) mirror(prefix, command string) error {
	file := filepath.Join(h.dir, "syncagent.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	text = bytes.Replace(text, []byte("\nmirrors: []\n"), fmt.Appendf(nil, "\nmirrors: [{prefix: %s, dir: %q, on_change: [%s]}]\n",
		prefix, filepath.Join(h.dir, "mirror"), command), 1)
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return err
	}
	_, err = h.run("reload")
	return err
}

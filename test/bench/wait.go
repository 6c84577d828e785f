package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
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
		if err := h.mirror("/certs", "on_change: [/bin/true]"); err != nil {
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

// mirror gives a running agent a mirror with these settings.
func (h *host) mirror(prefix, settings string) error {
	file := filepath.Join(h.dir, "syncagent.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	text = bytes.Replace(text, []byte("\nmirrors: []\n"), fmt.Appendf(nil, "\nmirrors: [{prefix: %s, dir: %q, %s}]\n",
		prefix, h.mirrored(), settings), 1)
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return err
	}
	_, err = h.run("reload")
	return err
}

// watchedPage is what three who look at its status page cost an agent that takes in 10,000 changes a minute.
func watchedPage(dir string) (float64, string, error) {
	hosts, stop, err := processes(dir, 2)
	defer stop()
	if err != nil {
		return 0, "", err
	}
	if err := hosts[0].importKeys(10_000); err != nil {
		return 0, "", err
	}
	if err := wait(func() error { return equalHosts(hosts) }); err != nil {
		return 0, "", err
	}
	without, err := underChanges(hosts)
	if err != nil {
		return 0, "", err
	}
	for range 3 {
		page, err := hosts[1].page("/events")
		if err != nil {
			return 0, "", err
		}
		defer page.Close() //nolint:errcheck // it is only read
		go func() { _, _ = io.Copy(io.Discard, page) }()
	}
	with, err := underChanges(hosts)
	return with - without, fmt.Sprintf("%.1f without, %.1f with them", without, with), err
}

// underChanges is the part of a core in percent that the second host uses while the first makes 10,000 changes a minute.
func underChanges(hosts []*host) (float64, error) {
	const changes = 2000 // in 12 seconds
	before, err := hosts[1].processorTime()
	if err != nil {
		return 0, err
	}
	began := time.Now()
	for i := range changes {
		if err := hosts[0].put(fmt.Sprintf("/p/%d", i%100)); err != nil {
			return 0, err
		}
		time.Sleep(time.Until(began.Add(time.Duration(i) * 6 * time.Millisecond)))
	}
	after, err := hosts[1].processorTime()
	return 100 * (after - before).Seconds() / time.Since(began).Seconds(), err
}

// page asks for something on the agent's socket that is no call of the API.
func (h *host) page(path string) (io.ReadCloser, error) {
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", filepath.Join(h.dir, "agent.sock"))
	}}}
	r, err := client.Get("http://agent" + path)
	if err != nil {
		return nil, err
	}
	return r.Body, nil
}

// processorTime is what the agent's process has used, in steps of a hundredth of a second.
func (h *host) processorTime() (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", h.process.Process.Pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 13 {
		return 0, errors.New("no times in /proc/PID/stat")
	}
	user, err := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond, errors.Join(err, err2)
}

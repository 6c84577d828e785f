package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"connectrpc.com/connect"

	"syncagent/agent"
	apiv1 "syncagent/agent/api/v1"
)

// agentFigures are of three processes of the program on loopback, through the API.
func agentFigures() []figure {
	return []figure{
		{"durable put through the API, 1 client, 3 agents", "", "/s", apiRate(1)},
		{"durable put through the API, 64 clients, 3 agents", "12.3k, stretch 20k", "/s", apiRate(64)},
		{"put -> watch on another agent p50, 20/s, 3 agents", "1.5 / 2.0 ms (etcd)", "s", apiLatency},
		{"put --wait all --for triggered p50, 5 agents", "300 ms", "s", waitTriggered},
		{"put -> file on another host -> trigger finished p50", "150 ms", "s", triggered},
		{"10k files of 1 KiB mirrored to a new host", "5 s", "s", newHost},
		{"3 status pages while 10k changes a minute come in", "10", "% of a core", watchedPage},
		{"1 GB of 10 MiB values mirrored to a new host", "3 x sequential write, 150 MB", "s", mirrorLarge},
		{"RSS of an idle agent, empty", "40", "MB", memory(0)},
		{"RSS of an idle agent, 100k keys", "45", "MB", memory(100_000)},
		{"restart with 100k keys after kill -9, until ready", "1 s", "s", restart},
	}
}

var (
	program = flag.String("program", "", "measure this binary instead of building one: the one before a change, beside the one after it")
	built   string // directory of the one that was built
)

// buildProgram builds the program once.
func buildProgram() error {
	if *program != "" {
		return nil
	}
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	cmd := exec.Command("go", "build", "-o", filepath.Join(dir, "syncagent"), "syncagent/cmd/syncagent")
	cmd.Env, cmd.Stderr = append(os.Environ(), "CGO_ENABLED=0"), os.Stderr
	if err := cmd.Run(); err != nil {
		return err
	}
	built, *program = dir, filepath.Join(dir, "syncagent")
	return nil
}

func removeProgram() {
	if built != "" {
		_ = os.RemoveAll(built)
	}
}

// host is a process.
type host struct {
	dir     string
	client  *agent.Client
	process *exec.Cmd
	raw     *http.Client
	once    sync.Once // makes raw
}

func (h *host) run(args ...string) (string, error) {
	cmd := exec.Command(*program, args...)
	cmd.Env = append(os.Environ(), "HOME="+h.dir, "SYNCAGENT_CONFIG="+filepath.Join(h.dir, "syncagent.yaml"))
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("syncagent %s: %w: %s", strings.Join(args, " "), err, exit.Stderr)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1], err
}

func (h *host) start() error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close() //nolint:errcheck // it is only read
	cmd := exec.Command(*program, "agent", "--ready-fd", "3")
	cmd.Env = append(os.Environ(), "HOME="+h.dir, "SYNCAGENT_CONFIG="+filepath.Join(h.dir, "syncagent.yaml"))
	cmd.ExtraFiles = []*os.File{w}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	err = cmd.Start()
	_ = w.Close()
	if err != nil {
		return err
	}
	h.process = cmd
	_, err = bufio.NewReader(r).ReadString('\n')
	return err
}

func (h *host) kill() {
	if h.process != nil {
		_ = h.process.Process.Kill()
		_ = h.process.Wait()
		h.process = nil
	}
}

// processes makes a network of n agents that run.
func processes(dir string, n int) (hosts []*host, stop func(), err error) {
	stop = func() {
		for _, h := range hosts {
			h.client.Close()
			h.kill()
		}
	}
	if err := buildProgram(); err != nil {
		return nil, stop, err
	}
	token := ""
	for i := range n {
		h := &host{dir: filepath.Join(dir, string(rune('a'+i)))}
		if h.client, err = agent.Dial(filepath.Join(h.dir, "agent.sock")); err != nil {
			return nil, stop, err
		}
		hosts = append(hosts, h)
		name := string(rune('a' + i))
		args := []string{"--dir", h.dir, "--name", name, "--listen", "/ip4/127.0.0.1/tcp/0", "--listen", "/ip4/127.0.0.1/udp/0/quic-v1"}
		if i == 0 {
			if token, err = h.run(append([]string{"init"}, args...)...); err == nil {
				err = h.start()
			}
		} else {
			var line string
			if line, err = h.run(append([]string{"join", token}, args...)...); err == nil {
				if err = h.start(); err == nil {
					_, err = hosts[0].run("acl", "admit", line)
				}
			}
		}
		if err != nil {
			return nil, stop, err
		}
	}
	return hosts, stop, wait(func() error { return equalHosts(hosts) })
}

func equalHosts(hosts []*host) error {
	digest := ""
	for i, h := range hosts {
		s, err := h.client.Agent.Status(context.Background(), connect.NewRequest(&apiv1.StatusRequest{}))
		if err != nil {
			return err
		}
		connected := 0
		for _, p := range s.Msg.Peers {
			if p.Connected {
				connected++
			}
		}
		if i == 0 {
			digest = s.Msg.ViewDigest
		}
		if connected < len(hosts)-1 || s.Msg.ViewDigest != digest {
			return fmt.Errorf("agent %d has %d peers and %d entries", i, connected, s.Msg.Entries)
		}
	}
	return nil
}

func (h *host) put(path string) error {
	_, err := h.client.KV.Put(context.Background(), connect.NewRequest(&apiv1.PutRequest{Path: path, Value: make([]byte, 100)}))
	return err
}

func apiRate(clients int) func(string) (float64, string, error) {
	return func(dir string) (float64, string, error) {
		hosts, stop, err := processes(dir, 3)
		defer stop()
		if err != nil {
			return 0, "", err
		}
		each := 20_000 / clients
		if clients == 1 {
			each = 4000
		}
		var group sync.WaitGroup
		errs := make([]error, clients)
		began := time.Now()
		for c := range clients {
			group.Go(func() {
				for i := range each {
					if err := hosts[0].put(fmt.Sprintf("/put/%d/%d", c, i)); err != nil {
						errs[c] = err
						return
					}
				}
			})
		}
		group.Wait()
		took := time.Since(began)
		if err := errors.Join(errs...); err != nil {
			return 0, "", err
		}
		settled := time.Now()
		err = wait(func() error { return equalHosts(hosts) })
		return float64(clients*each) / took.Seconds(), fmt.Sprintf("all equal %s later", time.Since(settled).Round(time.Millisecond)), err
	}
}

// apiLatency is from the call of a put on one agent until a watch of another has told of it.
func apiLatency(dir string) (float64, string, error) {
	const count = 100
	hosts, stop, err := processes(dir, 3)
	defer stop()
	if err != nil {
		return 0, "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	stream, err := hosts[1].client.KV.Watch(ctx, connect.NewRequest(&apiv1.WatchRequest{Prefixes: []string{"/p"}}))
	if err != nil {
		return 0, "", err
	}
	seen := make(chan time.Time, count)
	go func() {
		defer close(seen)
		for stream.Receive() {
			for _, e := range stream.Msg().Events {
				if e.Entry != nil && e.Entry.Path != "" {
					seen <- time.Now()
				}
			}
		}
	}()
	time.Sleep(2 * time.Second)
	var delays []time.Duration
	for i := range count {
		began := time.Now()
		if err := hosts[0].put("/p/" + strconv.Itoa(i)); err != nil {
			return 0, "", err
		}
		at, ok := <-seen
		if !ok {
			return 0, "", stream.Err()
		}
		delays = append(delays, at.Sub(began))
		time.Sleep(time.Until(began.Add(50 * time.Millisecond)))
	}
	slices.Sort(delays)
	return delays[count/2].Seconds(), fmt.Sprintf("p99 %s", delays[count-1].Round(10*time.Microsecond)), nil
}

// importKeys brings count keys into an agent, in batches.
func (h *host) importKeys(count int) error {
	for i := 0; i < count; i += 1000 {
		req := &apiv1.BatchRequest{}
		for j := range 1000 {
			req.Ops = append(req.Ops, &apiv1.Op{Op: &apiv1.Op_Put{Put: &apiv1.PutRequest{Path: fmt.Sprintf("/k/%d/%d", j%100, i+j), Value: make([]byte, 100)}}})
		}
		if _, err := h.client.KV.Batch(context.Background(), connect.NewRequest(req)); err != nil {
			return err
		}
	}
	return nil
}

func memory(keys int) func(string) (float64, string, error) {
	return func(dir string) (float64, string, error) {
		hosts, stop, err := processes(dir, 1)
		defer stop()
		if err != nil {
			return 0, "", err
		}
		if err := hosts[0].importKeys(keys); err != nil {
			return 0, "", err
		}
		loaded, err := hosts[0].rss()
		if err != nil {
			return 0, "", err
		}
		time.Sleep(15 * time.Second)
		idle, err := hosts[0].rss()
		return idle, fmt.Sprintf("right after the load %.0f MB, 15 s later this", loaded), err
	}
}

// rss gives MB.
func (h *host) rss() (float64, error) { return h.memory("VmRSS:") }

// memory gives a line of the process's status in MB.
func (h *host) memory(name string) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", h.process.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			kb, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return kb / 1024, err
		}
	}
	return 0, errors.New("no " + name)
}

func restart(dir string) (float64, string, error) {
	hosts, stop, err := processes(dir, 1)
	defer stop()
	if err != nil {
		return 0, "", err
	}
	if err := hosts[0].importKeys(100_000); err != nil {
		return 0, "", err
	}
	hosts[0].kill()
	began := time.Now()
	if err := hosts[0].start(); err != nil {
		return 0, "", err
	}
	return time.Since(began).Seconds(), "", nil
}

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"connectrpc.com/connect"

	"syncagent/agent"
	apiv1 "syncagent/agent/api/v1"
	"syncagent/test/process"
)

var (
	program = flag.String("program", "", "measure this binary instead of building one: the one before a change, beside the one after it")
	built   string // directory of what was built
)

// buildProgram builds the program once.
func buildProgram() error {
	if *program != "" {
		return nil
	}
	dir, err := builds()
	if err != nil {
		return err
	}
	*program, err = process.Build(dir, "")
	return err
}

// builds gives the directory for what is built, which removeBuilt removes.
func builds() (string, error) {
	if built != "" {
		return built, nil
	}
	var err error
	built, err = os.MkdirTemp("", "bench")
	return built, err
}

func removeBuilt() {
	if built != "" {
		_ = os.RemoveAll(built)
	}
}

// host is a process.
type host struct {
	dir     string
	client  *agent.Client
	process *process.Agent
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
	cmd := exec.Command(*program, "agent", "--ready-fd", "3")
	cmd.Env = append(os.Environ(), "HOME="+h.dir, "SYNCAGENT_CONFIG="+filepath.Join(h.dir, "syncagent.yaml"))
	a, err := process.Launch(cmd, filepath.Join(h.dir, "agent.log"))
	if err != nil {
		return err
	}
	h.process = a
	return a.Ready(patience)
}

func (h *host) kill() {
	if h.process != nil {
		h.process.Kill()
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

// equalTo waits until an agent shows what another does.
func (h *host) equalTo(o *host) error { return wait(func() error { return equalHosts([]*host{h, o}) }) }

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

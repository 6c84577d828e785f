package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	"syncagent/agent"
	apiv1 "syncagent/agent/api/v1"
	"syncagent/test/process"
)

const (
	startLimit = 3 * time.Minute // for an agent to be ready; a rebuild on a busy machine takes long
	callLimit  = 5 * time.Second
)

// host is a machine: a namespace, a directory, a disk, and while it runs an agent.
type host struct {
	t      testing.TB
	place  int
	name   string
	dir    string
	lan    *lan
	disk   *disk
	client *agent.Client
	clock  time.Duration // by how much it is off from the next start on

	mu      sync.Mutex // guards process: clients of a host never see it, faults of several hosts run at once
	process *process.Agent

	// outages is odd from when the disk is taken away until it is back. Linux (6.18) answers a sync with success that is
	// overtaken by the end of its file system, so what is acknowledged meanwhile may be lost, as with the power it is.
	outages atomic.Int32

	quiet sync.RWMutex // a fault that destroys the disk keeps clients away until all they wrote is elsewhere
}

func (h *host) log() string { return filepath.Join(h.dir, "agent.log") }

func newHost(t testing.TB, l *lan, parent string, place int) *host {
	t.Helper()
	name := string(rune('a' + place))
	h := &host{t: t, place: place, name: name, dir: filepath.Join(parent, name), lan: l}
	var err error
	if h.client, err = agent.Dial(filepath.Join(h.dir, "agent.sock")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		h.client.Close()
		h.kill()
	})
	return h
}

// command is the program in the namespace of the host. The whole name space of files is shared: only so a file system
// that is unmounted is gone.
func (h *host) command(args ...string) *exec.Cmd {
	cmd := exec.Command("nsenter", append([]string{"--net=/run/netns/" + h.lan.namespace(h.place), program}, args...)...)
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "SYNCAGENT_") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, "HOME="+h.dir, "XDG_STATE_HOME="+h.dir, "SYNCAGENT_CONFIG="+filepath.Join(h.dir, "syncagent.yaml"),
		"SYNCAGENT_STORE_MIN_FREE=48MiB")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	return cmd
}

// must runs a command that has to succeed and gives the last line of its output.
func (h *host) must(args ...string) string {
	h.t.Helper()
	cmd := h.command(args...)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		h.t.Fatalf("%s: syncagent %s: %v\n%s%s", h.name, strings.Join(args, " "), err, out, &errs)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1]
}

// start runs the agent, if it does not run, and waits until it is ready.
func (h *host) start() error {
	if h.alive() {
		return nil
	}
	cmd := h.command("agent", "--ready-fd", "3")
	if h.clock != 0 {
		cmd.Env = append(cmd.Env, "SYNCAGENT_CLOCK="+h.clock.String())
	}
	a, err := process.Launch(cmd, h.log())
	if err != nil {
		return err
	}
	h.mu.Lock()
	h.process = a
	h.mu.Unlock()
	if err := a.Ready(startLimit); err != nil {
		h.kill()
		return fmt.Errorf("%s: %w", h.name, err)
	}
	return nil
}

// alive tells whether the agent runs. It may have stopped by itself.
func (h *host) alive() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.process != nil && h.process.Alive()
}

// kill ends the agent as a crash does.
func (h *host) kill() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.process != nil {
		h.process.Kill()
		h.process = nil
	}
}

// stop ends the agent as an operator does, or the system when it shuts down.
func (h *host) stop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.process != nil {
		_ = h.process.Process.Signal(syscall.SIGTERM) // it may have ended
		<-h.process.Exited
		h.process = nil
	}
}

func (h *host) signal(s syscall.Signal) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.process == nil {
		return nil
	}
	return syscall.Kill(h.process.Process.Pid, s)
}

// outage runs a command that takes the disk away.
func (h *host) outage(args ...string) error {
	h.outages.Add(1)
	return command("", args...)
}

// errOutage is of a write that was acknowledged when the disk might already be gone.
var errOutage = errors.New("acknowledged in an outage")

// write puts values at paths, all at once; an empty one deletes.
func (h *host) write(values map[string]string) (version string, err error) {
	var ops []*apiv1.Op
	for path, v := range values {
		op := &apiv1.Op{Op: &apiv1.Op_Put{Put: &apiv1.PutRequest{Path: path, Value: []byte(v)}}}
		if v == "" {
			op = &apiv1.Op{Op: &apiv1.Op_Delete{Delete: &apiv1.DeleteRequest{Path: path}}}
		}
		ops = append(ops, op)
	}
	ctx, cancel := context.WithTimeout(context.Background(), callLimit)
	defer cancel()
	outages := h.outages.Load()
	res, err := h.client.KV.Batch(ctx, connect.NewRequest(&apiv1.BatchRequest{Ops: ops}))
	if err != nil {
		return "", err
	}
	if outages%2 == 1 || h.outages.Load() != outages {
		return "", errOutage
	}
	return res.Msg.Version, nil
}

// shown is one path as an agent shows it.
type shown struct{ version, value string }

func (h *host) list(limit time.Duration, prefix string) (map[string]shown, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	stream, err := h.client.KV.List(ctx, connect.NewRequest(&apiv1.ListRequest{Prefix: prefix, Values: true}))
	if err != nil {
		return nil, err
	}
	all := map[string]shown{}
	for stream.Receive() {
		for _, e := range stream.Msg().Entries {
			all[e.Path] = shown{e.Version, string(e.Value)}
		}
	}
	return all, errors.Join(stream.Err(), stream.Close())
}

func (h *host) status() (*apiv1.StatusResponse, error) {
	ctx, cancel := context.WithTimeout(context.Background(), callLimit)
	defer cancel()
	res, err := h.client.Agent.Status(ctx, connect.NewRequest(&apiv1.StatusRequest{}))
	if err != nil {
		return nil, fmt.Errorf("%s: status: %w", h.name, err)
	}
	return res.Msg, nil
}

// alarmed tells whether the agent has this alarm.
func (h *host) alarmed(code string) bool {
	s, err := h.status()
	if err != nil {
		return false
	}
	for _, a := range s.Alarms {
		if a.Code == code {
			return true
		}
	}
	return false
}

// asides gives the damaged stores that the agent set aside.
func (h *host) asides() []string {
	found, _ := filepath.Glob(filepath.Join(h.dir, "data", "store.damaged-*")) // the pattern is well formed
	return found
}

// equal says whether all hosts show the same, have the same blocks and lack nothing.
func equal(hosts []*host) error {
	var first *apiv1.StatusResponse
	for _, h := range hosts {
		s, err := h.status()
		if err != nil {
			return err
		}
		if first == nil {
			first = s
		}
		if s.ViewDigest != first.ViewDigest || s.BlockDigest != first.BlockDigest || s.MissingEntries > 0 {
			return fmt.Errorf("%s: %d entries, view %.8s, want %.8s, %d blocks, digest %.8s, want %.8s, %d pending, %d missing",
				h.name, s.Entries, s.ViewDigest, first.ViewDigest, s.Blocks, s.BlockDigest, first.BlockDigest, s.Pending, s.MissingEntries)
		}
	}
	return nil
}

// eventually waits until a condition holds and gives the last reason why it does not.
func eventually(limit time.Duration, condition func() error) error {
	deadline := time.After(limit)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := condition()
		if err == nil {
			return nil
		}
		select {
		case <-deadline:
			return err
		case <-tick.C:
		}
	}
}

func exitCode(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return -1
}

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	"syncagent/agent"
	apiv1 "syncagent/agent/api/v1"
	"syncagent/test/process"
)

// patience bounds every wait. It is no figure of the product: a machine that is busy with other tests needs it.
const patience = 90 * time.Second

// host is one machine of an operator: a directory and, while it runs, an agent.
type host struct {
	t         testing.TB
	name, dir string
	program   string   // the file that it runs
	env       []string // settings for the agent, SYNCAGENT_...=
	identity  string   // its line in the policy
	client    *agent.Client
	process   *process.Agent
}

func (h *host) config() string { return filepath.Join(h.dir, "syncagent.yaml") }
func (h *host) data() string   { return filepath.Join(h.dir, "data") }
func (h *host) log() string    { return filepath.Join(h.dir, "agent.log") }

// tempDir makes a directory with a short name: the path of a unix socket has room for 107 bytes.
func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "e2e")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	return dir
}

func newHost(t testing.TB, parent, name string) *host {
	t.Helper()
	h := &host{t: t, name: name, dir: filepath.Join(parent, name), program: program}
	var err error
	if h.client, err = agent.Dial(filepath.Join(h.dir, "agent.sock")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		h.client.Close()
		h.kill()
		if t.Failed() {
			t.Logf("end of the log of %s:\n%s", h.name, process.Tail(h.log(), 6000))
		}
	})
	return h
}

// command is the program with the configuration of this host. It dies with the test.
func (h *host) command(args ...string) *exec.Cmd {
	cmd := exec.Command(h.program, args...)
	cmd.Env = append(os.Environ(), "HOME="+h.dir, "XDG_STATE_HOME="+h.dir, "SYNCAGENT_CONFIG="+h.config(), "SYNCAGENT_API_HTTP=127.0.0.1:0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	return cmd
}

// cli runs a command to its end.
func (h *host) cli(args ...string) (stdout, stderr string, code int) {
	h.t.Helper()
	cmd := h.command(args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	stuck := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	defer stuck.Stop()
	if err := cmd.Wait(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		h.t.Fatalf("%s %s: %v", h.name, strings.Join(args, " "), err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// must runs a command that has to succeed, and gives its output.
func (h *host) must(args ...string) string {
	h.t.Helper()
	out, errs, code := h.cli(args...)
	if code != 0 {
		h.t.Fatalf("%s: syncagent %s: exit code %d\n%s%s", h.name, strings.Join(args, " "), code, out, errs)
	}
	return out
}

// start runs the agent and waits until it is ready.
func (h *host) start() {
	h.t.Helper()
	if err := h.tryStart(); err != nil {
		h.t.Fatal(err)
	}
}

// tryStart is start for agents that may fail to start, and for other goroutines than the test's.
func (h *host) tryStart() error {
	cmd := h.command("agent", "--ready-fd", "3")
	cmd.Env = append(cmd.Env, h.env...)
	a, err := process.Launch(cmd, h.log())
	if err != nil {
		return err
	}
	h.process = a
	if err := a.Ready(patience); err != nil {
		h.process = nil
		return fmt.Errorf("%s: %w", h.name, err)
	}
	return nil
}

// kill ends the agent as a crash does.
func (h *host) kill() {
	if h.process != nil {
		h.process.Kill()
		h.process = nil
	}
}

// stop ends the agent as the service manager does; it has to exit with code 0. It gives the time that took.
func (h *host) stop() time.Duration {
	h.t.Helper()
	began := time.Now()
	if err := h.process.Process.Signal(syscall.SIGTERM); err != nil {
		h.t.Fatal(err)
	}
	select {
	case <-h.process.Exited:
	case <-time.After(patience):
		h.t.Fatalf("%s does not stop", h.name)
	}
	took := time.Since(began)
	if code := h.process.ProcessState.ExitCode(); code != 0 {
		h.t.Errorf("%s stopped with exit code %d", h.name, code)
	}
	h.process = nil
	return took
}

// alive tells whether the agent that start started still runs.
func (h *host) alive() bool { return h.process != nil && h.process.Alive() }

func within(parent context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(parent, patience)
}

// put writes one path through the API.
func (h *host) put(path, value string) error {
	ctx, cancel := within(context.Background())
	defer cancel()
	_, err := h.client.KV.Put(ctx, connect.NewRequest(&apiv1.PutRequest{Path: path, Value: []byte(value)}))
	return err
}

func (h *host) mustPut(path, value string) {
	h.t.Helper()
	if err := h.put(path, value); err != nil {
		h.t.Fatalf("%s: put %s: %v", h.name, path, err)
	}
}

// batch writes paths as one atomic write. An empty value deletes.
func (h *host) batch(values map[string]string) error {
	req := &apiv1.BatchRequest{}
	for path, value := range values {
		op := &apiv1.Op{Op: &apiv1.Op_Put{Put: &apiv1.PutRequest{Path: path, Value: []byte(value)}}}
		if value == "" {
			op = &apiv1.Op{Op: &apiv1.Op_Delete{Delete: &apiv1.DeleteRequest{Path: path}}}
		}
		req.Ops = append(req.Ops, op)
	}
	ctx, cancel := within(context.Background())
	defer cancel()
	_, err := h.client.KV.Batch(ctx, connect.NewRequest(req))
	return err
}

func (h *host) mustBatch(values map[string]string) {
	h.t.Helper()
	if err := h.batch(values); err != nil {
		h.t.Fatalf("%s: batch: %v", h.name, err)
	}
}

// list gives every path below a prefix with its value, all of one state.
func (h *host) list(prefix string) (map[string]string, error) {
	ctx, cancel := within(context.Background())
	defer cancel()
	stream, err := h.client.KV.List(ctx, connect.NewRequest(&apiv1.ListRequest{Prefix: prefix, Values: true}))
	if err != nil {
		return nil, err
	}
	defer stream.Close() //nolint:errcheck // it was read to its end, or its error is reported
	values := map[string]string{}
	for stream.Receive() {
		for _, e := range stream.Msg().Entries {
			values[e.Path] = string(e.Value)
		}
	}
	return values, stream.Err()
}

func (h *host) mustList(prefix string) map[string]string {
	h.t.Helper()
	values, err := h.list(prefix)
	if err != nil {
		h.t.Fatalf("%s: list %s: %v", h.name, prefix, err)
	}
	return values
}

// shows tells whether the host shows value at path.
func (h *host) shows(path, value string) error {
	values, err := h.list(path)
	if err != nil {
		return err
	}
	if values[path] != value {
		return fmt.Errorf("%s shows %q at %s, want %q", h.name, values[path], path, value)
	}
	return nil
}

func (h *host) tryStatus() (*apiv1.StatusResponse, error) {
	ctx, cancel := within(context.Background())
	defer cancel()
	res, err := h.client.Agent.Status(ctx, connect.NewRequest(&apiv1.StatusRequest{}))
	if err != nil {
		return nil, err
	}
	return res.Msg, nil
}

func (h *host) status() *apiv1.StatusResponse {
	h.t.Helper()
	s, err := h.tryStatus()
	if err != nil {
		h.t.Fatalf("%s: status: %v", h.name, err)
	}
	return s
}

// background runs a command beside the test until stopped; out is its standard output.
func (h *host) background(args ...string) (cmd *exec.Cmd, out io.Reader) {
	h.t.Helper()
	cmd = h.command(args...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
		if h.t.Failed() && errs.Len() > 0 {
			h.t.Logf("%s: syncagent %s: %s", h.name, strings.Join(args, " "), errs.String())
		}
	})
	return cmd, out
}

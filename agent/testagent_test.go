package agent

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	"syncagent/acl"
	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore/record"
)

type testNetwork struct {
	id    record.NetworkID
	admin ed25519.PrivateKey
}

func newTestNetwork(t *testing.T) testNetwork {
	t.Helper()
	_, admin, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	g := record.Genesis{Admins: []record.PublicKey{record.KeyOf(admin)}}
	_, _ = rand.Read(g.Nonce[:])
	return testNetwork{g.ID(), admin}
}

func (n testNetwork) policy(serial int, identities map[string]record.PublicKey, lines ...string) []byte {
	text := fmt.Sprintf("syncagent-policy 1\nnetwork %s\nserial %d\n", n.id, serial)
	for name, key := range identities {
		text += fmt.Sprintf("identity %s %s\n%s peer\n%s / rw\n", name, key, name, name)
	}
	text += strings.Join(append(lines, ""), "\n")
	return acl.Sign([]byte(text), n.id, n.admin)
}

type testAgent struct {
	t      *testing.T
	config Config
	key    record.PublicKey
	agent  *Agent
	client *Client
	stop   func() time.Duration // ends Run, checks that it was clean, and gives the time it took
}

func newTestAgent(t *testing.T, n testNetwork) *testAgent {
	t.Helper()
	dir := t.TempDir()
	c := DefaultConfig()
	c.File, c.Name, c.Network = filepath.Join(dir, "syncagent.yaml"), "test", n.id.String()
	c.Admins = []string{record.KeyOf(n.admin).String()}
	c.DataDir, c.API.Socket, c.API.HTTP = filepath.Join(dir, "data"), filepath.Join(dir, "s"), "127.0.0.1:0"
	c.Listen = []string{"/ip4/127.0.0.1/tcp/0"}
	c.Store.MinFree = 16 << 20
	key, err := CreateKey(c.IdentityFile())
	if err != nil {
		t.Fatal(err)
	}
	client, err := Dial(c.API.Socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return &testAgent{t: t, config: c, key: record.KeyOf(key), client: client}
}

func (a *testAgent) start() {
	a.t.Helper()
	ready := make(chan struct{})
	agent, err := New(a.config, Options{Version: "test", Log: testLog(a.t), OnReady: func() { close(ready) }})
	if err != nil {
		a.t.Fatal(err)
	}
	a.agent = agent
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- agent.Run(ctx) }()
	select {
	case <-ready:
	case err := <-done:
		cancel()
		a.t.Fatalf("agent ended at its start: %v", err)
	case <-time.After(20 * time.Second):
		cancel()
		a.t.Fatal("agent was not ready in time")
	}
	var took time.Duration
	var once sync.Once
	a.stop = func() time.Duration {
		once.Do(func() {
			start := time.Now()
			cancel()
			if err := <-done; err != nil {
				a.t.Errorf("agent stopped with: %v", err)
			}
			took = time.Since(start)
			a.client.Close()
		})
		return took
	}
	a.t.Cleanup(func() { a.stop() })
}

func (a *testAgent) fails() error {
	agent, err := New(a.config, Options{Log: quiet()})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return agent.Run(ctx)
}

func (a *testAgent) put(path, value string) error {
	_, err := a.client.KV.Put(a.t.Context(), put(path, value))
	return err
}

func (a *testAgent) get(path string) (string, error) {
	r, err := a.client.KV.Get(a.t.Context(), connect.NewRequest(&apiv1.GetRequest{Path: path}))
	if err != nil {
		return "", err
	}
	return string(r.Msg.GetEntry().GetValue()), nil
}

func (a *testAgent) status() *apiv1.StatusResponse {
	a.t.Helper()
	r, err := a.client.Agent.Status(a.t.Context(), connect.NewRequest(&apiv1.StatusRequest{}))
	if err != nil {
		a.t.Fatal(err)
	}
	return r.Msg
}

func testLog(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(&logWriter{t: t}, &slog.HandlerOptions{Level: slog.LevelInfo}))
}

type logWriter struct {
	t    *testing.T
	mu   sync.Mutex
	done bool
}

func (w *logWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.t.Cleanup(func() { w.mu.Lock(); w.done = true; w.mu.Unlock() })
	if !w.done {
		w.t.Log(strings.TrimSpace(string(b)))
	}
	return len(b), nil
}

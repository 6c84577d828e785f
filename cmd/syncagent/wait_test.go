package main

import (
	"context"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"syncagent/agent"
)

// An agent that does not answer whether others have a write changes nothing about its being stored: exit code 7.
func TestWaitForAnAgentThatFallsSilent(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })}
	go s.Serve(l) //nolint:errcheck // it ends with the test
	t.Cleanup(func() { _ = s.Close() })
	client, err := agent.Dial(socket)
	if err != nil {
		t.Fatal(err)
	}
	w := &waiter{cli: &cli{}}
	_, err = w.ask(t.Context(), client, write{"v", []string{"/a"}}, 50*time.Millisecond-waitSlack)
	if f := classify(t.Context(), err); f.exit != exitReplicas {
		t.Errorf("exit code %d: %v", f.exit, err)
	}
	interrupted, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = w.ask(interrupted, client, write{"v", []string{"/a"}}, time.Minute)
	if f := classify(interrupted, err); f.exit != exitInterrupted {
		t.Errorf("exit code %d: %v", f.exit, err)
	}
}

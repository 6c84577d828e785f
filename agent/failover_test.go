package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore/record"
)

// rude is a server that answers every request in one way, and counts them.
func rude(t *testing.T, calls *atomic.Int32, answer http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		_, _ = io.Copy(io.Discard, r.Body)
		answer(w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func hangUp(w http.ResponseWriter, _ *http.Request) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err == nil {
		_ = conn.Close()
	}
}

func stopping(w http.ResponseWriter, r *http.Request) {
	_ = connect.NewErrorWriter().Write(w, r, toConnect(&Error{Code: CodeStopping, Message: "agent stops"}))
}

// What surely did not arrive, was refused, or only reads goes to the next agent. Other writes do not.
func TestClientMovesOn(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := "http://" + free.Addr().String()
	_ = free.Close()
	get := func(c *Client) error {
		_, err := c.KV.Count(t.Context(), connect.NewRequest(&apiv1.CountRequest{Prefix: "/"}))
		return err
	}
	write := func(c *Client) error { _, err := c.KV.Put(t.Context(), put("/x", "v")); return err }
	var calls atomic.Int32
	broken, stops := rude(t, &calls, hangUp), rude(t, &calls, stopping)
	for _, test := range []struct {
		name    string
		first   string
		do      func(*Client) error
		code    Code
		message string
	}{
		{"read, nobody there", nobody, get, "", ""},
		{"write, nobody there", nobody, write, "", ""},
		{"read, no socket", filepath.Join(t.TempDir(), "none"), get, "", ""},
		{"write, no socket", filepath.Join(t.TempDir(), "none"), write, "", ""},
		{"read, the agent stops", stops, get, "", ""},
		{"write, the agent stops", stops, write, "", ""},
		{"read, the connection breaks", broken, get, "", ""},
		{"write, the connection breaks", broken, write, CodeUnreachable, "may have been made, or not"},
	} {
		t.Run(test.name, func(t *testing.T) {
			good := startServer(t)
			c, err := Dial(test.first, good.socket)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			err = test.do(c)
			if test.code == "" && err != nil {
				t.Fatal(err)
			}
			if test.code != "" {
				if e := ErrorOf(err); e == nil || e.Code != test.code || !strings.Contains(e.Message, test.message) {
					t.Fatalf("%v", err)
				}
				if len(good.fake.items) > 0 {
					t.Error("the write was made again on the other agent")
				}
			}
			if err := write(c); err != nil { // the client stays with the one that answers
				t.Errorf("the next write: %v", err)
			}
		})
	}
	c, err := Dial(nobody, nobody, nobody)
	if err != nil {
		t.Fatal(err)
	}
	if e := ErrorOf(get(c)); e == nil || e.Code != CodeUnreachable {
		t.Errorf("all are down: %v", e)
	}
	calls.Store(0)
	if c, err = Dial(stops, stops); err != nil {
		t.Fatal(err)
	}
	if e := ErrorOf(get(c)); e == nil || e.Code != CodeStopping || calls.Load() != 2 {
		t.Errorf("all stop: %v after %d calls", e, calls.Load())
	}
}

// Every call either changes something or can be sent again: none may be forgotten.
func TestRepeatableKnowsEveryCall(t *testing.T) {
	changes := []string{"Put", "Delete", "Batch", "Restore", "Upload", "PausePeers", "ResumePeers", "Reload", "ConfirmMirror", "Scrub", "ResetClock", "Apply"}
	services := apiv1.File_agent_api_v1_syncagent_proto.Services()
	for i := range services.Len() {
		for methods, n := services.Get(i).Methods(), 0; n < methods.Len(); n++ {
			if name := string(methods.Get(n).Name()); repeatable[name] == slices.Contains(changes, name) {
				t.Errorf("%s: repeatable is %v", name, repeatable[name])
			}
		}
	}
}

// followed is what a follower made of the events, and what was wrong with them.
type followed struct {
	state  chan map[string]string // after each change, path to version
	faults chan string
}

func follow(t *testing.T, c *Client, prefix string) followed {
	t.Helper()
	f := followed{make(chan map[string]string, 1), make(chan string, 100)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	t.Cleanup(func() { cancel(); <-done })
	state, highest, synced := map[string]string{}, map[string]string{}, false
	go func() {
		defer close(done)
		err := c.Follow(ctx, &apiv1.WatchRequest{Prefixes: []string{prefix}}, func(e *apiv1.Event) error {
			path, version := e.GetEntry().GetPath(), e.GetEntry().GetVersion()
			switch e.GetType() {
			case apiv1.EventType_EVENT_TYPE_PUT:
				if version <= highest[path] {
					f.faults <- fmt.Sprintf("%s went back from %s to %s", path, highest[path], version)
				}
				state[path], highest[path] = version, version
			case apiv1.EventType_EVENT_TYPE_DELETE:
				if state[path] == "" {
					f.faults <- path + " was deleted, but not there"
				}
				delete(state, path)
				highest[path] = max(highest[path], version)
			case apiv1.EventType_EVENT_TYPE_RESET:
				f.faults <- "reset"
			case apiv1.EventType_EVENT_TYPE_SYNCED:
				if synced {
					f.faults <- "synced twice"
				}
				synced = true
			}
			if e.GetMore() || !synced {
				return nil
			}
			now := map[string]string{}
			for k, v := range state {
				now[k] = v
			}
			select {
			case <-f.state:
			default:
			}
			f.state <- now
			return nil
		})
		if !errors.Is(err, context.Canceled) && ErrorOf(err).Code != CodeCanceled {
			f.faults <- fmt.Sprintf("follow ended: %v", err)
		}
	}()
	return f
}

// until waits for a state, and demands that nothing was wrong on the way.
func (f followed) until(t *testing.T, what string, ok func(map[string]string) bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	for {
		select {
		case s := <-f.state:
			if ok(s) {
				return
			}
		case fault := <-f.faults:
			t.Fatalf("%s: %s", what, fault)
		case <-deadline:
			t.Fatalf("%s: not in time", what)
		}
	}
}

func (a *testAgent) version(path string) string {
	r, err := a.client.KV.Get(a.t.Context(), connect.NewRequest(&apiv1.GetRequest{Path: path}))
	if err != nil {
		return ""
	}
	return r.Msg.GetEntry().GetVersion()
}

func (a *testAgent) remove(path string) {
	a.t.Helper()
	if _, err := a.client.KV.Delete(a.t.Context(), connect.NewRequest(&apiv1.DeleteRequest{Path: path})); err != nil {
		a.t.Fatal(err)
	}
}

func (a *testAgent) mustPut(path, value string) string {
	a.t.Helper()
	if err := a.put(path, value); err != nil {
		a.t.Fatal(err)
	}
	return a.version(path)
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("%s: not in time", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Two agents, one of them behind when the other is lost: the follower sees each change once, none twice, and nothing
// that goes back.
func TestG12_FollowGoesOnWithAnotherAgent(t *testing.T) {
	n := newTestNetwork(t)
	a, b := newTestAgent(t, n), newTestAgent(t, n)
	policy := n.policy(1, map[string]record.PublicKey{"a": a.key, "b": b.key})
	a.start()
	id, err := a.client.Agent.ID(t.Context(), connect.NewRequest(&apiv1.IDRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	a.config.Listen = []string{strings.Split(id.Msg.GetAddrs()[0], "/p2p/")[0]} // the same after a restart
	b.config.Bootstrap = id.Msg.GetAddrs()
	b.start()
	for _, x := range []*testAgent{a, b} {
		if _, err := x.client.Policy.Apply(t.Context(), connect.NewRequest(&apiv1.ApplyRequest{Signed: policy})); err != nil {
			t.Fatal(err)
		}
	}
	same := func() bool { return a.status().GetViewDigest() == b.status().GetViewDigest() }
	a.mustPut("/f/kept", "1")
	a.mustPut("/f/gone", "1")
	a.mustPut("/f/old", "1")
	eventually(t, "b has it", same)

	c, err := Dial(a.config.API.Socket, b.config.API.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	f := follow(t, c, "/f")
	f.until(t, "the state", func(s map[string]string) bool { return len(s) == 3 })

	// B hears no more. What it misses: a new path, a later version, a delete.
	if _, err := b.client.Agent.PausePeers(t.Context(), connect.NewRequest(&apiv1.PausePeersRequest{})); err != nil {
		t.Fatal(err)
	}
	newer, later := a.mustPut("/f/new", "1"), a.mustPut("/f/old", "2")
	a.remove("/f/gone")
	f.until(t, "what b misses", func(s map[string]string) bool {
		return s["/f/new"] == newer && s["/f/old"] == later && s["/f/gone"] == ""
	})
	a.stop()
	own := b.mustPut("/f/own", "1")
	f.until(t, "a write on b", func(s map[string]string) bool {
		return s["/f/own"] == own && s["/f/new"] == newer && s["/f/old"] == later && s["/f/gone"] == "" && len(s) == 4
	})
	b.remove("/f/kept")
	f.until(t, "a delete on b", func(s map[string]string) bool { return s["/f/kept"] == "" && len(s) == 3 })

	// A comes back, and b catches up: all of it is known, but for what is new.
	a.start()
	if _, err := b.client.Agent.ResumePeers(t.Context(), connect.NewRequest(&apiv1.ResumePeersRequest{})); err != nil {
		t.Fatal(err)
	}
	eventually(t, "equal again", same)
	last := a.mustPut("/f/old", "3")
	f.until(t, "a write on a", func(s map[string]string) bool { return s["/f/old"] == last && len(s) == 3 })
	select {
	case fault := <-f.faults:
		t.Error(fault)
	default:
	}
}

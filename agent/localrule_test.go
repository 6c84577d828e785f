package agent

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"
	"unsafe"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	apiv1 "syncagent/agent/api/v1"
	"syncagent/agent/api/v1/apiv1connect"
	"syncagent/crdtstore/record"
)

// somebody is a user that tests act as; the numbers need no names.
type somebody struct {
	uid, gid int
	groups   []uint32
}

// dial opens a socket as that user. It takes a thread of its own, which ends with it.
func (s somebody) dial(file string) (c net.Conn, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for ever: a thread with another user is of no use to others
		set := func(call, a, b, c uintptr) {
			if _, _, errno := unix.RawSyscall(call, a, b, c); errno != 0 && err == nil {
				err = errno
			}
		}
		groups := append([]uint32{uint32(s.gid)}, s.groups...)
		set(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(&groups[0])), 0)
		set(unix.SYS_SETRESGID, uintptr(s.gid), uintptr(s.gid), uintptr(s.gid))
		set(unix.SYS_SETRESUID, uintptr(s.uid), uintptr(s.uid), uintptr(s.uid))
		if err == nil {
			c, err = net.Dial("unix", file)
		}
	}()
	<-done
	return c, err
}

// client gives clients of the agent whose connections that user opens.
func (s somebody) client(t *testing.T, file string) (*Client, *http.Client) {
	t.Helper()
	transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return s.dial(file) }}
	t.Cleanup(transport.CloseIdleConnections)
	h := &http.Client{Transport: transport}
	return &Client{
		KV: apiv1connect.NewKVClient(h, "http://agent"), Agent: apiv1connect.NewAgentClient(h, "http://agent"),
		Policy: apiv1connect.NewPolicyClient(h, "http://agent"), http: h,
	}, h
}

func codeOfCall[T any](_ T, err error) Code {
	if err == nil {
		return ""
	}
	return ErrorOf(err).Code
}

// Rules for users and groups of the host narrow who opens the socket, and change by a reload.
func TestSocketOpenedByAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("acting as other users needs root")
	}
	n := newTestNetwork(t)
	a := newTestAgent(t, n)
	grafana := record.PublicKey(newKey(t).Public().(ed25519.PublicKey))
	policy := func(serial int, lines ...string) []byte {
		lines = append(lines, "identity grafana "+grafana.String())
		return n.policy(serial, map[string]record.PublicKey{"web1": a.key}, lines...)
	}
	if err := os.WriteFile(a.config.PolicyFile(), policy(1, "grafana /metrics read"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "syncagent-local-*") // one that others can look into
	if err == nil {
		err = os.Chmod(dir, 0o755) //nolint:gosec // for others it is
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	a.config.API.Socket, a.config.API.SocketMode = filepath.Join(dir, "s"), 0o666
	a.config.LocalRules = []LocalRuleConfig{
		{User: "54321", Rules: []string{"/certs rw"}},
		{Group: "54400", As: "grafana"},
	}
	if a.client, err = Dial(a.config.API.Socket); err != nil {
		t.Fatal(err)
	}
	a.start()
	for _, path := range []string{"/certs/a", "/certs2/a", "/metrics/a"} {
		if err := a.put(path, "v"); err != nil { // root acts as the agent
			t.Fatal(err)
		}
	}
	ctx := t.Context()
	get := func(c *Client, path string) Code {
		return codeOfCall(c.KV.Get(ctx, connect.NewRequest(&apiv1.GetRequest{Path: path})))
	}
	want := func(what string, got, want Code) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	deploy, _ := somebody{uid: 54321, gid: 54321}.client(t, a.config.API.Socket)
	want("read by rule", get(deploy, "/certs/a"), "")
	want("read beside the rule", get(deploy, "/certs2/a"), CodeDenied)
	want("write by rule", codeOfCall(deploy.KV.Put(ctx, put("/certs/b", "v"))), "")
	want("write beside the rule", codeOfCall(deploy.KV.Put(ctx, put("/metrics/b", "v"))), CodeDenied)
	want("control", codeOfCall(deploy.Agent.PausePeers(ctx, connect.NewRequest(&apiv1.PausePeersRequest{}))), CodeDenied)
	graph, _ := somebody{uid: 54322, gid: 54322, groups: []uint32{54400}}.client(t, a.config.API.Socket)
	want("read as an identity", get(graph, "/metrics/a"), "")
	want("read beside the identity", get(graph, "/certs/a"), CodeDenied)
	want("write as an identity that reads", codeOfCall(graph.KV.Put(ctx, put("/metrics/b", "v"))), CodeDenied)
	stranger, plain := somebody{uid: 54323, gid: 54323}.client(t, a.config.API.Socket)
	want("read by a stranger", get(stranger, "/certs/a"), CodeDenied)
	for _, path := range []string{"/v1/kv/certs/a", "/", "/metrics", "/debug/pprof/"} {
		if r, err := plain.Get("http://agent" + path); err != nil || r.StatusCode != http.StatusForbidden {
			t.Errorf("%s for a stranger: %v %v", path, r, err)
		}
	}

	// A policy that takes the identity's right, and a reload that takes the user's, count at once; who is in is put out.
	conn, err := somebody{uid: 54321, gid: 54321}.dial(a.config.API.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // the agent closes it
	if err := applyPolicy(ctx, a.client, policy(2)); err != nil {
		t.Fatal(err)
	}
	want("read as an identity without the right", get(graph, "/metrics/a"), CodeDenied)
	c := a.config
	c.LocalRules = []LocalRuleConfig{{User: "54323", Rules: []string{"/certs read"}}}
	if applied, _, err := a.agent.Reload(c); err != nil || !slices.Equal(applied, []string{"local_rules"}) {
		t.Fatalf("%q %v", applied, err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the connection of who has no rule any more: %v", err)
	}
	waitFor(t, func() bool { return get(stranger, "/certs/a") == "" && get(deploy, "/certs/a") == CodeDenied })
}

// Whoever loses its rights by a reload is put out then, not at the next look at all who are in.
func TestReloadPutsOutAtOnce(t *testing.T) {
	c := DefaultConfig()
	c.LocalRules = []LocalRuleConfig{{User: "54321", Rules: []string{"/certs rw"}}}
	d := &doors{bell: make(chan struct{}, 1), tick: 24 * time.Hour, socket: newDoor(nil)}
	reload := func() {
		t.Helper()
		use, err := d.prepare(&c)
		if err != nil {
			t.Fatal(err)
		}
		use()
	}
	reload()
	ours, theirs := net.Pipe()
	v := &visit{Conn: ours, door: d.socket}
	d.socket.enter(v)
	if err := v.meet(func() (*caller, error) { return localCaller(*d.rules.Load(), 0, credentials{uid: 54321}) }); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() { _ = d.run(ctx) })
	defer done.Wait()
	defer cancel()
	c.LocalRules[0].Rules[0] = "/certs read"
	reload()
	_ = theirs.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := theirs.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("who may only read now is still in: %v", err)
	}
}

func applyPolicy(ctx context.Context, c *Client, signed []byte) error {
	_, err := c.Policy.Apply(ctx, connect.NewRequest(&apiv1.ApplyRequest{Signed: signed}))
	return err
}

func newKey(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// waitFor waits until something is so.
func waitFor(t *testing.T, so func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it did not happen in time")
		}
	}
}

func TestLocalCaller(t *testing.T) {
	rules, err := localRules([]LocalRuleConfig{
		{User: "1001", Rules: []string{"/certs rw", "/public read"}},
		{Group: "2000", Rules: []string{"/drop write"}},
		{Group: "2001", As: "web1"},
		{User: "1003", Rules: []string{"/ rw", "control"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	const own = 77
	p := fakePolicy{serial: 1}
	for _, test := range []struct {
		name                  string
		of                    credentials
		refused               bool
		reads, writes, denied []string
		control               bool
	}{
		{"user", credentials{1001, []uint32{5}}, false, []string{"/certs", "/certs/a", "/public/x"}, []string{"/certs/a"}, []string{"/certs2", "/drop/x", "/"}, false},
		{"user and group", credentials{1001, []uint32{5, 2000}}, false, []string{"/certs/a"}, []string{"/certs/a", "/drop/x"}, []string{"/other"}, false},
		{"group", credentials{1002, []uint32{2000}}, false, nil, []string{"/drop", "/drop/x"}, []string{"/certs/a", "/"}, false},
		{"a user's number as group", credentials{2000, []uint32{1001}}, true, nil, nil, nil, false},
		{"nobody", credentials{65534, []uint32{65534}}, true, nil, nil, nil, false},
		{"no group at all", credentials{65534, nil}, true, nil, nil, nil, false},
		{"control", credentials{1003, nil}, false, []string{"/a"}, []string{"/a"}, nil, true},
		{"root", credentials{0, nil}, false, []string{"/a"}, []string{"/a"}, nil, true},
		{"the agent's own user", credentials{own, nil}, false, []string{"/a"}, []string{"/a"}, nil, true},
	} {
		c, err := localCaller(rules, own, test.of)
		if (err != nil) != test.refused {
			t.Errorf("%s: refused: %v", test.name, err)
		}
		if err != nil {
			continue
		}
		if c.control != test.control {
			t.Errorf("%s: control %v", test.name, c.control)
		}
		for _, path := range test.reads {
			if !c.rights.reads(p, path) {
				t.Errorf("%s may not read %s", test.name, path)
			}
		}
		for _, path := range test.writes {
			if !c.rights.writes(p, path) {
				t.Errorf("%s may not write %s", test.name, path)
			}
		}
		for _, path := range test.denied {
			if c.rights.reads(p, path) || c.rights.writes(p, path) {
				t.Errorf("%s may do something at %s", test.name, path)
			}
		}
	}
	if c, err := localCaller(nil, own, credentials{65534, nil}); err != nil || !c.control || c.mark != "" {
		t.Errorf("without rules somebody does not act as the agent: %v", err)
	}
}

package agent

import (
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect"
	"golang.org/x/net/http2"

	apiv1 "syncagent/agent/api/v1"
)

// TestRefusedCertificateIsSaid holds that a client whose certificate is refused is told so, however quickly the agent
// closes the connection, and never that there is no agent.
func TestRefusedCertificateIsSaid(t *testing.T) {
	a := newTLSAgent(t)
	stranger := a.dir + "/stranger.key"
	if _, err := CreateKey(stranger); err != nil {
		t.Fatal(err)
	}
	for n := range 100 {
		c, err := DialTargets(Target{Address: a.url, Key: stranger, CA: a.config.API.TLS.ClientCA})
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.KV.Put(t.Context(), connect.NewRequest(&apiv1.PutRequest{Path: "/certs/web", Value: make([]byte, 100<<10)}))
		if e := ErrorOf(err); e == nil || e.Code != CodeDenied {
			t.Errorf("try %d: %v", n, err)
		}
		c.Close()
	}
}

// A host that dies says nothing, not even that its connections are closed. A watch goes on with the next agent.
func TestWatchLeavesASilentHost(t *testing.T) {
	a := newTLSAgent(t)
	dying, die := mortalHost(t, strings.TrimPrefix(a.url, "https://"))
	target := Target{Key: a.config.IdentityFile(), CA: a.config.API.TLS.ClientCA}
	first, second := target, target
	first.Address, second.Address = "https://"+dying, a.url
	c, err := DialTargets(first, second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, e := range c.http.Transport.(*failover).all { // else the test takes as long
		e.transport.(*http2.Transport).ReadIdleTimeout /= 50 //nolint:staticcheck // as in agentTransport
		e.transport.(*http2.Transport).PingTimeout /= 5      //nolint:staticcheck // as in agentTransport
	}
	f := follow(t, c, "/f")
	a.mustPut("/f/before", "1")
	f.until(t, "before", func(s map[string]string) bool { return s["/f/before"] != "" })
	die()
	a.mustPut("/f/after", "1")
	f.until(t, "after", func(s map[string]string) bool { return s["/f/after"] != "" })
}

// mortalHost passes everything on to a server until it dies: then nothing, and no connection is closed.
func mortalHost(t *testing.T, server string) (address string, die func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var dead atomic.Bool
	die = func() {
		dead.Store(true)
		_ = l.Close()
	}
	t.Cleanup(die)
	pass := func(to, from net.Conn) {
		_, _ = io.Copy(writerFunc(func(b []byte) (int, error) {
			if dead.Load() {
				return len(b), nil
			}
			return to.Write(b)
		}), from)
	}
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", server)
			if err != nil {
				_ = in.Close()
				continue
			}
			t.Cleanup(func() { _, _ = in.Close(), out.Close() })
			go pass(out, in)
			go pass(in, out)
		}
	}()
	return l.Addr().String(), die
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

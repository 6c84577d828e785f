package agent

import (
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"testing"

	"connectrpc.com/connect"

	"syncagent/agent/api/v1/apiv1connect"
)

func newKVClient(h connect.HTTPClient, options ...connect.ClientOption) apiv1connect.KVClient {
	return apiv1connect.NewKVClient(h, "http://agent", options...)
}

func TestSocketModeAndCleanUp(t *testing.T) {
	dir := t.TempDir()
	c := APIConfig{Socket: filepath.Join(dir, "run", "s"), SocketMode: 0o620}
	l, err := listenSocket(c)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(c.Socket)
	if err != nil || info.Mode().Type() != fs.ModeSocket || info.Mode().Perm() != 0o620 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	if _, err := listenSocket(c); codeOf(err) != CodeInUse {
		t.Errorf("a live socket: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if names, err := os.ReadDir(filepath.Dir(c.Socket)); err != nil || len(names) != 0 {
		t.Errorf("left behind: %v %v", names, err)
	}
}

func TestStaleSocketIsReplaced(t *testing.T) {
	c := APIConfig{Socket: filepath.Join(t.TempDir(), "s"), SocketMode: 0o660}
	old, err := net.ListenUnix("unix", &net.UnixAddr{Name: c.Socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	old.SetUnlinkOnClose(false)
	if err := old.Close(); err != nil { // as kill -9 leaves it
		t.Fatal(err)
	}
	l, err := listenSocket(c)
	if err != nil {
		t.Fatal(err)
	}
	// A listener whose name another agent has taken over leaves that name alone.
	if err := os.Remove(c.Socket); err != nil {
		t.Fatal(err)
	}
	other, err := listenSocket(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if conn, err := net.Dial("unix", c.Socket); err != nil {
		t.Errorf("the other agent's socket is gone: %v", err)
	} else {
		_ = conn.Close()
	}
	if err := other.Close(); err != nil {
		t.Error(err)
	}
}

func TestSocketIsNeverAFile(t *testing.T) {
	c := APIConfig{Socket: filepath.Join(t.TempDir(), "s"), SocketMode: 0o660}
	if err := os.WriteFile(c.Socket, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listenSocket(c); codeOf(err) != CodeInUse {
		t.Errorf("%v", err)
	}
	if b, err := os.ReadFile(c.Socket); err != nil || string(b) != "precious" {
		t.Errorf("%q %v", b, err)
	}
}

func TestHTTPPortInUse(t *testing.T) {
	l, err := listenTCP("api.http", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // only its port matters
	if _, err := listenTCP("api.http", l.Addr().String()); codeOf(err) != CodeInUse {
		t.Errorf("%v", err)
	}
}

func TestUnreachable(t *testing.T) {
	client, err := Dial(filepath.Join(t.TempDir(), "none.sock"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.KV.Put(t.Context(), put("/a", ""))
	if e := ErrorOf(err); e.Code != CodeUnreachable || e.Hint == "" {
		t.Errorf("%+v", e)
	}
	t.Log(ErrorOf(err).Message)
	for _, target := range []string{"", "https://x", "http://", "ftp://x", "://"} {
		if _, err := Dial(target); err == nil {
			t.Errorf("%q was accepted", target)
		}
	}
}

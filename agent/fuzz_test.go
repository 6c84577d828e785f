package agent

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"testing"

	"syncagent/configs"
)

// FuzzConfig: a configuration is refused with the places of its faults, or is read back the same from what
// `config show` prints.
func FuzzConfig(f *testing.F) {
	f.Add(configs.Example)
	f.Add([]byte("name: x\nmirrors:\n  - {prefix: /p, dir: /d, max_delete: 10%}\n"))
	f.Add([]byte("name: [\n"))
	f.Add([]byte("api: {socket_mode: 0999}\n"))
	none := func(string) (string, bool) { return "", false }
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := parseConfig("/etc/x.yaml", text, none, nil)
		if err != nil {
			return
		}
		again, err := parseConfig("/etc/x.yaml", c.Render(), none, nil)
		if err != nil || !bytes.Equal(c.Render(), again.Render()) {
			t.Fatalf("%v\n%s\nreads as\n%s", err, c.Render(), again.Render())
		}
	})
}

// FuzzRequest: every request to the API is answered, and none is an error of ours.
func FuzzRequest(f *testing.F) {
	s := startServer(f)
	methods := []string{"GET", "POST", "PUT", "DELETE", "HEAD"}
	kinds := []string{"application/json", "application/proto", "application/connect+json", "application/grpc", "text/plain"}
	f.Add(uint8(1), "/syncagent.v1.KV/Put", uint8(0), []byte(`{"path":"/j","value":"aGk="}`))
	f.Add(uint8(1), "/syncagent.v1.KV/Batch", uint8(0), []byte(`{"ops":[{"delete":{"path":"/j"}}]}`))
	f.Add(uint8(1), "/syncagent.v1.KV/WriteSigned", uint8(1), []byte{10, 1, 0})
	f.Add(uint8(1), "/syncagent.v1.KV/Watch", uint8(2), []byte("\x00\x00\x00\x00\x14"+`{"prefixes":["/"]}  `))
	f.Add(uint8(1), "/syncagent.v1.Agent/SetPolicy", uint8(3), []byte{0, 0, 0, 0, 2, 10, 0})
	f.Add(uint8(2), "/v1/kv/a%2F../b", uint8(4), []byte("value"))
	f.Add(uint8(0), "/v1/watch?prefix=/a&since=x", uint8(4), []byte{})
	f.Fuzz(func(t *testing.T, method uint8, path string, kind uint8, body []byte) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel() // watches go on for ever
		r, err := http.NewRequestWithContext(ctx, methods[int(method)%len(methods)], "http://agent/", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if r.URL, err = r.URL.Parse(path); err != nil || r.URL.Host != "agent" || r.URL.Scheme != "http" {
			return
		}
		r.Header.Set("Content-Type", kinds[int(kind)%len(kinds)])
		response, err := s.client.http.Do(r)
		if err != nil {
			t.Fatalf("%s %q: %v", r.Method, path, err)
		}
		defer response.Body.Close() //nolint:errcheck // read only
		if response.ContentLength > 0 {
			_, _ = io.Copy(io.Discard, response.Body) // it may be cut off by our own end
		}
		if response.StatusCode == http.StatusInternalServerError {
			t.Fatalf("%s %q: %s", r.Method, path, response.Status)
		}
	})
}

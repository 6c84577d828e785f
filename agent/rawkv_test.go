package agent

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"syncagent/crdtstore"
	"syncagent/crdtstore/record"
)

func TestRawKV(t *testing.T) {
	s := startServer(t)
	r, _ := s.do(t, "PUT", "/v1/kv/a/b%20c/%C3%A9", "value\x00", "X-Syncagent-Mode", "0600", "X-Syncagent-TTL", "1h")
	if r.StatusCode != 204 {
		t.Fatal(r.Status)
	}
	etag := r.Header.Get("ETag")
	r, body := s.do(t, "GET", "/v1/kv/a/b%20c/%C3%A9", "")
	if r.StatusCode != 200 || body != "value\x00" || r.Header.Get("ETag") != etag || r.Header.Get("X-Syncagent-Mode") != "0600" ||
		r.Header.Get("X-Syncagent-Alias") != "web1" || r.Header.Get("X-Syncagent-Expires") == "" || r.Header.Get("Content-Length") != "6" {
		t.Errorf("%v %q", r, body)
	}
	r, body = s.do(t, "HEAD", "/v1/kv/a/b%20c/%C3%A9", "")
	if r.StatusCode != 200 || body != "" || r.ContentLength != 6 || r.Header.Get("ETag") != etag {
		t.Errorf("HEAD: %v", r)
	}
	if r, _ := s.do(t, "PUT", "/v1/kv/a/b%20c/%C3%A9", "2", "If-None-Match", "*"); r.StatusCode != 412 {
		t.Errorf("If-None-Match: %v", r.Status)
	}
	if r, _ := s.do(t, "PUT", "/v1/kv/a/b%20c/%C3%A9", "2", "If-Match", etag); r.StatusCode != 204 {
		t.Errorf("If-Match: %v", r.Status)
	}
	if r, _ := s.do(t, "PUT", "/v1/kv/a/b%20c/%C3%A9", "2", "If-Match", etag); r.StatusCode != 412 {
		t.Errorf("outdated If-Match: %v", r.Status)
	}
	if r, _ := s.do(t, "DELETE", "/v1/kv/a/b%20c/%C3%A9", ""); r.StatusCode != 204 {
		t.Errorf("DELETE: %v", r.Status)
	}
	r, body = s.do(t, "GET", "/v1/kv/a/b%20c/%C3%A9", "")
	var answer struct {
		Error struct{ Code, Message, Hint string }
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil || r.StatusCode != 404 || answer.Error.Code != "not_found" || answer.Error.Message == "" {
		t.Errorf("%v %s %v", r.Status, body, err)
	}
	exact := strings.Repeat("x", record.MaxInlineValue)
	if r, _ := s.do(t, "PUT", "/v1/kv/big", exact); r.StatusCode != 204 {
		t.Errorf("largest value: %v", r.Status)
	}
	if r, _ := s.do(t, "PUT", "/v1/kv/big", exact+"x"); r.StatusCode != 413 {
		t.Errorf("one byte more: %v", r.Status)
	}
	if r, _ := s.do(t, "POST", "/v1/kv/big", ""); r.StatusCode != 400 || r.Header.Get("Allow") == "" {
		t.Errorf("POST: %v", r.Status)
	}
	if r, _ := s.do(t, "PUT", "/v1/kv/big?if-version=7", ""); r.StatusCode != 400 {
		t.Errorf("unknown parameter: %v", r.Status)
	}
}

func TestRawPathsAreNotCleaned(t *testing.T) {
	s := startServer(t)
	s.fake.items["/b"] = crdtstore.Item{Path: "/b", Version: record.Version{HLC: 1}}
	for target, want := range map[string]int{
		"/v1/kv/b":          204,
		"/v1/kv/%62":        204, // the same path, escaped
		"/v1/kv/a%2F..%2Fb": 400,
		"/v1/kv/a%2fb":      400,
		"/v1/kv/a/../b":     400,
		"/v1/kv/a/%2e%2e/b": 400,
		"/v1/kv/./b":        400,
		"/v1/kv//b":         400,
		"/v1/kv/b/":         400,
		"/v1/kv/":           400,
		"/v1/kv":            400,
		"/v1/kv/%00":        400,
		"/v1/kv/%ff":        400,
		"/v1/kv/%zz":        400,
		"/v1/kv/a\\..\\b":   204, // a backslash is a letter like any other
		"/v1/kv/..":         400,
		"/v1/kv/../kv/b":    400,
		"/x/../v1/kv/b":     405,
		"//v1/kv/b":         405,
		"/V1/kv/b":          405,
		"/v1/kvs/b":         405,
		"/v1/kv/.sys/x":     403,
		"/v1/kv/%2esys/x":   403,
		"/v1/kv/" + strings.Repeat("a/", 500) + "b": 400,
	} {
		conn, err := net.Dial("unix", s.socket)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		fmt.Fprintf(conn, "PUT %s HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nConnection: close\r\n\r\nv", target)
		line, err := bufio.NewReader(conn).ReadString('\n')
		if err != nil || !strings.HasPrefix(line, fmt.Sprintf("HTTP/1.1 %d ", want)) {
			t.Errorf("PUT %.40s: %q %v, want %d", target, line, err, want)
		}
		_ = conn.Close()
	}
	if len(s.fake.items) != 2 {
		t.Errorf("the store has %d paths", len(s.fake.items))
	}
}

package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

// rawStream is an open answer of /v1/watch, read line by line.
type rawStream struct {
	t     *testing.T
	lines *bufio.Scanner
	body  interface{ Close() error }
	kind  string
}

func (s *testServer) openWatch(t *testing.T, target string, header ...string) *rawStream {
	t.Helper()
	r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://agent"+target, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	response, err := s.client.http.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { response.Body.Close() })
	if response.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", target, response.Status)
	}
	return &rawStream{t, bufio.NewScanner(response.Body), response.Body, response.Header.Get("Content-Type")}
}

// event reads the next event, skipping signs of life; nil at the end.
func (s *rawStream) event() (e *EventJSON, name string) {
	s.t.Helper()
	id := ""
	for s.lines.Scan() {
		line := s.lines.Text()
		if v, ok := strings.CutPrefix(line, "id: "); ok {
			id = v
			continue
		}
		if v, ok := strings.CutPrefix(line, "event: "); ok {
			name = v
			continue
		}
		if s.kind == "text/event-stream" {
			v, ok := strings.CutPrefix(line, "data: ")
			if !ok {
				continue
			}
			line = v
		}
		e = new(EventJSON)
		if err := json.Unmarshal([]byte(line), e); err != nil {
			s.t.Fatalf("%q: %v", line, err)
		}
		if s.kind == "text/event-stream" && (id != e.Cursor || name != e.Type && name != "failure") {
			s.t.Errorf("id %q, event %q for %+v", id, name, e)
		}
		return e, name
	}
	return nil, ""
}

func (s *rawStream) want(types ...string) (last *EventJSON) {
	s.t.Helper()
	for _, want := range types {
		e, _ := s.event()
		if e == nil || e.Type != want {
			s.t.Fatalf("event %+v, want %s", e, want)
		}
		last = e
	}
	return last
}

// TestRawWatch holds that plain HTTP tells the same events as the KV service, in two forms, and resumes without gaps.
func TestRawWatch(t *testing.T) {
	for form, header := range map[string][]string{
		"application/x-ndjson": {"Accept", "*/*"},
		"text/event-stream":    {"Accept", "text/event-stream"},
	} {
		t.Run(form, func(t *testing.T) {
			s := startServer(t)
			write := func(path, value string) {
				t.Helper()
				if response, body := s.do(t, http.MethodPut, "/v1/kv"+path, value); response.StatusCode != http.StatusNoContent {
					t.Fatalf("%s: %s", response.Status, body)
				}
			}
			write("/a/1", "line\nline")
			write("/b/1", "x")
			w := s.openWatch(t, "/v1/watch/a?values=true", header...)
			if w.kind != form {
				t.Errorf("content type %q", w.kind)
			}
			if e := w.want("put"); e.Path != "/a/1" || *e.Value != "bGluZQpsaW5l" || *e.Size != 9 {
				t.Errorf("%+v", e)
			}
			cursor := w.want("synced").Cursor
			write("/b/2", "x")
			write("/a/2", "y")
			if e := w.want("put"); e.Path != "/a/2" {
				t.Errorf("%+v", e)
			}
			_ = w.body.Close()
			waitUntil(t, "the watch ended", func() bool { return s.watches.inside.Load() == 0 })

			// Resumed: by the URL, and by what a browser sends when it reconnects, which wins.
			w = s.openWatch(t, "/v1/watch/a?since="+cursor, header...)
			if e := w.want("put"); e.Path != "/a/2" || e.Value != nil {
				t.Errorf("%+v", e)
			}
			w = s.openWatch(t, "/v1/watch/?since=0", append(header, "Last-Event-ID", cursor)...)
			if e := w.want("put", "put"); e.Path != "/a/2" {
				t.Errorf("%+v", e)
			}
			w = s.openWatch(t, "/v1/watch?prefix=/a/2&prefix=/b/2", header...)
			w.want("put", "put", "synced")
		})
	}
}

// TestRawWatchQuiet holds that a watch on which nothing happens answers at once, and ends with a reason when the agent
// stops.
func TestRawWatchQuiet(t *testing.T) {
	s := startServer(t)
	for _, accept := range []string{"", "text/event-stream"} {
		w := s.openWatch(t, "/v1/watch/a?since=0", "Accept", accept)
		done := make(chan *EventJSON, 1)
		go func() { e, _ := w.event(); done <- e }()
		defer func() {
			if e := <-done; e == nil || e.Type != "error" {
				t.Errorf("%q: ended with %+v", accept, e)
			}
		}()
	}
	s.stop()
}

// TestRawWatchRefuses holds what is answered with an error of its own.
func TestRawWatchRefuses(t *testing.T) {
	s := startServer(t, func(s *server) { s.kv.store.(*fakeStore).policy = fakePolicy{serial: 1, denied: []string{"/secret"}} })
	for _, tc := range []struct {
		method, target string
		status         int
	}{
		{http.MethodPost, "/v1/watch/a", http.StatusBadRequest},
		{http.MethodGet, "/v1/watch/a?sience=1", http.StatusBadRequest},
		{http.MethodGet, "/v1/watch/a?since=1&since=2", http.StatusBadRequest},
		{http.MethodGet, "/v1/watch/a?values=yes", http.StatusBadRequest},
		{http.MethodGet, "/v1/watch/a?durable=1", http.StatusBadRequest},
		{http.MethodGet, "/v1/watch/a?since=zzz", http.StatusBadRequest},
		{http.MethodGet, "/v1/watch/a/../b", http.StatusBadRequest},
		{http.MethodGet, "/v1/watch/a%2fb", http.StatusBadRequest},
		{http.MethodGet, "/v1/watch/secret/x", http.StatusForbidden},
		{http.MethodGet, "/v1/watch/.sys", http.StatusForbidden},
		{http.MethodGet, "/v1/watches", http.StatusNotFound},
	} {
		response, body := s.do(t, tc.method, tc.target, "", "Accept", "text/event-stream")
		if response.StatusCode != tc.status || tc.status != http.StatusNotFound && !strings.Contains(body, `"code"`) {
			t.Errorf("%s %s: %s %s", tc.method, tc.target, response.Status, body)
		}
	}
}

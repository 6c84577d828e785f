package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	apiv1 "syncagent/agent/api/v1"
)

const (
	watchPrefix = "/v1/watch"
	// A caller of a quiet watch is told that it was heard, and then now and then that the line is not dead.
	firstSignOfLife = 100 * time.Millisecond
	signOfLife      = 15 * time.Second
)

func isRawWatch(r *http.Request) bool {
	return r.URL.Path == watchPrefix || strings.HasPrefix(r.URL.Path, watchPrefix+"/")
}

// rawWatch answers GET /v1/watch/PREFIX with the events below a prefix: as server-sent events to whoever accepts
// text/event-stream, as JSON lines to others. ?since=CURSOR or the header Last-Event-ID resumes, ?values=true brings
// values along. ?prefix=/P, as often as needed, adds prefixes.
func (s *server) rawWatch(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	line := &eventLine{w: w, events: acceptsEvents(r)}
	err := s.kv.serveWatch(r, line)
	s.answered(r.Context(), "raw watch", true, err, time.Since(start))
	if err != nil && r.Context().Err() == nil {
		line.fail(err)
	}
}

func acceptsEvents(r *http.Request) bool {
	for part := range strings.SplitSeq(r.Header.Get("Accept"), ",") {
		if kind, _, err := mime.ParseMediaType(part); err == nil && kind == "text/event-stream" {
			return true
		}
	}
	return false
}

// parseWatch makes the same request of a URL as Watch of the KV service takes.
func parseWatch(r *http.Request) (*apiv1.WatchRequest, error) {
	if r.Method != http.MethodGet {
		return nil, badRequest("method %s is not known here: GET is", r.Method)
	}
	prefix, err := pathBelow(r.URL, watchPrefix)
	if err != nil {
		return nil, err
	}
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, badRequest("bad query")
	}
	out := &apiv1.WatchRequest{Since: r.Header.Get("Last-Event-ID")}
	for name, values := range q {
		switch {
		case name == "prefix":
			out.Prefixes = values
		case len(values) != 1:
			return nil, badRequest("query parameter %q: want it once", name)
		case name == "since":
			if out.Since == "" { // a client that reconnects knows better than its first URL
				out.Since = values[0]
			}
		case name == "values" && slices.Contains([]string{"true", "false"}, values[0]):
			out.Values = values[0] == "true"
		case name == "durable" && slices.Contains([]string{"true", "false"}, values[0]):
			out.Durable = values[0] == "true"
		default:
			return nil, badRequest("query parameter %q: only since, prefix, values=true and durable=true are known", name)
		}
	}
	if prefix != "" && prefix != "/" || len(out.Prefixes) == 0 {
		out.Prefixes = append(out.Prefixes, prefix)
	}
	return out, nil
}

func (k *kv) serveWatch(r *http.Request, line *eventLine) error {
	request, err := parseWatch(r)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(r.Context())
	var alive sync.WaitGroup
	defer alive.Wait() // nothing is written after the handler
	defer cancel()
	alive.Go(func() { line.keepAlive(ctx, cancel) })
	err = k.watch(ctx, request, line.send)
	if ctx.Err() != nil && r.Context().Err() == nil && k.stop.Err() == nil {
		return nil // keepAlive found the line dead
	}
	return err
}

// eventLine writes events for one caller.
type eventLine struct {
	events bool // server-sent events, else JSON lines

	mu      sync.Mutex
	w       http.ResponseWriter
	started bool
}

// start sends the header of the answer. The caller holds mu.
func (l *eventLine) start() {
	if l.started {
		return
	}
	l.started = true
	h := l.w.Header()
	h.Set("Content-Type", "application/x-ndjson")
	if l.events {
		h.Set("Content-Type", "text/event-stream")
	}
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Accel-Buffering", "no") // for proxies that hold back what comes in drops
	l.w.WriteHeader(http.StatusOK)
}

// send writes the events of a message.
func (l *eventLine) send(ctx context.Context, m *apiv1.WatchResponse) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return l.write(func(w io.Writer) error {
		for _, e := range m.GetEvents() {
			out := NewEventJSON(e)
			if l.events {
				if _, err := fmt.Fprintf(w, "id: %s\nevent: %s\ndata: ", out.Cursor, out.Type); err != nil {
					return err
				}
			}
			if err := json.NewEncoder(w).Encode(out); err != nil { // one line: JSON escapes line ends
				return err
			}
			if l.events {
				if _, err := io.WriteString(w, "\n"); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// write calls fn and sends what it wrote. A caller that takes nothing for sendTimeout loses its connection.
func (l *eventLine) write(fn func(io.Writer) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := http.NewResponseController(l.w)
	_ = c.SetWriteDeadline(time.Now().Add(sendTimeout)) // not every writer can; then other limits hold
	defer c.SetWriteDeadline(time.Time{})               //nolint:errcheck // a dead connection needs no deadline
	l.start()
	if err := fn(l.w); err != nil {
		return err
	}
	return c.Flush()
}

// keepAlive shows that the watch is there while nothing happens. It calls dead when nobody takes that any more.
func (l *eventLine) keepAlive(ctx context.Context, dead func()) {
	timer := time.NewTimer(firstSignOfLife)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		err := l.write(func(w io.Writer) error {
			if !l.events {
				return nil // the header is enough: a JSON line has to be an event
			}
			_, err := io.WriteString(w, ":\n\n")
			return err
		})
		if err != nil {
			dead()
			return
		}
		timer.Reset(signOfLife)
	}
}

// fail tells the caller why the watch ends: as an answer of its own if nothing was sent yet.
func (l *eventLine) fail(err error) {
	l.mu.Lock()
	started := l.started
	l.mu.Unlock()
	if !started {
		writeHTTPError(l.w, err)
		return
	}
	e := classify(err)
	told := map[string]string{"code": string(e.Code), "message": e.Message, "hint": e.Hint}
	body, _ := json.Marshal(map[string]any{"type": "error", "error": told}) // strings always encode
	form := "%s\n"
	if l.events {
		form = "event: failure\ndata: %s\n\n" // "error" is what a browser calls a broken connection
	}
	_ = l.write(func(w io.Writer) error { // the caller may be gone; nobody is left to tell
		_, err := fmt.Fprintf(w, form, body)
		return err
	})
}

package agent

import (
	"bytes"
	"context"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	runtimemetrics "runtime/metrics"
	"strings"
	"sync"
	"time"

	"syncagent/agent/page"
)

const (
	pageInterval = time.Second // between two looks at what changed
	pageViewers  = 16          // live ones; more see the page and reload it
)

// statusPage serves "/" and "/events".
type statusPage struct {
	service *service
	socket  string          // path of the API's socket, to be told
	stop    context.Context //nolint:containedctx // ends all streams when the agent stops; it is no request's context
	token   func() string   // shows names of paths to who sends it; empty: none does
	viewers chan struct{}

	dataDir string

	mu      sync.Mutex
	counted counted
}

func newStatusPage(stop context.Context, s *service, socket, dataDir string, token func() string) *statusPage {
	return &statusPage{service: s, socket: socket, dataDir: dataDir, stop: stop, token: token, viewers: make(chan struct{}, pageViewers)}
}

// handler answers with the page. Who may steer the agent, or has the token, sees names of paths there.
func (p *statusPage) handler() http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil && !localHost(r.Host) { // by TLS the client knows whom it asks
			http.Error(w, "open this page by an address or as localhost", http.StatusMisdirectedRequest)
			return
		}
		full := callerOf(r.Context()).control
		if r.Header.Get("Authorization") != "" && !full {
			if full = p.knows(r); !full {
				askToken(w, "this is not the token of api.token_file")
				return
			}
		}
		if !full && r.URL.Query().Has("names") && p.token() != "" {
			askToken(w, "the password is the token of api.token_file")
			return
		}
		h := w.Header()
		h.Set("Content-Security-Policy", page.Policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		if r.URL.Path == "/events" {
			p.events(w, r, full)
			return
		}
		html, err := page.Page(p.view(full))
		if err != nil {
			http.Error(w, "the page cannot be shown", http.StatusInternalServerError)
			return
		}
		h.Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write(html) // the caller may have left; there is nobody to tell
	}
}

// askToken has a browser ask for the token, as the password of any user.
func askToken(w http.ResponseWriter, why string) {
	w.Header()["WWW-Authenticate"] = []string{"Bearer", `Basic realm="syncagent", charset="UTF-8"`}
	http.Error(w, why, http.StatusUnauthorized)
}

// knows tells whether a request has the token: as a bearer, or as the password of any user.
func (p *statusPage) knows(r *http.Request) bool {
	token := p.token()
	given, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		_, given, ok = r.BasicAuth()
	}
	return ok && token != "" && subtle.ConstantTimeCompare([]byte(token), []byte(given)) == 1
}

// localHost refuses names in the Host header: a page of somebody else could make its own name point here, and read
// what is shown (DNS rebinding).
func localHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil || host == "localhost" || host == "agent" // the last is what curl examples name
}

// events streams the sections that changed, as server-sent events.
func (p *statusPage) events(w http.ResponseWriter, r *http.Request, full bool) {
	select {
	case p.viewers <- struct{}{}:
		defer func() { <-p.viewers }()
	default:
		http.Error(w, "too many viewers", http.StatusServiceUnavailable)
		return
	}
	clearReadDeadline(r.Context())
	w.Header().Set("Content-Type", "text/event-stream")
	ticker := time.NewTicker(pageInterval)
	defer ticker.Stop()
	sent := map[string][]byte{}
	for quiet := 0; ; quiet++ {
		changed, err := p.changed(sent, full)
		if err != nil {
			return
		}
		text := ""
		switch {
		case len(changed) > 0:
			data, _ := json.Marshal(changed) // strings always encode
			text, quiet = "data: "+string(data)+"\n\n", 0
		case quiet*int(pageInterval) >= int(signOfLife):
			text, quiet = ":\n\n", 0
		}
		if text != "" && !flushText(w, text) {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-p.stop.Done():
			return
		case <-ticker.C:
		}
	}
}

func flushText(w http.ResponseWriter, text string) bool {
	c := http.NewResponseController(w)
	_ = c.SetWriteDeadline(time.Now().Add(sendTimeout)) // not every writer can; then other limits hold
	_, err := io.WriteString(w, text)
	return err == nil && c.Flush() == nil
}

// changed renders what differs from what was sent, and notes it there.
func (p *statusPage) changed(sent map[string][]byte, full bool) (map[string]string, error) {
	v, out := p.view(full), map[string]string{}
	for _, name := range page.Sections {
		html, err := page.Section(name, v)
		if err != nil {
			return nil, err
		}
		if !bytes.Equal(html, sent[name]) {
			sent[name], out[name] = html, string(html)
		}
	}
	return out, nil
}

// view puts the agent's state into words.
func (p *statusPage) view(full bool) page.View {
	v := pageView(p.service.status(), full)
	v.Socket, v.Since, v.Memory = p.socket, clockTime(p.service.started), byteCount(memoryInUse())
	v.Now = clockTime(time.Now())
	v.Token, v.Changes = p.token() != "", p.changes(full)
	c := p.count()
	v.StoreSize = byteCount(c.bytes)
	if full {
		v.Prefixes = c.prefixes
	}
	return v
}

// memoryInUse is what the process holds, as the runtime counts it.
func memoryInUse() uint64 {
	samples := []runtimemetrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	runtimemetrics.Read(samples)
	return (samples[0].Value.Uint64() - samples[1].Value.Uint64()) >> 20 << 20 // whole MiB: it need not flicker
}

func clockTime(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// byteCount writes a size for people.
func byteCount(n uint64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f, u := float64(n)/1024, 0
	for ; f >= 1024 && u < len(units)-1; u++ {
		f /= 1024
	}
	return fmt.Sprintf("%.1f %ciB", f, units[u])
}

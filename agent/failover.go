package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"path"
	"sync/atomic"
)

// failover sends requests to one of several agents for as long as it answers, then to the next. What certainly did not
// arrive, what an agent refused because it stops, and what only reads is sent again. A write of which nobody knows
// whether it arrived is not: the caller is told so.
type failover struct {
	all []endpoint
	now atomic.Int64 // the one in use
}

// endpoint is the way to one agent.
type endpoint struct {
	base      *url.URL // scheme and host
	transport interface {
		http.RoundTripper
		CloseIdleConnections()
	}
}

// repeatable are the calls that change nothing, or the same again: a relayed write has its ID.
var repeatable = map[string]bool{
	"Get": true, "List": true, "Count": true, "Watch": true, "History": true, "Download": true, "Known": true,
	"Wait": true, "Rollout": true, "Clock": true, "Relay": true,
	"Status": true, "Peers": true, "ID": true, "Backup": true, "Compare": true,
	"Show": true, "Log": true, "Preview": true, "Written": true,
}

// RoundTrip is that of http.RoundTripper.
func (f *failover) RoundTrip(r *http.Request) (*http.Response, error) {
	for tries := 1; ; tries++ {
		i := f.now.Load()
		answer, arrived, err := f.all[i].send(r)
		refused := err == nil && answer.StatusCode == http.StatusServiceUnavailable
		if err == nil && !refused || r.Context().Err() != nil {
			return answer, err
		}
		f.now.CompareAndSwap(i, (i+1)%int64(len(f.all)))
		again := !arrived || refused || repeatable[path.Base(r.URL.Path)]
		switch {
		case !again:
			// Without err as its cause: Connect would take a broken connection for an answer that was cut off.
			return nil, &Error{Code: CodeUnreachable,
				Message: "the agent's connection broke before it answered: the write may have been made, or not: " + err.Error(),
				Hint:    "look with syncagent history PATH, and write again if it was not"}
		case tries == len(f.all) || r.Body != nil && r.GetBody == nil:
			return answer, err
		}
		if refused {
			_, _ = io.CopyN(io.Discard, answer.Body, 4096) // so that the connection can be used again
			_ = answer.Body.Close()
		}
		next := r.Clone(r.Context())
		if r.GetBody != nil {
			if next.Body, err = r.GetBody(); err != nil {
				return nil, fmt.Errorf("send request again: %w", err)
			}
		}
		r = next
	}
}

// send tries one agent. Arrived is false if it certainly does not have the request.
func (e *endpoint) send(r *http.Request) (answer *http.Response, arrived bool, err error) {
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { arrived = true }}
	to := r.Clone(httptrace.WithClientTrace(r.Context(), trace))
	to.URL.Scheme, to.URL.Host, to.Host = e.base.Scheme, e.base.Host, e.base.Host
	answer, err = e.transport.RoundTrip(to)
	return answer, arrived, err
}

// CloseIdleConnections is what http.Client looks for.
func (f *failover) CloseIdleConnections() {
	for _, e := range f.all {
		e.transport.CloseIdleConnections()
	}
}

// lost tells whether another try, or another agent, may help where a stream ended with err.
func lost(ctx context.Context, err error) bool {
	if ctx.Err() != nil {
		return false
	}
	if err == nil || errors.Is(err, io.EOF) {
		return true
	}
	e := ErrorOf(err)
	return e.Code == CodeUnreachable || e.Code == CodeStopping || e.Code == CodeBusy
}

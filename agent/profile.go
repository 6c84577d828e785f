package agent

import (
	"net/http"
	"net/http/pprof"
	"strings"
)

const profilePrefix = "/debug/pprof/"

// profile serves what Go's profiler knows, to who steers the agent by the socket: it shows memory, and slows the agent.
func profile(w http.ResponseWriter, r *http.Request) {
	if err := callerOf(r.Context()).mayControl("a profile"); err != nil {
		writeHTTPError(w, err)
		return
	}
	clearReadDeadline(r.Context())
	switch strings.TrimPrefix(r.URL.Path, profilePrefix) {
	case "cmdline":
		pprof.Cmdline(w, r)
	case "profile":
		pprof.Profile(w, r)
	case "symbol":
		pprof.Symbol(w, r)
	case "trace":
		pprof.Trace(w, r)
	default:
		pprof.Index(w, r)
	}
}

package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"

	"syncagent/agent/api/v1/apiv1connect"
	"syncagent/crdtstore/record"
)

const (
	headerTimeout = 5 * time.Second
	idleTimeout   = 2 * time.Minute
	headerBytes   = 64 << 10 // a path of 1 KiB can triple by escaping
	// maxMessage is the largest request: a full batch, with room for what surrounds the values, base64 in JSON
	// included.
	maxMessage = (record.MaxWriteBytes + 2<<20) * 3 / 2
	// stopTimeout is what requests get to finish when the agent stops; then their connections are closed.
	stopTimeout  = time.Second
	closeTimeout = time.Second // for handlers to notice that
)

// server answers the API on the socket, and health and metrics on both ports.
type server struct {
	log     *slog.Logger
	metrics *metrics
	service *service
	kv      *kv
	page    *statusPage

	timeout     time.Duration // of requests that are no streams
	requests    limit
	watches     limit
	logRequests atomic.Bool // all of them, at level info
}

// fullHandler serves everything to the caller in the request's context.
func (s *server) fullHandler() http.Handler {
	options := []connect.HandlerOption{
		connect.WithInterceptors(observer{s}),
		connect.WithReadMaxBytes(maxMessage),
		connect.WithCompression("gzip", nil, nil), // callers are on this host, and small secrets do not compress well
		connect.WithCodec(strictJSON{"json"}),
		connect.WithCodec(strictJSON{"json; charset=utf-8"}),
	}
	routes := s.grpcRoutes(options)
	path, handler := apiv1connect.NewKVHandler(s.kv, options...)
	routes[path] = handler
	path, handler = apiv1connect.NewAgentHandler(s.service, options...)
	routes[path] = handler
	path, handler = apiv1connect.NewPolicyHandler(s.service, options...)
	routes[path] = handler
	plain := s.plainHandler()
	// No http.ServeMux: it answers unclean paths with a redirect to another one.
	return s.limited(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == rawPrefix || strings.HasPrefix(r.URL.Path, rawPrefix+"/") {
			s.raw(w, r)
			return
		}
		if isRawWatch(r) {
			s.rawWatch(w, r)
			return
		}
		if strings.HasPrefix(r.URL.Path, profilePrefix) {
			profile(w, r)
			return
		}
		if slash := strings.LastIndexByte(r.URL.Path, '/'); slash >= 0 {
			if h, ok := routes[r.URL.Path[:slash+1]]; ok {
				h.ServeHTTP(w, r)
				return
			}
		}
		plain.ServeHTTP(w, r)
	}))
}

// plainHandler serves what is open to everyone on this host: nothing of the store's content, and no names of paths but
// to callers who may steer the agent.
func (s *server) plainHandler() http.Handler {
	statusPage := s.page.handler()
	metrics := promhttp.HandlerFor(s.metrics.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 10 * time.Second})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
			return
		}
		switch r.URL.Path {
		case "/", "/events":
			statusPage(w, r)
		case "/healthz":
			_, _ = w.Write([]byte("ok\n"))
		case "/readyz":
			if !s.service.ready() {
				http.Error(w, "not ready", http.StatusServiceUnavailable)
				return
			}
			_, _ = w.Write([]byte("ready\n"))
		case "/metrics":
			metrics.ServeHTTP(w, r)
		default:
			writeHTTPError(w, &Error{Code: CodeNotFound, Message: "nothing is served here under this path",
				Hint: "entries are served by the unix socket and by api.tls, at /v1/kv/PATH and /v1/watch/PREFIX"})
		}
	})
}

// limited refuses more requests at once than configured, and sets their deadline.
func (s *server) limited(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		room, open := &s.requests, func(float64) {}
		if r.URL.Path == apiv1connect.KVWatchProcedure || isRawWatch(r) {
			room, open = &s.watches, s.metrics.watches.Add
		}
		if !room.enter() {
			err := &Error{Code: CodeBusy, Message: "too many requests at once", Hint: rowOf(CodeBusy).hint}
			s.metrics.requests.WithLabelValues("refused", string(CodeBusy)).Inc()
			refuse(w, r, err)
			return
		}
		defer room.leave()
		open(1)
		defer open(-1)
		next.ServeHTTP(w, withController(w, r, s.timeout))
	})
}

// refuse answers a request of any kind with an error.
func refuse(w http.ResponseWriter, r *http.Request, err error) {
	if errors := connect.NewErrorWriter(); errors.IsSupported(r) {
		_ = errors.Write(w, r, toConnect(err)) // a caller that left needs no answer
		return
	}
	writeHTTPError(w, err)
}

func (s *server) raw(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	err := s.kv.serveRaw(w, r)
	cutOff := errors.Is(err, errCutOff)
	if err != nil && !cutOff {
		writeHTTPError(w, err)
	}
	method := "raw other"
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPut, http.MethodDelete:
		method = "raw " + strings.ToLower(r.Method)
	}
	s.answered(r.Context(), method, false, err, time.Since(start))
	if cutOff {
		panic(http.ErrAbortHandler)
	}
}

// answered counts and logs a request. The log names no value, and a path only where an error does.
func (s *server) answered(ctx context.Context, method string, stream bool, err error, took time.Duration) {
	s.metrics.answered(method, stream, err, took)
	level := slog.LevelDebug
	if s.logRequests.Load() {
		level = slog.LevelInfo
	}
	if err == nil {
		if s.log.Enabled(ctx, level) {
			s.log.LogAttrs(ctx, level, "api request", slog.String("method", method), slog.String("caller", callerOf(ctx).name), slog.Duration("took", took))
		}
		return
	}
	e := ErrorOf(err)
	switch e.Code {
	case CodeInternal, CodeCorrupt, CodeDiskFull, CodeClock:
		level = slog.LevelError
	}
	s.log.LogAttrs(ctx, level, "api request failed", slog.String("method", method), slog.String("caller", callerOf(ctx).name), slog.Duration("took", took),
		slog.String("code", string(e.Code)), slog.String("error", e.Message))
}

// observer is the Connect interceptor that counts, logs, and translates errors.
type observer struct{ s *server }

func (o observer) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, r connect.AnyRequest) (connect.AnyResponse, error) {
		start := time.Now()
		err := refuseUnknown(r.Any())
		var response connect.AnyResponse
		if err == nil {
			response, err = next(ctx, r)
		}
		o.s.answered(ctx, methodOf(r.Spec()), false, err, time.Since(start))
		if err != nil {
			return nil, toConnect(err)
		}
		return response, nil
	}
}

func (o observer) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, c connect.StreamingHandlerConn) error {
		start := time.Now()
		err := next(ctx, c)
		o.s.answered(ctx, methodOf(c.Spec()), true, err, time.Since(start))
		if err != nil {
			return toConnect(err)
		}
		return nil
	}
}

func (observer) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

func methodOf(spec connect.Spec) string { return strings.TrimPrefix(spec.Procedure, "/syncagent.v1.") }

// serve answers on a listener until ctx ends; then it lets requests finish for a while. Streams end at once, by the
// context that kv has.
func serve(ctx context.Context, l net.Listener, handler http.Handler, log *slog.Logger) error {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true) // gRPC
	protocols.SetUnencryptedHTTP2(true)
	var handlers sync.WaitGroup
	h := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			handlers.Add(1)
			defer handlers.Done()
			handler.ServeHTTP(w, r)
		}),
		Protocols:         protocols,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    headerBytes,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	begin := h.Serve
	if d, ok := l.(*door); ok {
		h.ConnContext = d.greet
		if d.tls != nil {
			h.TLSConfig = d.tls
			h.ErrorLog = slog.NewLogLogger(log.Handler(), slog.LevelDebug) // strangers must not fill the log
			begin = func(l net.Listener) error { return h.ServeTLS(l, "", "") }
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		if err := begin(l); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve %s: %w", l.Addr(), err)
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		if err := h.Shutdown(stopping); err == nil {
			return nil
		}
		if err := h.Close(); err != nil {
			return fmt.Errorf("close %s: %w", l.Addr(), err)
		}
		return waitAll(&handlers, closeTimeout)
	})
	return group.Wait()
}

// waitAll waits for requests whose connections were closed: what they read from must not go away before they do.
func waitAll(handlers *sync.WaitGroup, timeout time.Duration) error {
	done := make(chan struct{})
	go func() { handlers.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-time.After(timeout):
		return errors.New("stop api: a request did not end in time")
	}
}

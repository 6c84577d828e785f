package agent

import (
	"context"
	"io"
	"net/http"
	"time"

	"connectrpc.com/connect"
)

const (
	requestTimeout = 30 * time.Second // for a request to arrive, and to be answered unless it is a stream
	sendTimeout    = 60 * time.Second // for a caller to take one message of a stream
	slowest        = 1 << 10          // bytes a second that a large value has to bring for long
)

type controllerKey struct{}

// controller sets the deadlines of a request's connection.
type controller struct {
	*http.ResponseController
	timeout time.Duration // for the request to arrive
	left    time.Duration // of it, for the next piece: what comes gives time back
}

// withController puts the connection's deadlines within reach of a handler that only has a context, and gives the request
// timeout to arrive and to be answered.
func withController(w http.ResponseWriter, r *http.Request, timeout time.Duration) *http.Request {
	c := &controller{http.NewResponseController(w), timeout, timeout}
	_ = c.SetReadDeadline(time.Now().Add(timeout)) // not every writer can; then other limits hold
	return r.WithContext(context.WithValue(r.Context(), controllerKey{}, c))
}

// clearReadDeadline lets a stream stay open: its request is here, and nothing more is expected.
func clearReadDeadline(ctx context.Context) {
	if c, ok := ctx.Value(controllerKey{}).(*controller); ok {
		_ = c.SetReadDeadline(time.Time{})
	}
}

// awaitPiece gives the next piece of a request time to arrive; came is called when it has. A caller may pause for as long
// as the timeout, but not send a byte at a time for ever: it would hold its place among the requests.
func awaitPiece(ctx context.Context) (came func(bytes int)) {
	c, ok := ctx.Value(controllerKey{}).(*controller)
	if !ok {
		return func(int) {}
	}
	began := time.Now()
	_ = c.SetReadDeadline(began.Add(c.left))
	return func(bytes int) {
		c.left = min(c.left-time.Since(began)+time.Duration(bytes)*time.Second/slowest, c.timeout)
	}
}

// pieces reads or writes the body of a request that may take long, as long as something moves.
type pieces struct {
	ctx context.Context //nolint:containedctx // lives as long as the one call it serves
	io.Reader
	io.Writer
}

func (p pieces) Read(b []byte) (int, error) {
	came := awaitPiece(p.ctx)
	n, err := p.Reader.Read(b)
	came(n)
	return n, err
}

func (p pieces) Write(b []byte) (int, error) {
	if c, ok := p.ctx.Value(controllerKey{}).(*controller); ok {
		_ = c.SetWriteDeadline(time.Now().Add(sendTimeout))
		defer c.SetWriteDeadline(time.Time{}) //nolint:errcheck // a dead connection needs no deadline
	}
	return p.Writer.Write(b)
}

// send writes one message of a stream. A caller that takes nothing for sendTimeout loses its connection, so that it
// does not hold a snapshot for ever.
func send[T any](ctx context.Context, stream *connect.ServerStream[T], message *T) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	c, ok := ctx.Value(controllerKey{}).(*controller)
	if ok {
		_ = c.SetWriteDeadline(time.Now().Add(sendTimeout))
		defer c.SetWriteDeadline(time.Time{}) //nolint:errcheck // a dead connection needs no deadline
	}
	return stream.Send(message)
}

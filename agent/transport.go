package agent

import (
	"context"
	"net/http"
	"time"

	"connectrpc.com/connect"
)

const (
	requestTimeout = 30 * time.Second // for a request to arrive, and to be answered unless it is a stream
	sendTimeout    = 60 * time.Second // for a caller to take one message of a stream
)

type controllerKey struct{}

// withController puts the connection's deadlines within reach of a handler that only has a context, and gives the request
// timeout to arrive and to be answered.
func withController(w http.ResponseWriter, r *http.Request, timeout time.Duration) *http.Request {
	c := http.NewResponseController(w)
	_ = c.SetReadDeadline(time.Now().Add(timeout)) // not every writer can; then other limits hold
	return r.WithContext(context.WithValue(r.Context(), controllerKey{}, c))
}

// clearReadDeadline lets a stream stay open: its request is here, and nothing more is expected.
func clearReadDeadline(ctx context.Context) {
	if c, ok := ctx.Value(controllerKey{}).(*http.ResponseController); ok {
		_ = c.SetReadDeadline(time.Time{})
	}
}

// send writes one message of a stream. A caller that takes nothing for sendTimeout loses its connection, so that it
// does not hold a snapshot for ever.
func send[T any](ctx context.Context, stream *connect.ServerStream[T], message *T) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	c, ok := ctx.Value(controllerKey{}).(*http.ResponseController)
	if ok {
		_ = c.SetWriteDeadline(time.Now().Add(sendTimeout))
		defer c.SetWriteDeadline(time.Time{}) //nolint:errcheck // a dead connection needs no deadline
	}
	return stream.Send(message)
}

package agent

import (
	"context"
	"errors"
	"net"
	"syscall"
)

// lastWords is a connection on which only reading tells that the peer is gone. An agent that refuses a certificate says
// so and closes; by TLS 1.3 that is after the client has begun to send, whose write then fails with "broken pipe". What
// the agent said is still there to be read, and tells more. A write that was taken may be lost as well, so nothing
// changes for who sends: the reader ends, with what was said or with the same error.
type lastWords struct{ net.Conn }

func (c lastWords) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
		return len(b), nil
	}
	return n, err
}

// dialLastWords dials by d.
func dialLastWords(d *net.Dialer) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := d.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return lastWords{c}, nil
	}
}

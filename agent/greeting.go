package agent

import (
	"context"
	"crypto/tls"
	"net"
	"time"

	"golang.org/x/net/http2"
)

// silentFor is how long an agent may say nothing before it is pinged, and then how long it may take to answer. A client then
// goes on with the next one.
const silentFor = 5 * time.Second

// agentTransport speaks HTTP/2 by TLS, and takes a connection for one only after the agent has said something on it. By
// TLS 1.3 an agent refuses a certificate after the handshake is over for the client, so that a request would be on its way
// by then, and its broken pipe hides what the agent said. In HTTP/2 the server speaks first: with its settings it has
// taken the client, with an alert it has not, and no request has been sent.
//
//nolint:staticcheck // the newer http.Transport takes no connection that was read from
func agentTransport(dialer *net.Dialer, config *tls.Config) *http2.Transport {
	config.NextProtos = []string{http2.NextProtoTLS}
	return &http2.Transport{
		DisableCompression: true,
		IdleConnTimeout:    time.Minute,
		// A watch may be silent for long: only an answer to a ping tells that its host is not dead.
		ReadIdleTimeout: silentFor,
		PingTimeout:     silentFor,
		DialTLSContext: func(ctx context.Context, network, address string, _ *tls.Config) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, dialTimeout)
			defer cancel()
			c, err := (&tls.Dialer{NetDialer: dialer, Config: config}).DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			g := &greeted{Conn: c, first: make([]byte, 1)}
			stop := context.AfterFunc(ctx, func() { _ = c.SetReadDeadline(time.Unix(1, 0)) })
			_, err = c.Read(g.first)
			if stop() && err == nil {
				return g, nil
			}
			_ = c.Close() // it is of no use
			if err == nil {
				err = ctx.Err()
			}
			return nil, err
		},
	}
}

// greeted is a connection of which a first byte was read.
type greeted struct {
	net.Conn
	first []byte // until it is read again
}

func (g *greeted) Read(b []byte) (int, error) {
	if len(g.first) > 0 && len(b) > 0 {
		n := copy(b, g.first)
		g.first = g.first[n:]
		return n, nil
	}
	return g.Conn.Read(b)
}

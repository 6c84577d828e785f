package agent

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
)

// A door is a listener of the API that knows who comes in: by the socket from the kernel, by TLS from a certificate.
// Whoever is in is judged again when the policy, the configuration or the time may say something else about it.
type door struct {
	net.Listener
	tls   *tls.Config                        // nil: none; its handshake judges
	local func(credentials) (*caller, error) // judges who comes by the socket
	most  int                                // open connections; more are closed at once
	full  func()                             // told of each of those; nil: nobody is

	mu     sync.Mutex
	visits map[*visit]struct{}
}

// maxVisits bounds the open connections of a door.
const maxVisits = 1 << 14

// visit is one connection.
type visit struct {
	net.Conn
	door *door

	mu     sync.Mutex
	judge  func() (*caller, error) // nil until the visitor has shown who it is
	caller *caller
	err    error // why the visitor may do nothing
}

func newDoor(l net.Listener) *door {
	return &door{Listener: l, most: maxVisits, visits: map[*visit]struct{}{}}
}

// Accept gives a *visit.
func (d *door) Accept() (net.Conn, error) {
	for {
		c, err := d.Listener.Accept()
		if err != nil {
			return nil, err
		}
		v := &visit{Conn: c, door: d}
		if !d.enter(v) {
			_ = c.Close()
			if d.full != nil {
				d.full()
			}
			continue
		}
		if u, ok := c.(*net.UnixConn); ok {
			of, err := credentialsOf(u)
			if err != nil { // gone already
				_ = v.Close()
				continue
			}
			_ = v.meet(func() (*caller, error) { return d.local(of) }) // the answer to its request says it
		}
		return v, nil
	}
}

func (d *door) enter(v *visit) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.visits) >= d.most {
		return false
	}
	d.visits[v] = struct{}{}
	return true
}

// Close ends the visit.
func (v *visit) Close() error {
	v.door.mu.Lock()
	delete(v.door.visits, v)
	v.door.mu.Unlock()
	return v.Conn.Close()
}

// meet judges a visitor for the first time.
func (v *visit) meet(judge func() (*caller, error)) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.judge = judge
	v.caller, v.err = judge()
	return v.err
}

// meetAgain closes the connection if the visitor is somebody else by now, or nobody. It closes what lies below TLS: the
// other side need not agree.
func (v *visit) meetAgain() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.judge == nil {
		return
	}
	c, err := v.judge()
	if (err == nil) != (v.err == nil) || err == nil && !c.same(v.caller) {
		_ = v.Conn.Close()
	}
}

func (v *visit) who() (*caller, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.caller, v.err
}

// judgeAgain judges all who are in.
func (d *door) judgeAgain() {
	d.mu.Lock()
	visits := make([]*visit, 0, len(d.visits))
	for v := range d.visits {
		visits = append(visits, v)
	}
	d.mu.Unlock()
	for _, v := range visits {
		v.meetAgain()
	}
}

type visitKey struct{}

// greet puts the visit that a connection is into the context of its requests.
func (d *door) greet(ctx context.Context, c net.Conn) context.Context {
	if t, ok := c.(interface{ NetConn() net.Conn }); ok {
		c = t.NetConn() // below TLS
	}
	return context.WithValue(ctx, visitKey{}, c)
}

// asCaller serves requests that came through a door.
func (s *server) asCaller(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := callerOf(r.Context())
		if v, ok := r.Context().Value(visitKey{}).(*visit); ok {
			var err error
			if c, err = v.who(); err != nil {
				s.metrics.requests.WithLabelValues("refused", string(CodeDenied)).Inc()
				refuse(w, r, err)
				return
			}
		}
		next.ServeHTTP(w, r.WithContext(withCaller(r.Context(), c)))
	})
}

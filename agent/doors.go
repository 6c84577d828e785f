package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
)

// doors are where the API is open: the socket, and TLS if the configuration says so. They judge who is in again after
// ring, and from time to time: certificates expire.
type doors struct {
	log    *slog.Logger
	bell   chan struct{}
	tick   time.Duration
	socket *door
	tls    *door // nil: none
	papers *papers
	rules  atomic.Pointer[[]localRule]
	token  atomic.Pointer[string] // that shows names on the status page; empty: none does
}

// judgeEvery is also how often the TLS files are looked at.
const judgeEvery = 10 * time.Second

// openDoors takes hold of the socket and the port for TLS.
func openDoors(c *Config, p *papers, turnedAway prometheus.Counter, log *slog.Logger) (*doors, error) {
	d := &doors{log: log, bell: make(chan struct{}, 1), tick: judgeEvery, papers: p}
	use, err := d.prepare(c)
	if err != nil {
		return nil, err
	}
	use()
	if c.API.TLS.Listen != "" {
		l, err := listenTCP("api.tls.listen", c.API.TLS.Listen)
		if err != nil {
			return nil, err
		}
		d.tls = newDoor(l)
		d.tls.tls, d.tls.full = p.config(), crowd("api.tls.listen", turnedAway, log)
	}
	l, err := listenSocket(c.API)
	if err != nil {
		d.close()
		return nil, err
	}
	d.socket = newDoor(l)
	d.socket.full = crowd("api.socket", turnedAway, log)
	own := uint32(os.Geteuid())
	d.socket.local = func(of credentials) (*caller, error) { return localCaller(*d.rules.Load(), own, of) }
	return d, nil
}

// crowd tells of connections that a door has no room for: all of them in a metric, one a minute in the log.
func crowd(door string, turnedAway prometheus.Counter, log *slog.Logger) func() {
	told := rate.Sometimes{Interval: time.Minute}
	return func() {
		turnedAway.Inc()
		told.Do(func() {
			log.Warn("connection closed, too many are open", "door", door, "most", maxVisits, "hint", "find the client that opens them and does not close them")
		})
	}
}

func (d *doors) close() {
	for _, each := range []*door{d.socket, d.tls} {
		if each != nil {
			_ = each.Listener.Close() // it is closed already where it was served
		}
	}
}

// prepare reads what the settings name. Calling use puts it in force for who is in and who comes.
func (d *doors) prepare(c *Config) (use func(), err error) {
	rules, err := localRules(c.LocalRules)
	if err != nil {
		return nil, err
	}
	var files *tlsFiles
	if c.API.TLS.Listen != "" {
		if files, err = readTLS(c.API.TLS); err != nil {
			return nil, err
		}
	}
	token, err := readToken(c.API.TokenFile)
	if err != nil {
		return nil, err
	}
	return func() {
		d.rules.Store(&rules)
		d.token.Store(&token)
		if files != nil {
			d.papers.use(files)
		}
		d.ring()
	}, nil
}

// Bounds of the token in api.token_file.
const (
	minToken = 16
	maxToken = 1024
)

// readToken reads the token that shows names of paths on the status page to who came by TCP.
func readToken(file string) (string, error) {
	if file == "" {
		return "", nil
	}
	bad := func(err error, hint string) (string, error) {
		return "", &Error{Code: CodeBadConfig, Message: fmt.Sprintf("api.token_file: %v", err), Hint: hint, Err: err}
	}
	if err := checkKeyMode(file); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return bad(err, "make the file, or take the key out")
		}
		return bad(err, "chmod 600 "+file)
	}
	f, err := os.Open(file)
	if err != nil {
		return bad(err, "")
	}
	defer f.Close() //nolint:errcheck // read only
	text, err := io.ReadAll(io.LimitReader(f, maxToken+1))
	if err != nil {
		return bad(err, "")
	}
	token := strings.TrimSpace(string(text))
	if len(token) < minToken || len(text) > maxToken || strings.ContainsAny(token, " \t\r\n") {
		return bad(fmt.Errorf("%s: want one word of %d to %d bytes", file, minToken, maxToken), "head -c 24 /dev/urandom | base64 > "+file)
	}
	return token, nil
}

// ring has all visitors judged again soon. It does not block.
func (d *doors) ring() {
	select {
	case d.bell <- struct{}{}:
	default:
	}
}

func (d *doors) run(ctx context.Context) error {
	ticker := time.NewTicker(d.tick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			if d.tls != nil {
				d.papers.look()
			}
		case <-d.bell:
		}
		d.socket.judgeAgain()
		if d.tls != nil {
			d.tls.judgeAgain()
		}
	}
}

// tlsAddr is where TLS is served, empty if it is not.
func (d *doors) tlsAddr() string {
	if d.tls == nil {
		return ""
	}
	return d.tls.Addr().String()
}

package agent

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Severity says how bad a finding is.
type Severity string

// The severities. Only SeverityFail means that something does not work.
const (
	SeverityOK   Severity = "ok"
	SeverityWarn Severity = "warn"
	SeverityFail Severity = "fail"
)

// Finding is what one check of a diagnosis came to.
type Finding struct {
	Check    string   `json:"check"` // stable, such as "disk"
	Severity Severity `json:"severity"`
	Message  string   `json:"message"`
	Hint     string   `json:"hint"` // what to do; empty when all is well
}

// Diagnose looks at the configuration, its files and, by client, at the agent that runs with them. It changes nothing.
// version is that of the caller. It takes as long as the slowest bootstrap address, at most some seconds.
func Diagnose(ctx context.Context, c Config, client *Client, version string) []Finding {
	d := diagnosis{config: c, version: version}
	d.files()
	d.tls(time.Now())
	if !d.askAgent(ctx, client) {
		d.disk(freeBytes(c.DataDir))
	}
	d.bootstrap(ctx, reach)
	return d.findings
}

// diagnosis gathers findings.
type diagnosis struct {
	config   Config
	version  string
	findings []Finding
}

func (d *diagnosis) ok(check, format string, args ...any) {
	d.findings = append(d.findings, Finding{check, SeverityOK, fmt.Sprintf(format, args...), ""})
}

func (d *diagnosis) warn(check, hint, format string, args ...any) {
	d.findings = append(d.findings, Finding{check, SeverityWarn, fmt.Sprintf(format, args...), hint})
}

func (d *diagnosis) fail(check, hint, format string, args ...any) {
	d.findings = append(d.findings, Finding{check, SeverityFail, fmt.Sprintf(format, args...), hint})
}

// files checks what lies on the disk of this host.
func (d *diagnosis) files() {
	c := &d.config
	if c.Network == "" {
		d.fail("config", "syncagent init makes a network, syncagent join TOKEN makes this host part of one",
			"%s names no network", c.File)
	} else {
		d.ok("config", "%s", c.File)
	}
	switch _, err := LoadKey(c.IdentityFile()); {
	case errors.Is(err, fs.ErrPermission):
		d.warn("identity", "run doctor as the agent's user", "%s cannot be read by this user", c.IdentityFile())
	case err != nil:
		e := classify(err)
		d.fail("identity", e.Hint, "%s", e.Message)
	default:
		d.ok("identity", "%s", c.IdentityFile())
	}
	if _, err := os.Lstat(c.AdminKeyFile()); err == nil {
		d.warn("admin-key", "keep it offline; acl commands take it by --admin-key FILE",
			"%s still lies on this host: who gets the host gets the network", c.AdminKeyFile())
	}
	if info, err := os.Stat(c.DataDir); err == nil && info.Mode().Perm()&0o077 != 0 {
		d.warn("data-dir", "chmod 700 "+c.DataDir, "others than the agent's user can look into %s (mode %04o)", c.DataDir, info.Mode().Perm())
	}
}

// freeBytes tells how much is free on the disk of a directory; unknown is false.
func freeBytes(dir string) (uint64, bool) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, false
	}
	return s.Bavail * uint64(s.Bsize), true
}

func (d *diagnosis) disk(free uint64, known bool) {
	const mib = 1 << 20
	least := uint64(d.config.Store.MinFree)
	switch {
	case !known:
		d.warn("disk", "run doctor as the agent's user", "%s cannot be looked at", d.config.DataDir)
	case free < least:
		d.fail("disk", "free space, or lower store.min_free", "%d MiB free on the disk of %s, less than store.min_free (%s): writes are refused",
			free/mib, d.config.DataDir, d.config.Store.MinFree)
	case free < 2*least:
		d.warn("disk", "free space before writes are refused", "%d MiB free on the disk of %s; writes stop at %s",
			free/mib, d.config.DataDir, d.config.Store.MinFree)
	default:
		d.ok("disk", "%d MiB free on the disk of %s", free/mib, d.config.DataDir)
	}
}

// bootstrap checks whether somebody answers at each bootstrap address, all at the same time.
func (d *diagnosis) bootstrap(ctx context.Context, reach func(ctx context.Context, network, address string) error) {
	errs := make([]error, len(d.config.Bootstrap))
	var all sync.WaitGroup
	for i, target := range d.config.Bootstrap {
		all.Go(func() {
			network, address := dialTarget(target)
			errs[i] = reach(ctx, network, address)
		})
	}
	all.Wait()
	for i, target := range d.config.Bootstrap {
		if errs[i] == nil {
			d.ok("bootstrap", "%s answers", target)
			continue
		}
		d.fail("bootstrap", "is an agent running there, is the name right, does a firewall let TCP and UDP through?",
			"%s does not answer: %v", target, errs[i])
	}
}

// dialTarget gives network and address of a bootstrap address that has been checked: host:port or a multiaddress.
func dialTarget(target string) (network, address string) {
	parts := strings.Split(target, "/")
	if len(parts) < 5 {
		return "tcp", target
	}
	return parts[3], net.JoinHostPort(parts[2], parts[4])
}

const reachTimeout = 3 * time.Second

// reach tells whether somebody answers at an address. For UDP it begins QUIC with a version that nobody speaks: every
// QUIC server answers with the versions that it does (RFC 9000, section 6).
func reach(ctx context.Context, network, address string) error {
	ctx, cancel := context.WithTimeout(ctx, reachTimeout)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		if op, ok := errors.AsType[*net.OpError](err); ok && !errors.Is(err, context.DeadlineExceeded) {
			return op.Err
		}
		return errors.New("timeout")
	}
	defer conn.Close() //nolint:errcheck // nothing was to be kept
	if network != "udp" {
		return nil
	}
	answer := make([]byte, 1500)
	for {
		if _, err := conn.Write(quicProbe()); err != nil {
			return fmt.Errorf("send: %w", err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(reachTimeout / 6)) // then again: datagrams get lost
		n, err := conn.Read(answer)
		if n > 5 && answer[0]&0x80 != 0 && [4]byte(answer[1:5]) == [4]byte{} {
			return nil
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return errors.New("nobody listens on that UDP port")
		}
		if ctx.Err() != nil {
			return errors.New("no QUIC answer")
		}
	}
}

// quicProbe is a QUIC long header with a version reserved for this use, as long as servers demand.
func quicProbe() []byte {
	p := make([]byte, 1200)
	copy(p, []byte{0xc0, 0x1a, 0x2a, 0x3a, 0x4a, 8})
	_, _ = rand.Read(p[6:14]) // destination connection ID
	p[14] = 8
	_, _ = rand.Read(p[15:23]) // source connection ID
	return p
}

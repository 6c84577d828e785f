package agent

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"
)

// reached is what became of one attempt to reach a bootstrap address.
type reached struct {
	network string // tcp or udp
	err     error
}

// bootstrap checks whether somebody answers at each bootstrap address, all at the same time: by the transport that it
// names, and at host:port by TCP, which is needed there, and by UDP, which is used if it can be.
func (d *diagnosis) bootstrap(ctx context.Context, reach func(ctx context.Context, network, address string) error) {
	results := make([][]reached, len(d.config.Bootstrap))
	var all sync.WaitGroup
	for i, target := range d.config.Bootstrap {
		networks, address := dialTarget(target)
		results[i] = make([]reached, len(networks))
		for j, network := range networks {
			all.Go(func() { results[i][j] = reached{network, reach(ctx, network, address)} })
		}
	}
	all.Wait()
	for i, target := range d.config.Bootstrap {
		d.reached(target, results[i])
	}
}

// reached reports one address. The first transport is the one that is needed.
func (d *diagnosis) reached(target string, results []reached) {
	var answers, faults []string
	for _, r := range results {
		if name := strings.ToUpper(r.network); r.err == nil {
			answers = append(answers, name)
		} else {
			faults = append(faults, fmt.Sprintf("%s: %v", name, r.err))
		}
	}
	switch {
	case len(faults) == 0:
		d.ok("bootstrap", "%s answers by %s", target, strings.Join(answers, " and "))
	case results[0].err == nil:
		d.warn("bootstrap", "let UDP to that port through firewalls, or leave it: TCP does, with a little more delay", "%s answers by %s only (%s)",
			target, strings.Join(answers, " and "), strings.Join(faults, "; "))
	case len(answers) > 0:
		d.fail("bootstrap", "let TCP to that port through firewalls: an address without a peer ID is asked by TCP who it is", "%s answers by %s only (%s)",
			target, strings.Join(answers, " and "), strings.Join(faults, "; "))
	default:
		d.fail("bootstrap", "is an agent running there, is the name right, does a firewall let TCP and UDP through?", "%s does not answer (%s)",
			target, strings.Join(faults, "; "))
	}
}

// dialTarget gives the transports and the address of a bootstrap address that has been checked: host:port or a
// multiaddress.
func dialTarget(target string) (networks []string, address string) {
	parts := strings.Split(target, "/")
	if len(parts) < 5 {
		return []string{"tcp", "udp"}, target
	}
	return []string{parts[3]}, net.JoinHostPort(parts[2], parts[4])
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

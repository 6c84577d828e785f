package p2p

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/upgrader"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	mss "github.com/multiformats/go-multistream"
)

const probeTimeout = 3 * time.Second

// CheckAddr tells whether s can be a bootstrap or announce address: a multiaddr of TCP or QUIC, with or without
// /p2p/ID (QUIC only with), or host:port, which means TCP.
func CheckAddr(s string) error {
	_, err := parseTarget(s)
	return err
}

// CheckListen tells whether s can be listened on: a multiaddr like /ip4/0.0.0.0/tcp/7424 or
// /ip4/0.0.0.0/udp/7424/quic-v1.
func CheckListen(s string) error {
	_, err := parseListen(s)
	return err
}

func parseListen(s string) (ma.Multiaddr, error) {
	a, err := ma.NewMultiaddr(s)
	if err != nil {
		return nil, fmt.Errorf("listen address %q: %w", s, err)
	}
	if kind := transportOf(a); kind == "" || !manet.IsThinWaist(a) {
		return nil, fmt.Errorf("listen address %q: want /ip4/ADDRESS/tcp/PORT or /ip4/ADDRESS/udp/PORT/quic-v1 (or ip6)", s)
	}
	return a, nil
}

// transportOf gives "tcp", "quic" or "".
func transportOf(a ma.Multiaddr) string {
	var names []string
	for _, c := range a {
		names = append(names, c.Protocol().Name)
	}
	switch rest := strings.Join(names[min(1, len(names)):], " "); rest {
	case "tcp", "tcp p2p":
		return "tcp"
	case "udp quic-v1", "udp quic-v1 p2p":
		return "quic"
	default:
		return ""
	}
}

// target is a bootstrap address.
type target struct {
	text string
	addr ma.Multiaddr // without /p2p
	id   peer.ID      // empty: whoever answers there
}

// parseTarget reads a bootstrap address.
func parseTarget(s string) (target, error) {
	t := target{text: s}
	if !strings.HasPrefix(s, "/") {
		a, err := fromHostPort(s)
		t.addr = a
		return t, err
	}
	a, err := ma.NewMultiaddr(s)
	if err != nil {
		return t, fmt.Errorf("address %q: %w", s, err)
	}
	kind := transportOf(a)
	if kind == "" {
		return t, fmt.Errorf("address %q: want TCP or QUIC, like /dns4/HOST/tcp/PORT or /ip4/ADDRESS/udp/PORT/quic-v1/p2p/ID", s)
	}
	t.addr, t.id = peer.SplitAddr(a)
	if t.id == "" && kind != "tcp" {
		return t, fmt.Errorf("address %q: a QUIC address needs /p2p/ID at its end", s)
	}
	return t, nil
}

// fromHostPort makes a multiaddr of host:port.
func fromHostPort(s string) (ma.Multiaddr, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return nil, fmt.Errorf("address %q: want host:port or a multiaddr", s)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return nil, fmt.Errorf("address %q: bad port", s)
	}
	kind := "dns"
	if ip := net.ParseIP(host); ip != nil {
		kind = "ip6"
		if ip.To4() != nil {
			kind = "ip4"
		}
	}
	a, err := ma.NewMultiaddr("/" + kind + "/" + host + "/tcp/" + port)
	if err != nil {
		return nil, fmt.Errorf("address %q: %w", s, err)
	}
	return a, nil
}

// hostPort gives what net.Dial wants of a TCP multiaddr, names included.
func hostPort(a ma.Multiaddr) (string, error) {
	if len(a) < 2 {
		return "", fmt.Errorf("address %s: no host and port", a)
	}
	return net.JoinHostPort(a[0].Value(), a[1].Value()), nil
}

// probe finds out who answers at a TCP address: a handshake that accepts any identity. It proves that the peer holds
// the key, nothing else: trust comes from the policy. Our own key is shown, so that the other side logs the right one.
func probe(ctx context.Context, key ed25519.PrivateKey, a ma.Multiaddr) (id peer.ID, at ma.Multiaddr, err error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	to, err := hostPort(a)
	if err != nil {
		return "", nil, err
	}
	priv, err := crypto.UnmarshalEd25519PrivateKey(key)
	if err != nil {
		return "", nil, err
	}
	secure, err := noise.New(noise.ID, priv, []upgrader.StreamMuxer{{ID: yamux.ID, Muxer: yamux.DefaultTransport}})
	if err != nil {
		return "", nil, err
	}
	anybody, err := secure.WithSessionOptions(noise.DisablePeerIDCheck())
	if err != nil {
		return "", nil, err
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", to)
	if err != nil {
		return "", nil, err
	}
	defer func() { _ = c.Close() }()
	deadline, _ := ctx.Deadline()
	if err := c.SetDeadline(deadline); err != nil {
		return "", nil, err
	}
	if err := mss.SelectProtoOrFail(noise.ID, c); err != nil {
		return "", nil, fmt.Errorf("no libp2p answer at %s: %w", to, err)
	}
	s, err := anybody.SecureOutbound(ctx, c, "")
	if err != nil {
		return "", nil, err
	}
	at, err = manet.FromNetAddr(c.RemoteAddr())
	return s.RemotePeer(), at, err
}

// addressInUse tells it from the text: the QUIC transport does not wrap the error.
func addressInUse(err error) bool { return strings.Contains(err.Error(), "address already in use") }

// usable picks the addresses to tell others: without loopback and link-local ones as long as there are better.
func usable(addrs []ma.Multiaddr) []ma.Multiaddr {
	var good, loopback []ma.Multiaddr
	for _, a := range addrs {
		switch {
		case manet.IsIP6LinkLocal(a):
		case manet.IsIPLoopback(a):
			loopback = append(loopback, a)
		default:
			good = append(good, a)
		}
	}
	if len(good) == 0 {
		return loopback
	}
	return good
}

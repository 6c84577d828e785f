package p2p

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/gologshim"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	connmgrimpl "github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	libp2pquic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/libp2p/go-libp2p/x/rate"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"
)

// ErrPortInUse is wrapped by New when another process listens on one of the addresses.
var ErrPortInUse = errors.New("port is in use by another process")

// SetLibraryLog sends the log lines of libp2p and pubsub to h. Call it before the first Node is made: the libraries
// keep the handler that they saw first.
func SetLibraryLog(h slog.Handler) { gologshim.SetDefaultHandler(h) }

// newHost makes the libp2p host, which does not listen yet. Only TCP and QUIC, no relay, no discovery: addresses come
// from the config and from members.
func newHost(key ed25519.PrivateKey, gate connmgr.ConnectionGater, version string, metrics prometheus.Registerer, more []libp2p.Option) (host.Host, error) {
	priv, err := crypto.UnmarshalEd25519PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("read identity key: %w", err)
	}
	resources, err := newResources()
	if err != nil {
		return nil, fmt.Errorf("set resource limits: %w", err)
	}
	// Members are few and all wanted, a bootstrap host may have hundreds: trimming is the last resort before the limits.
	conns, err := connmgrimpl.NewConnManager(512, 768, connmgrimpl.WithGracePeriod(time.Minute))
	if err != nil {
		return nil, fmt.Errorf("make connection manager: %w", err)
	}
	options := []libp2p.Option{
		libp2p.Identity(priv),
		libp2p.NoListenAddrs,
		// Without reuse of the port a second agent on it gets an error instead of half of the connections.
		libp2p.Transport(tcp.NewTCPTransport, tcp.DisableReuseport()),
		libp2p.Transport(libp2pquic.NewTransport),
		libp2p.ConnectionGater(gate),
		libp2p.ConnectionManager(conns),
		libp2p.ResourceManager(resources),
		libp2p.UserAgent("syncagent/" + version),
		libp2p.DisableRelay(),
		libp2p.DisableIdentifyAddressDiscovery(),
		libp2p.ForceReachabilityPrivate(), // nobody is asked to dial back
		libp2p.WithDialTimeout(dialTimeout),
		// Hosts that are down are the normal case here, they say nothing about the reachability of others.
		libp2p.UDPBlackHoleSuccessCounter(nil),
		libp2p.IPv6BlackHoleSuccessCounter(nil),
		libp2p.SwarmOpts(swarm.WithDialTimeoutLocal(dialTimeout)),
	}
	if metrics == nil {
		options = append(options, libp2p.DisableMetrics())
	} else {
		options = append(options, libp2p.PrometheusRegisterer(metrics))
	}
	h, err := libp2p.New(append(options, more...)...)
	if err != nil {
		return nil, fmt.Errorf("make libp2p host: %w", err)
	}
	return h, nil
}

// newResources sets the limits of the resource manager. The library's defaults are made for strangers on the Internet:
// 8 connections and 0.2 new ones a second per IP, fewer in total than a fleet behind one address has hosts.
func newResources() (network.ResourceManager, error) {
	limits := rcmgr.PartialLimitConfig{
		System: rcmgr.ResourceLimits{
			Conns: 1024, ConnsInbound: 768, ConnsOutbound: 512, FD: 1024,
			Streams: 8192, StreamsInbound: 4096, StreamsOutbound: 4096, Memory: 256 << 20,
		},
		Transient: rcmgr.ResourceLimits{ // not yet authenticated
			Conns: 256, ConnsInbound: 192, ConnsOutbound: 192, FD: 256,
			Streams: 512, StreamsInbound: 256, StreamsOutbound: 256, Memory: 64 << 20,
		},
		PeerDefault: rcmgr.ResourceLimits{
			Conns: 8, ConnsInbound: 8, ConnsOutbound: 8, FD: 8,
			Streams: 128, StreamsInbound: 64, StreamsOutbound: 64, Memory: 64 << 20,
		},
		ProtocolPeerDefault: rcmgr.ResourceLimits{Streams: 64, StreamsInbound: 32, StreamsOutbound: 32, Memory: 64 << 20},
	}
	newConns := &rate.Limiter{SubnetRateLimiter: rate.SubnetLimiter{
		IPv4SubnetLimits: []rate.SubnetLimit{{PrefixLength: 32, Limit: rate.Limit{RPS: 50, Burst: 200}}},
		IPv6SubnetLimits: []rate.SubnetLimit{{PrefixLength: 64, Limit: rate.Limit{RPS: 50, Burst: 200}}},
		GracePeriod:      time.Minute,
	}}
	return rcmgr.NewResourceManager(
		rcmgr.NewFixedLimiter(limits.Build(rcmgr.DefaultLimits.AutoScale())),
		rcmgr.WithMetricsDisabled(),
		rcmgr.WithLimitPerSubnet(
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 32, ConnCount: 512}},
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 64, ConnCount: 512}}),
		rcmgr.WithConnRateLimiters(newConns),
	)
}

// listen opens every address or says which one cannot be opened.
func listen(h host.Host, addrs []ma.Multiaddr) error {
	for _, a := range addrs {
		err := h.Network().Listen(a)
		switch {
		case err == nil:
		case errors.Is(err, syscall.EADDRINUSE) || addressInUse(err):
			return fmt.Errorf("listen on %s: %w", a, ErrPortInUse)
		default:
			return fmt.Errorf("listen on %s: %w", a, err)
		}
	}
	return nil
}

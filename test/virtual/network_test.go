// Package virtual tests whole agents, stores on disk and real libp2p hosts, on a network in memory and in virtual time:
// an hour of partitions costs seconds. Decisions of one agent are tested in its packages, processes in test/e2e.
//
// A schedule of faults follows from its seed. What the agents draw themselves (back-off, salts, jitter) does not, so a
// seed that failed once may have to be run some times to fail again:
//
//	go test ./test/virtual -run TestG11_PartitionsHeal -seed=N -schedules=1
package virtual

import (
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/p2p/transport/quicreuse"
	"github.com/marcopolo/simnet"
	"github.com/quic-go/quic-go"
	"go.uber.org/fx"
)

// network connects agents by links that can be cut, in one direction too, and lose packets.
type network struct {
	sim  simnet.Simnet
	sent []atomic.Int64 // bytes, by agent

	mu    sync.Mutex
	cut   map[link]bool
	loss  float64 // share of packets lost everywhere
	dice  *rand.Rand
	hosts map[string]int // agents by IP address
}

type link struct{ from, to int }

// newNetwork makes a network of n places with this latency in each direction. It has to be closed.
func newNetwork(n int, latency time.Duration, seed uint64) *network {
	w := &network{sent: make([]atomic.Int64, n), cut: map[link]bool{}, dice: rand.New(rand.NewPCG(seed, 2)), hosts: map[string]int{}}
	w.sim.LatencyFunc = simnet.StaticLatency(latency)
	w.sim.Logger = slog.New(slog.NewTextHandler(io.Discard, nil)) // packets to stopped agents are no news
	for i := range n {
		w.hosts[place(i).String()] = i
	}
	w.sim.Start()
	return w
}

func place(i int) net.IP { return simnet.IntToPublicIPv4(i) }

// listen is the address of an agent.
func listen(i int) string { return fmt.Sprintf("/ip4/%s/udp/8000/quic-v1", place(i)) }

// set puts these cuts in force in place of all others.
func (w *network) set(cut map[link]bool, loss float64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut, w.loss = cut, loss
}

// drops decides about one packet.
func (w *network) drops(from int, to net.Addr) bool {
	u, ok := to.(*net.UDPAddr)
	if !ok {
		return true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.cut[link{from, w.hosts[u.IP.String()]}] || w.loss > 0 && w.dice.Float64() < w.loss
}

// endpoint is an agent's end of the network.
type endpoint struct {
	*simnet.SimConn
	network *network
	place   int
}

func (e *endpoint) WriteTo(b []byte, to net.Addr) (int, error) {
	e.network.sent[e.place].Add(int64(len(b)))
	if e.network.drops(e.place, to) {
		return len(b), nil // as a wire does: nobody tells the sender
	}
	return e.SimConn.WriteTo(b, to)
}

// options put agent i's QUIC on this network.
func (w *network) options(i int) []libp2p.Option {
	rate := simnet.LinkSettings{BitsPerSecond: 100_000_000}
	udp := quicreuse.OverrideListenUDP(func(_ string, a *net.UDPAddr) (net.PacketConn, error) {
		return &endpoint{w.sim.NewEndpoint(a, simnet.NodeBiDiLinkSettings{Downlink: rate, Uplink: rate}), w, i}, nil
	})
	source := quicreuse.OverrideSourceIPSelector(func() (quicreuse.SourceIPSelector, error) { return fixed(place(i)), nil })
	// libp2p does not close a connection manager that it was given.
	closing := func(l fx.Lifecycle, reset quic.StatelessResetKey, token quic.TokenGeneratorKey, o ...quicreuse.Option) (*quicreuse.ConnManager, error) {
		m, err := quicreuse.NewConnManager(reset, token, o...)
		if err == nil {
			l.Append(fx.StopHook(m.Close))
		}
		return m, err
	}
	return []libp2p.Option{libp2p.QUICReuse(closing, udp, source)}
}

// fixed is the address that an agent sends from.
type fixed net.IP

func (f fixed) PreferredSourceIPForDestination(*net.UDPAddr) (net.IP, error) { return net.IP(f), nil }

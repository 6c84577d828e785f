package p2p

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multistream"

	"syncagent/crdtstore/record"
)

const (
	helloTimeout = 5 * time.Second
	streamIdle   = 2 * time.Minute // a stream without a frame for so long is given up
	maxStreams   = 16              // inbound streams of one peer at a time; an honest one has nine at most
)

// errRefused is what a peer says before it ends a stream.
var errRefused = errors.New("refused by the peer")

var errNoMember = errors.New("the peer is no member any more")

// handle serves a protocol: hello first, then serve, for peers of at least this standing.
func (n *Node) handle(ctx context.Context, proto protocol.ID, least standing, serve func(context.Context, *session, *frames) error) {
	n.host.SetStreamHandler(proto, func(st network.Stream) {
		p := st.Conn().RemotePeer()
		n.connected(ctx, p) // the notification may come later
		s := n.session(p)
		if s == nil || !n.enter() {
			_ = st.Reset()
			return
		}
		defer n.handlers.Done()
		if s.inbound.Add(1) > maxStreams {
			s.inbound.Add(-1)
			n.stats.limited.WithLabelValues(limitStreams).Inc()
			_ = st.Reset()
			return
		}
		defer s.inbound.Add(-1)
		stop := context.AfterFunc(ctx, func() { _ = st.Reset() })
		defer stop()
		err := n.accept(ctx, s, newFrames(st, n.hears(ctx, s)), proto, least, serve)
		if err == nil || errors.Is(err, io.EOF) {
			_ = st.Close()
			return
		}
		_ = st.Reset()
		n.log.Debug("stream ended", "peer", p, "protocol", proto, "err", err)
		n.blame(s, err)
	})
}

// blame counts a fault against the peer if err says that it sent garbage.
func (n *Node) blame(s *session, err error) {
	if errors.Is(err, errFrame) {
		n.stats.garbage.Inc()
		n.gate.strike(s.id)
	}
}

func (n *Node) accept(ctx context.Context, s *session, f *frames, proto protocol.ID, least standing, serve func(context.Context, *session, *frames) error) error {
	if n.gate.standing(s.id) < least {
		return f.write(frameRefuse, []byte("not a member"))
	}
	if err := n.readHello(s, f); err != nil {
		return err
	}
	if err := f.write(frameHello, n.hello(proto != protoEntry).encode()); err != nil {
		return err
	}
	return serve(ctx, s, f)
}

// openStream opens a stream over an existing connection and says hello. The peer's hello is read before the first frame
// that is read, so that a request does not wait for it: that saves a round trip. Call done when the stream is no longer
// needed; it may be called twice.
func (n *Node) openStream(ctx context.Context, s *session, proto protocol.ID) (f *frames, done func(), err error) {
	dialCtx, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	st, err := n.newStream(dialCtx, s.id, proto)
	if err != nil {
		return nil, nil, fmt.Errorf("open stream %s: %w", proto, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = st.Reset() })
	done = func() { stop(); _ = st.Close() } // what was written still goes out
	f = newFrames(st, n.hears(ctx, s))
	if err = f.write(frameHello, n.hello(proto != protoEntry).encode()); err != nil {
		done()
		return nil, nil, fmt.Errorf("say hello on %s: %w", proto, err)
	}
	f.greet = func() error {
		if err := n.readHello(s, f); err != nil {
			return fmt.Errorf("wait for hello on %s: %w", proto, err)
		}
		return nil
	}
	return f, done, nil
}

// newStream opens a stream and leaves it to the first write to name the protocol. The library's own NewStream does so too,
// once it was told which protocols the peer has: a round trip that is wasted here, where all have the same.
func (n *Node) newStream(ctx context.Context, to peer.ID, proto protocol.ID) (network.Stream, error) {
	st, err := n.host.Network().NewStream(network.WithNoDial(ctx, "sessions only"), to)
	if err != nil {
		return nil, err
	}
	if err := st.SetProtocol(proto); err != nil {
		_ = st.Reset()
		return nil, err
	}
	return &lazyStream{st, multistream.NewMSSelect(st, proto)}, nil
}

// lazyStream sends the name of its protocol with the first bytes that are written, and takes the peer's before the first
// that are read.
type lazyStream struct {
	network.Stream
	named multistream.LazyConn
}

func (s *lazyStream) Read(b []byte) (int, error)  { return s.named.Read(b) }
func (s *lazyStream) Write(b []byte) (int, error) { return s.named.Write(b) }

// Close may wait for the name, for a peer cannot send it any more once it was told that nobody reads.
func (s *lazyStream) Close() error {
	_ = s.SetReadDeadline(time.Now().Add(helloTimeout))
	return s.named.Close()
}

func (n *Node) hello(withRecord bool) *hello {
	h := &hello{Network: n.o.Network, Format: record.Format, Milli: n.agentMilli(),
		Incarnation: n.replica.Incarnation(), Version: n.o.Version, Name: n.o.Name}
	if withRecord {
		r, _ := n.book.get(n.self.PeerID())
		h.Record = r.signed
	}
	return h
}

// readHello waits for the peer's hello and notes what it says.
func (n *Node) readHello(s *session, f *frames) error {
	for range 8 { // unknown frames may stand before it, but not for ever
		kind, payload, err := f.read(helloTimeout)
		switch {
		case err != nil:
			return err
		case kind == frameRefuse:
			return fmt.Errorf("%w: %q", errRefused, payload[:min(len(payload), 200)])
		case kind != frameHello:
			continue
		}
		h, err := parseHello(payload)
		if err != nil {
			return err
		}
		if h.Network != n.o.Network {
			_ = f.write(frameRefuse, []byte("another network"))
			n.gate.otherNetwork(s.id, h.Network)
			return fmt.Errorf("peer belongs to network %s", h.Network)
		}
		n.noteHello(s, h)
		return nil
	}
	return frameError("no hello")
}

func (n *Node) agentMilli() int64 { return max(n.replica.AgentTime().UnixMilli(), 0) }

// noteSkew compares a peer's agent time, sent half a round trip ago, with ours.
func (n *Node) noteSkew(s *session, milli int64) {
	theirs := time.UnixMilli(min(max(milli, 0), 1<<48))
	s.mu.Lock()
	s.skew = theirs.Sub(n.replica.AgentTime()) + s.rtt/2
	s.mu.Unlock()
}

func (n *Node) noteHello(s *session, h *hello) {
	n.noteSkew(s, h.Milli)
	n.gate.greeted(s.id)
	signed := h.Record
	h.Record = nil
	s.mu.Lock()
	s.hello = h
	s.mu.Unlock()
	if len(signed) == 0 || s.standing != member {
		return
	}
	id, isNew, err := n.book.add(signed)
	if err != nil || id != s.id || !isNew {
		return
	}
	n.forwardRecord(signed, s.id)
}

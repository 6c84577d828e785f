package main

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	libhost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// Frames of p2p/frame.go.
const (
	frameHello = 1
	framePull  = 21
	frameDone  = 25
	syncStream = "/syncagent/sync/1"
)

// puller is a member by a libp2p host alone: it answers a hello by the same, and asks for everything.
type puller struct {
	libhost.Host
	to    []peer.ID
	mu    sync.Mutex
	hello []byte // as an agent said it
}

func newPuller(key ed25519.PrivateKey, addrs []string) (*puller, error) {
	id, err := crypto.UnmarshalEd25519PrivateKey(key)
	if err != nil {
		return nil, err
	}
	h, err := libp2p.New(libp2p.Identity(id), libp2p.NoListenAddrs, libp2p.DisableRelay())
	if err != nil {
		return nil, err
	}
	p := &puller{Host: h}
	for _, proto := range []string{syncStream, "/syncagent/entry/1", "/syncagent/policy/1"} {
		h.SetStreamHandler(protocol.ID(proto), p.greet)
	}
	for _, a := range addrs {
		info, err := peer.AddrInfoFromString(a)
		if err != nil {
			return nil, err
		}
		if err := h.Connect(context.Background(), *info); err != nil {
			return nil, err
		}
		p.to = append(p.to, info.ID)
	}
	return p, wait(func() error {
		if p.heard() == nil {
			return errors.New("no agent says hello")
		}
		return nil
	})
}

// greet keeps a stream open that an agent opened, and says nothing more on it.
func (p *puller) greet(s network.Stream) {
	kind, payload, err := readFrame(s)
	if err != nil || kind != frameHello {
		_ = s.Reset()
		return
	}
	p.mu.Lock()
	p.hello = payload
	p.mu.Unlock()
	_, _ = s.Write(frame(frameHello, payload))
	_, _ = io.Copy(io.Discard, s)
}

func (p *puller) heard() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hello
}

// asks pulls everything from each agent on eight streams at once.
func (h *hostileMember) asks() error {
	var streams sync.WaitGroup
	for _, id := range h.puller.to {
		for range 8 {
			streams.Go(func() {
				if err := h.puller.pull(id); err != nil {
					time.Sleep(10 * time.Millisecond) // refused, as it may be
				}
			})
		}
	}
	streams.Wait()
	return nil
}

func (p *puller) pull(from peer.ID) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	s, err := p.NewStream(ctx, from, syncStream)
	if err != nil {
		return err
	}
	defer s.Reset() //nolint:errcheck // nothing more is wanted of it
	_ = s.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := s.Write(append(frame(frameHello, p.heard()), frame(framePull, nil)...)); err != nil {
		return err
	}
	for {
		kind, _, err := readFrame(s)
		if err != nil {
			return err
		}
		if kind == frameDone {
			return nil
		}
	}
}

func frame(kind byte, payload []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(payload))), payload...)
}

func readFrame(r io.Reader) (kind byte, payload []byte, err error) {
	head := make([]byte, 5)
	if _, err := io.ReadFull(r, head); err != nil {
		return 0, nil, err
	}
	size := binary.BigEndian.Uint32(head[1:])
	if size > 1<<20 {
		return 0, nil, fmt.Errorf("frame of %d bytes", size)
	}
	payload = make([]byte, size)
	_, err = io.ReadFull(r, payload)
	return head[0], payload, err
}

package e2e

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// stallers are members that keep what an agent asks them open for as long as it lets them. Each writes an answer, after
// the hello, until the agent ends the stream; io.EOF: it has nothing more to say. What comes at a brisk pace and is of no
// known kind may go on for ever, within the budget: later versions of the program may have something to say.
var stallers = []struct {
	name   string
	ends   bool
	answer func(w io.Writer, n noise) error
}{
	{"says nothing", true, func(io.Writer, noise) error { return io.EOF }},
	{"drips a byte now and then", true, func(w io.Writer, _ noise) error {
		return until(w, frame(99, make([]byte, 1000)), 1, 100*time.Millisecond)
	}},
	{"never ends", false, func(w io.Writer, _ noise) error { return until(w, frame(99, make([]byte, 10_000)), 10_000, 0) }},
	{"claims to have everything", true, func(w io.Writer, n noise) error {
		vector := make([]byte, 56*1000)
		for i := range vector {
			vector[i] = byte(n.Uint32())
		}
		for range 16 {
			if _, err := w.Write(frame(20, packed(vector))); err != nil {
				return err
			}
		}
		return io.EOF
	}},
	{"sends blocks that nobody asked for", false, func(w io.Writer, n noise) error {
		for {
			if _, err := w.Write(frame(24, packed(n.bytes(10_000)))); err != nil {
				return err
			}
		}
	}},
}

// until writes b again and again, so many bytes at a time, until the other side has had enough.
func until(w io.Writer, b []byte, step int, pause time.Duration) error {
	for rest := b; ; rest = rest[min(step, len(rest)):] {
		if len(rest) == 0 {
			rest = b
		}
		if _, err := w.Write(rest[:min(step, len(rest))]); err != nil {
			return err
		}
		time.Sleep(pause)
	}
}

// Honest agents write, sync after a restart and show each other everything while members stall every stream that they open
// to them, and hold as many open to them as they are given, of a thousand that each asks for.
func TestG10_MembersThatStallTheirStreams(t *testing.T) {
	n := newNoise(t)
	f := newFleet(t, "a", "b")
	keys, rules := f.members(t, len(stallers))
	f.start()
	f.apply(append(rules, everything)...)
	f.connect()
	a, b := f.hosts[0], f.hosts[1]
	ended := make([]chan struct{}, len(stallers))
	for i, c := range stallers {
		p := newRawPeer(t, keys[i])
		ended[i] = make(chan struct{}, 1)
		p.stall(noise{rand.New(rand.NewPCG(n.Uint64(), 0))}, c.answer, ended[i])
		id, err := p.connect(t, a.addrs()[i%2])
		if err != nil {
			t.Fatalf("a member is refused: %v", err)
		}
		go p.hold(id, 1000)
	}
	f.serves(t, "/stalled")
	b.kill()
	a.mustPut("/missed", "x")
	b.start()
	f.connect()
	eventually(t, func() error { return b.shows("/missed", "x") })
	f.serves(t, "/again")
	eventually(t, func() error {
		if !regexp.MustCompile(`syncagent_limited_total\{limit="streams"\} [1-9]`).MatchString(a.metrics()) {
			return errors.New("a bounded no streams")
		}
		return nil
	})
	for i, c := range stallers {
		if !c.ends {
			continue
		}
		select {
		case <-ended[i]:
		case <-time.After(patience):
			t.Errorf("a goes on waiting for a member that %s", c.name)
		}
	}
	if strings.Contains(a.wholeLog(), "panic") {
		t.Error("the log tells of a panic")
	}
}

// stall has all streams that an agent opens answered so. Ended is told of the first that ends.
func (p *rawPeer) stall(n noise, answer func(io.Writer, noise) error, ended chan<- struct{}) {
	for _, proto := range protocols {
		p.SetStreamHandler(proto, func(s network.Stream) {
			defer s.Reset() //nolint:errcheck // the other side is what is tested
			head := make([]byte, 5)
			if _, err := io.ReadFull(s, head); err != nil {
				return
			}
			hello := make([]byte, min(binary.BigEndian.Uint32(head[1:]), 1<<20))
			if _, err := io.ReadFull(s, hello); err != nil {
				return
			}
			p.mu.Lock() // one noise for all streams
			own := noise{rand.New(rand.NewPCG(n.Uint64(), 0))}
			p.mu.Unlock()
			if _, err := s.Write(frame(1, hello)); err == nil && answer(s, own) == io.EOF {
				_, _ = io.Copy(io.Discard, s)
			}
			select {
			case ended <- struct{}{}:
			default:
			}
		})
	}
}

// hold opens streams without end and says half of a hello on each.
func (p *rawPeer) hold(to peer.ID, streams int) {
	for i := range streams {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		s, err := p.NewStream(network.WithNoDial(ctx, "test"), to, protocols[i%len(protocols)])
		cancel()
		if err != nil {
			return // there is no room for more, or no connection any more
		}
		_ = s.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = s.Write([]byte{1, 0, 0})
	}
}

// metrics asks the agent for its metrics.
func (h *host) metrics() string {
	h.t.Helper()
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(h.dir, "agent.sock"))
	}}}
	defer client.CloseIdleConnections()
	res, err := client.Get("http://agent/metrics")
	if err != nil {
		h.t.Fatal(err)
	}
	defer res.Body.Close() //nolint:errcheck // read only
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		h.t.Fatal(res.Status, err)
	}
	return string(text)
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"syncagent/crdtstore"
)

// networkFigures are of agents without their API in this process.
func networkFigures() []figure {
	fs := []figure{
		{name: "catch-up, 1k single puts", unit: "s", measure: catchUp(1000, 1, 0)},
		{name: "catch-up, 10k single puts", goal: "0.7 s, stretch 0.4 s", unit: "s", measure: catchUp(10_000, 1, 0)},
		{name: "catch-up, 100k single puts", unit: "s", measure: catchUp(100_000, 1, 0), long: true},
		{name: "catch-up, 100k in batches of 100", goal: "0.8 s, stretch 0.4 s", unit: "s", measure: catchUp(100_000, 100, 0)},
		{name: "catch-up, 1M in batches of 100", goal: "14 s", unit: "s", measure: catchUp(1_000_000, 100, 0), long: true},
		{name: "catch-up, 1k single puts, 20 ms RTT", goal: "0.12 s", unit: "s", measure: catchUp(1000, 1, 20*time.Millisecond)},
		{name: "catch-up, 10k single puts, 20 ms RTT", unit: "s", measure: catchUp(10_000, 1, 20*time.Millisecond)},
		{name: "catch-up, 100k single puts, 20 ms RTT", unit: "s", measure: catchUp(100_000, 1, 20*time.Millisecond), long: true},
		{name: "catch-up, 100k in batches of 100, 20 ms RTT", unit: "s", measure: catchUp(100_000, 100, 20*time.Millisecond)},
		{name: "heal after a cut, 1k + 1k writes", goal: "0.3 s after reconnect", unit: "s", measure: heal(1000, 1)},
		{name: "heal after a cut, 10k + 10k writes", goal: "0.3 s after reconnect", unit: "s", measure: heal(10_000, 1)},
		{name: "heal after a cut, 10k + 10k writes by 64 clients", goal: "0.3 s after reconnect", unit: "s", measure: heal(10_000, 64)},
		{name: "100 writers of one path at 5 agents, then equal", goal: "5 s", unit: "s", measure: hotKey},
		{name: "idle traffic of a pair, 100k keys", goal: "100 B/s", unit: "B/s", measure: idle},
		{name: "bytes on the wire per put, 2 agents, 20 puts/s", unit: "B", measure: wire(20)},
		{name: "bytes on the wire per put, 2 agents, 5000 puts/s", unit: "B", measure: wire(5000)},
	}
	goals := map[[2]int]string{
		{5, 20}: "0.9 / 1.5 ms", {5, 500}: "0.9 / 1.5 ms", {5, 5000}: "5 / 15 ms, none lost", {20, 20}: "2.5 / 8 ms",
	}
	for _, agents := range []int{2, 5, 10, 20} {
		for _, rate := range []int{20, 500, 5000} {
			name := fmt.Sprintf("propagation p50 / p99, %d agents, %d puts/s", agents, rate)
			fs = append(fs, figure{name: name, goal: goals[[2]int{agents, rate}], unit: "s", measure: propagate(agents, rate)})
		}
	}
	return fs
}

// catchUp is from the start of an empty agent's network until it is equal.
func catchUp(count, batch int, rtt time.Duration) func(string) (float64, string, error) {
	return func(dir string) (took float64, note string, err error) {
		f := newFleet(dir, 2)
		a, b := f.nodes[0], f.nodes[1]
		if err := errors.Join(a.open(), b.open()); err != nil {
			return 0, "", err
		}
		if err := a.fill("/put", scaled(count), batch, 1); err != nil {
			return 0, "", err
		}
		if err := a.connect(); err != nil {
			return 0, "", err
		}
		bootstrap := a.net.Addrs()
		if rtt > 0 {
			p, err := newProxy(listenAddr(bootstrap[0]), rtt/2)
			if err != nil {
				return 0, "", err
			}
			defer p.close()
			bootstrap = []string{p.listener.Addr().String()}
			bootstrap[0] = fmt.Sprintf("/ip4/127.0.0.1/tcp/%d/p2p/%s", p.listener.Addr().(*net.TCPAddr).Port, a.net.Self())
		}
		var began time.Time
		var first time.Duration
		err = profiled(func() error {
			began = time.Now()
			if err := b.connect(bootstrap...); err != nil {
				return err
			}
			return wait(func() error {
				if first == 0 && b.Stats().Entries > 0 {
					first = time.Since(began)
				}
				return f.equal()
			})
		})
		took = time.Since(began).Seconds()
		return took, fmt.Sprintf("from the start of its network, first entries after %s", first.Round(time.Millisecond)), errors.Join(err, f.stop())
	}
}

// heal is from the end of a cut until both sides are equal. The note says when they were connected.
func heal(writes, clients int) func(string) (float64, string, error) {
	return func(dir string) (took float64, note string, err error) {
		f := newFleet(dir, 2)
		if err := f.start(); err != nil {
			return 0, "", err
		}
		for _, n := range f.nodes {
			n.net.Pause()
		}
		for i, n := range f.nodes {
			if err := n.fill(fmt.Sprintf("/%d", i), scaled(writes), 1, clients); err != nil {
				return 0, "", err
			}
		}
		began := time.Now()
		var connected time.Time
		err = profiled(func() error {
			for _, n := range f.nodes {
				n.net.Resume()
			}
			if err := f.connected(); err != nil {
				return err
			}
			connected = time.Now()
			return wait(f.equal)
		})
		note = fmt.Sprintf("after reconnect, which took %s", connected.Sub(began).Round(time.Millisecond))
		return time.Since(connected).Seconds(), note, errors.Join(err, f.stop())
	}
}

// idle is what an agent gets from its peer in frames and messages while nothing happens.
func idle(dir string) (float64, string, error) {
	f := newFleet(dir, 2)
	if err := f.start(); err != nil {
		return 0, "", err
	}
	if err := f.nodes[0].fill("/put", scaled(100_000), 100, 4); err != nil {
		return 0, "", err
	}
	if err := wait(f.equal); err != nil {
		return 0, "", err
	}
	time.Sleep(5 * time.Second)
	before := f.nodes[0].counter("syncagent_peer_received_bytes_total")
	rest := time.Duration(20 * *scale * float64(time.Second))
	time.Sleep(rest)
	bytes := f.nodes[0].counter("syncagent_peer_received_bytes_total") - before
	return bytes / rest.Seconds(), "payload that one of them got", f.stop()
}

// wire is what an agent gets from its peer for each put of that one, in frames and messages, until it shows all of them.
func wire(rate int) func(string) (float64, string, error) {
	return func(dir string) (float64, string, error) {
		f := newFleet(dir, 2)
		if err := f.start(); err != nil {
			return 0, "", err
		}
		if err := wait(f.equal); err != nil {
			return 0, "", err
		}
		a, b := f.nodes[0], f.nodes[1]
		before := b.counter("syncagent_peer_received_bytes_total")
		count := scaled(max(5*rate, 100))
		w := watchAll(f, count)
		(&fleet{nodes: []*node{a}}).putAtRate(w, count, rate)
		lost := w.await(10 * time.Second)
		w.stop()
		bytes := b.counter("syncagent_peer_received_bytes_total") - before
		return bytes / float64(count), fmt.Sprintf("payload, values of 100 bytes, %d lost", lost), f.stop()
	}
}

// counter reads a metric.
func (n *node) counter(name string) float64 {
	families, err := n.registry.Gather()
	if err != nil {
		return -1
	}
	for _, m := range families {
		if m.GetName() == name {
			return m.GetMetric()[0].GetCounter().GetValue()
		}
	}
	return -1
}

// propagate is from the call of a put until the last agent has told its watch of it, fsync included.
func propagate(agents, rate int) func(string) (float64, string, error) {
	return func(dir string) (p50 float64, note string, err error) {
		f := newFleet(dir, agents)
		if err := f.start(); err != nil {
			return 0, "", err
		}
		time.Sleep(2 * time.Second) // gossip's links form
		count := scaled(min(max(rate*2, 200), 10_000))
		w := watchAll(f, count)
		lost := 0
		err = profiled(func() error {
			f.putAtRate(w, count, rate)
			lost = w.await(10 * time.Second)
			return nil
		})
		delays := w.stop()
		if len(delays) == 0 {
			return 0, "", errors.Join(err, f.stop(), errors.New("nothing arrived"))
		}
		p50 = percentiles(delays)
		note = fmt.Sprintf("longest %s, %d lost", delays[len(delays)-1].Round(time.Millisecond), lost)
		return p50, note, errors.Join(err, f.stop())
	}
}

// putAtRate puts from all agents in turn, each put on its own time however long those before it take.
func (f *fleet) putAtRate(w *watchers, count, rate int) {
	var puts sync.WaitGroup
	value := make([]byte, 100)
	began := time.Now()
	for i := range count {
		time.Sleep(time.Until(began.Add(time.Duration(i) * time.Second / time.Duration(rate))))
		puts.Go(func() {
			w.made[i] = time.Now()
			op := crdtstore.Op{Path: fmt.Sprint(w.prefix, "/", i), Value: value}
			_, _ = f.nodes[i%len(f.nodes)].Write(context.Background(), []crdtstore.Op{op}) // one that fails is lost
		})
	}
	puts.Wait()
}

// watchers note when the last agent shows a put.
type watchers struct {
	prefix string // of its own, so that it sees no earlier puts
	cancel context.CancelFunc
	ended  sync.WaitGroup
	agents int
	made   []time.Time

	mu   sync.Mutex
	seen []int
	last []time.Time
	left int
	all  chan struct{}
}

func watchAll(f *fleet, count int) *watchers {
	ctx, cancel := context.WithCancel(context.Background())
	f.watched++
	w := &watchers{prefix: fmt.Sprint("/p/", f.watched), cancel: cancel, agents: len(f.nodes), made: make([]time.Time, count), seen: make([]int, count),
		last: make([]time.Time, count), left: count, all: make(chan struct{})}
	for _, n := range f.nodes {
		w.ended.Go(func() {
			_ = n.Watch(ctx, crdtstore.WatchOptions{Prefixes: []string{w.prefix}}, func(e crdtstore.Event) error {
				var i int
				if _, err := fmt.Sscanf(e.Item.Path, w.prefix+"/%d", &i); err == nil {
					w.saw(i)
				}
				return nil
			})
		})
	}
	return w
}

func (w *watchers) saw(i int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen[i]++
	w.last[i] = time.Now()
	if w.seen[i] == w.agents {
		if w.left--; w.left == 0 {
			close(w.all)
		}
	}
}

// await waits for the rest and counts what does not come.
func (w *watchers) await(limit time.Duration) (lost int) {
	select {
	case <-w.all:
	case <-time.After(limit):
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.left
}

func (w *watchers) stop() (delays []time.Duration) {
	w.cancel()
	w.ended.Wait()
	for i, made := range w.made {
		if w.seen[i] == w.agents {
			delays = append(delays, w.last[i].Sub(made))
		}
	}
	return delays
}

// proxy stands between two agents and delays every byte.
type proxy struct {
	listener net.Listener
	to       string
	delay    time.Duration
}

func newProxy(to string, delay time.Duration) (*proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{l, to, delay}
	go p.accept()
	return p, nil
}

func (p *proxy) close() { _ = p.listener.Close() }

func (p *proxy) accept() {
	for {
		in, err := p.listener.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", p.to)
		if err != nil {
			_ = in.Close()
			continue
		}
		go p.carry(in, out)
		go p.carry(out, in)
	}
}

// carry brings bytes from one connection to the other, later.
func (p *proxy) carry(from, to net.Conn) {
	type parcel struct {
		due   time.Time
		bytes []byte
	}
	queue := make(chan parcel, 4096)
	go func() {
		defer to.Close() //nolint:errcheck // the other direction tells
		for q := range queue {
			time.Sleep(time.Until(q.due))
			if _, err := to.Write(q.bytes); err != nil {
				_ = from.Close()
				return
			}
		}
	}()
	defer close(queue)
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			queue <- parcel{time.Now().Add(p.delay), slices.Clone(buf[:n])}
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				_ = to.Close()
			}
			return
		}
	}
}

// listenAddr gives host:port of a multiaddr of TCP.
func listenAddr(a string) string {
	var ip, id string
	var port int
	if _, err := fmt.Sscanf(a, "/ip4/127.0.0.1/tcp/%d/p2p/%s", &port, &id); err == nil {
		ip = "127.0.0.1"
	}
	return fmt.Sprintf("%s:%d", ip, port)
}

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// meshTime is for gossip's mesh to form. Nothing tells when it has.
const meshTime = 2 * time.Second

// gossip is from the call of publish until the last host has the message. Nothing is stored, and nothing repeated:
// what gossip drops is lost.
func gossip(ctx context.Context, w work) (result, error) {
	d := newDeliveries(w.hosts, w.count)
	var nodes []*node
	var publish []func([]byte) error
	for range w.hosts {
		n, err := newNode(ctx)
		if err != nil {
			return result{}, err
		}
		t, err := n.pubsub.Join(topic)
		if err != nil {
			return result{}, err
		}
		s, err := t.Subscribe()
		if err != nil {
			return result{}, err
		}
		go func() {
			for {
				m, err := s.Next(ctx)
				if err != nil {
					return
				}
				d.saw(int(binary.BigEndian.Uint32(m.Data)))
			}
		}()
		nodes, publish = append(nodes, n), append(publish, func(b []byte) error { return t.Publish(ctx, b) })
	}
	if err := connect(ctx, nodes...); err != nil {
		return result{}, err
	}
	time.Sleep(meshTime)
	return d.measure(w.rate, func(i int) error {
		message := make([]byte, 100)
		binary.BigEndian.PutUint32(message, uint32(i))
		return publish[i%w.hosts](message)
	})
}

// deliveries note when the last host has each message.
type deliveries struct {
	mu         sync.Mutex
	made, last []time.Time
	seen       []int // hosts that have it
	hosts      int
	left       int // messages that not all have
	all        chan struct{}
}

func newDeliveries(hosts, count int) *deliveries {
	return &deliveries{made: make([]time.Time, count), last: make([]time.Time, count), seen: make([]int, count), hosts: hosts,
		left: count, all: make(chan struct{})}
}

func (d *deliveries) saw(i int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seen[i]++
	d.last[i] = time.Now()
	if d.seen[i] == d.hosts {
		if d.left--; d.left == 0 {
			close(d.all)
		}
	}
}

// measure sends each message at its own time, however long those before it take, and gives the delays to the last host.
func (d *deliveries) measure(rate int, send func(i int) error) (result, error) {
	var sent sync.WaitGroup
	began := time.Now()
	for i := range d.made {
		time.Sleep(time.Until(began.Add(time.Duration(i) * time.Second / time.Duration(rate))))
		d.mu.Lock()
		d.made[i] = time.Now()
		d.mu.Unlock()
		sent.Go(func() { _ = send(i) }) // one that fails is lost
	}
	sent.Wait()
	select {
	case <-d.all:
	case <-time.After(10 * time.Second):
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var delays []time.Duration
	for i, n := range d.seen {
		if n >= d.hosts {
			delays = append(delays, d.last[i].Sub(d.made[i]))
		}
	}
	if len(delays) == 0 {
		return result{}, errors.New("nothing arrived")
	}
	slices.Sort(delays)
	at := func(percent int) float64 { return delays[len(delays)*percent/100].Seconds() }
	longest := delays[len(delays)-1].Round(time.Millisecond)
	return result{Value: at(50), Slow: at(99), Note: fmt.Sprintf("longest %s, %d lost", longest, d.left)}, nil
}

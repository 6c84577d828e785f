package main

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"syncagent/acl"
	"syncagent/agent"
	"syncagent/crdtstore"
	"syncagent/crdtstore/record"
	"syncagent/p2p"
)

// patience bounds every wait.
const patience = 3 * time.Minute

// limits are those that an agent has if its configuration does not say otherwise.
var limits = agent.DefaultConfig().Limits

// fleet is some agents without their API in this process, on loopback.
type fleet struct {
	nodes   []*node
	network record.NetworkID
	admins  []record.PublicKey
	policy  []byte
	watched int // times
}

// node is a store and its network.
type node struct {
	*crdtstore.Store
	fleet    *fleet
	key      ed25519.PrivateKey
	dir      string
	net      *p2p.Node                // nil: a store alone
	joined   atomic.Pointer[p2p.Node] // the same, for the store, which runs already
	registry *prometheus.Registry
	stop     func() error
}

func keyOf(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte("syncagent bench " + name))
	return ed25519.NewKeyFromSeed(seed[:])
}

// newFleet makes n agents, which do not run yet.
func newFleet(dir string, n int) *fleet {
	admin := keyOf("admin")
	genesis := record.Genesis{Admins: []record.PublicKey{record.KeyOf(admin)}}
	f := &fleet{network: genesis.ID(), admins: genesis.Admins}
	var identities, group strings.Builder
	for i := range n {
		name := fmt.Sprintf("a%d", i)
		k := keyOf(name)
		f.nodes = append(f.nodes, &node{fleet: f, key: k, dir: filepath.Join(dir, name)})
		fmt.Fprintf(&identities, "identity %s %s\n", name, record.KeyOf(k))
		group.WriteString(" " + name)
	}
	text := fmt.Sprintf("syncagent-policy 1\nnetwork %s\nserial 1\n%sgroup @hosts%s\n@hosts peer\n@hosts / rw\nformat 1\n", f.network, &identities, &group)
	f.policy = acl.Sign([]byte(text), f.network, admin)
	return f
}

// open runs the store alone.
func (n *node) open() error {
	var err error
	n.Store, err = crdtstore.Open(crdtstore.Options{
		Dir: n.dir, Network: n.fleet.network, Key: n.key, Admins: n.fleet.admins, PeerOrigins: limits.PeerOrigins,
		OnCommit: func(blocks []record.Outgoing) {
			if net := n.joined.Load(); net != nil {
				for _, b := range blocks {
					net.Publish(b)
				}
			}
		},
		OnPolicy: func() {
			if net := n.joined.Load(); net != nil {
				net.PolicyChanged()
			}
		},
		OnWants: func() {
			if net := n.joined.Load(); net != nil {
				net.WantsChanged()
			}
		},
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	n.stop = func() error {
		cancel()
		return errors.Join(<-done, n.Close())
	}
	return n.SetPolicy(context.Background(), n.fleet.policy)
}

// connect joins the network by these addresses. The node listens on TCP only: a proxy may stand between.
func (n *node) connect(bootstrap ...string) error {
	n.registry = prometheus.NewRegistry()
	var err error
	n.net, err = p2p.New(p2p.Options{
		Key: n.key, Network: n.fleet.network, Version: "bench", Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Bootstrap: bootstrap,
		Registerer: n.registry, PeerBytes: int64(limits.PeerBytes),
	})
	if err != nil {
		return err
	}
	n.joined.Store(n.net)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.net.Run(ctx, n.Store) }()
	stopStore := n.stop
	n.stop = func() error {
		cancel()
		return errors.Join(<-done, stopStore())
	}
	return nil
}

// start runs all agents of the fleet and waits until each is connected to all.
func (f *fleet) start() error {
	for i, n := range f.nodes {
		if err := n.open(); err != nil {
			return err
		}
		var bootstrap []string
		if i > 0 {
			bootstrap = f.nodes[0].net.Addrs()
		}
		if err := n.connect(bootstrap...); err != nil {
			return err
		}
	}
	return f.connected()
}

func (f *fleet) connected() error {
	return wait(func() error {
		for i, n := range f.nodes {
			connected := 0
			for _, p := range n.net.Peers() {
				if p.Connected {
					connected++
				}
			}
			if connected < len(f.nodes)-1 {
				return fmt.Errorf("agent %d has %d peers", i, connected)
			}
		}
		return nil
	})
}

func (f *fleet) stop() (err error) {
	for _, n := range f.nodes {
		if n.stop != nil {
			err = errors.Join(err, n.stop())
		}
	}
	return err
}

// equal says whether all agents show the same and lack nothing.
func (f *fleet) equal() error {
	first := f.nodes[0].Stats()
	for i, n := range f.nodes {
		if s := n.Stats(); s.ViewDigest != first.ViewDigest || s.BlockDigest != first.BlockDigest || s.Missing > 0 {
			return fmt.Errorf("agent %d has %d blocks and %d entries, agent 0 %d and %d", i, s.Blocks, s.Entries, first.Blocks, first.Entries)
		}
	}
	return nil
}

// wait polls a condition often: what it waits for is what is measured.
func wait(condition func() error) error {
	deadline := time.After(patience)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		err := condition()
		if err == nil {
			return nil
		}
		select {
		case <-deadline:
			return err
		case <-tick.C:
		}
	}
}

// fill puts count values of 100 bytes, batch of them in one write, by several clients so that it does not take long.
// Each write is a block of its own only if there is one client.
func (n *node) fill(prefix string, count, batch, clients int) error {
	value := make([]byte, 100)
	jobs, errs := make(chan int), make(chan error, clients)
	for range clients {
		go func() {
			var failed error
			for i := range jobs {
				var ops []crdtstore.Op
				for j := range batch {
					ops = append(ops, crdtstore.Op{Path: fmt.Sprintf("%s/%d/%d", prefix, (i+j)%100, i+j), Value: value})
				}
				if _, err := n.Write(context.Background(), ops); err != nil {
					failed = err
				}
			}
			errs <- failed
		}()
	}
	for i := 0; i < count; i += batch {
		jobs <- i
	}
	close(jobs)
	var err error
	for range clients {
		err = errors.Join(err, <-errs)
	}
	return err
}

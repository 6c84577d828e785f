// Command stack does with libraries alone what syncagent is measured at, so that a table of figures can have both from
// one run: messages over bare gossipsub, and go-ds-crdt put together as its documents show it. It is a module of its
// own: what only it needs is no dependency of the product. The versions are the product's; a test holds that.
//
//	stack gossip -hosts 5 -rate 20 -count 200
//	stack put|catch-up|propagate -dir DIR -count 1000
//
// It prints one line of JSON: the value in seconds or per second, for a latency the 99th percentile too, and a note.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	topic    = "stack"
	patience = 10 * time.Minute
)

// work is what is asked for.
type work struct {
	dir                string
	hosts, rate, count int
}

// result is the line that is printed.
type result struct {
	Value float64 `json:"value"`
	Slow  float64 `json:"slow,omitempty"`
	Note  string  `json:"note,omitempty"`
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "stack:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	kinds := map[string]func(context.Context, work) (result, error){
		"gossip": gossip, "put": put, "catch-up": catchUp, "propagate": propagate,
	}
	if len(args) == 0 || kinds[args[0]] == nil {
		return fmt.Errorf("say what to do: gossip, put, catch-up or propagate")
	}
	var w work
	f := flag.NewFlagSet(args[0], flag.ExitOnError)
	f.StringVar(&w.dir, "dir", "", "an empty directory for the stores")
	f.IntVar(&w.hosts, "hosts", 2, "how many, each connected to all")
	f.IntVar(&w.rate, "rate", 20, "messages or puts a second, from all hosts in turn")
	f.IntVar(&w.count, "count", 200, "how many of them")
	if err := f.Parse(args[1:]); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r, err := kinds[args[0]](ctx, w)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

// node is a host with gossip, both with the settings that the libraries come with.
type node struct {
	host   host.Host
	pubsub *pubsub.PubSub
}

func newNode(ctx context.Context) (*node, error) {
	// Twenty hosts at one address are more than the resource manager allows by default.
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.ResourceManager(&network.NullResourceManager{}))
	if err != nil {
		return nil, err
	}
	ps, err := pubsub.NewGossipSub(ctx, h)
	return &node{h, ps}, err
}

// connect connects each to all, and waits until each knows that all have the topic.
func connect(ctx context.Context, nodes ...*node) error {
	for i, a := range nodes {
		for _, b := range nodes[:i] {
			if err := a.host.Connect(ctx, peer.AddrInfo{ID: b.host.ID(), Addrs: b.host.Addrs()}); err != nil {
				return err
			}
		}
	}
	for _, n := range nodes {
		for len(n.pubsub.ListPeers(topic)) < len(nodes)-1 {
			select {
			case <-ctx.Done():
				return fmt.Errorf("gossip's links do not form: %w", ctx.Err())
			case <-time.After(time.Millisecond):
			}
		}
	}
	return nil
}

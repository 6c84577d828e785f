package main

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"syncagent/crdtstore/record"
)

// By these variables of its environment the program knows that it is the hostile member, and where its store goes.
const (
	attackVariable = "BENCH_ATTACK"
	dirVariable    = "BENCH_DIR"
)

// attacks are what the hostile member does again and again while it is told to: some 10 ms of it at each call.
var attacks = []struct {
	name string
	once func(h *hostileMember) error
}{
	{"floods the topic with writes of its own", (*hostileMember).writes},
	{"floods the topic with blocks by invented keys", (*hostileMember).invents},
	{"sends old blocks again and again", (*hostileMember).repeats},
	{asking, (*hostileMember).asks},
}

const asking = "asks for everything on eight streams"

// hostileMember is the third agent of the fleet: the product's own parts, but for what it publishes.
type hostileMember struct {
	*node
	ctx    context.Context
	prev   record.Digest
	seq    uint64
	height uint64
	old    []record.Outgoing
	puller *puller // in place of its network, when it asks
}

const floodBlocks = 256 // at a time

// hostile is this process when it was started as the hostile member.
func hostile(attack string) error {
	f := newFleet("", 3)
	n := f.nodes[2]
	n.dir = os.Getenv(dirVariable)
	if err := n.open(); err != nil {
		return err
	}
	h := &hostileMember{node: n, ctx: context.Background(), height: 1}
	var once func() error
	var err error
	for _, a := range attacks {
		if a.name == attack {
			once = func() error { return a.once(h) }
		}
	}
	if attack == asking {
		h.puller, err = newPuller(n.key, os.Args[1:])
	} else if err = n.connect(os.Args[1:]...); err == nil {
		err = wait(func() error {
			if connected := len(n.net.Peers()); connected < 2 {
				return fmt.Errorf("%d peers", connected)
			}
			return nil
		})
	}
	if err != nil {
		return err
	}
	fmt.Println("ready")
	var on atomic.Bool
	failed := make(chan error, 1)
	go func() {
		for {
			if !on.Load() {
				time.Sleep(time.Millisecond)
				continue
			}
			if err := once(); err != nil {
				failed <- err
				return
			}
		}
	}()
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		on.Store(lines.Text() == "go")
		select {
		case err := <-failed:
			return err
		default:
			fmt.Println(lines.Text())
		}
	}
	return nil
}

// write makes one write of a path that it may write.
func (h *hostileMember) write() (*record.Write, record.OutgoingEntry) {
	e := &record.Entry{Kind: record.KindPut, Path: fmt.Sprintf("/flood/%d", h.seq%1000), Value: make([]byte, 100)}
	tags := h.fleet.network.Tags(e.Path)
	w := &record.Write{Author: record.KeyOf(h.key), HLC: record.NewHLC(h.AgentTime()), Slots: []record.Slot{{Entry: e.ID(), Tags: tags}}}
	return w, record.OutgoingEntry{Tags: tags, Bytes: e.Encode()}
}

// block makes a block on top of links, signed by key.
func (h *hostileMember) block(key ed25519.PrivateKey, b record.Bundle, height uint64, links ...record.Digest) []byte {
	b.Origin = record.KeyOf(key)
	b.Sign(key, h.fleet.network, links)
	return record.EncodeBlock(links, height, b.Encode())
}

// writes is a chain of valid blocks of one write each, faster than anybody writes.
func (h *hostileMember) writes() error {
	var parcels []record.Parcel
	var out []record.Outgoing
	for range floodBlocks {
		w, e := h.write()
		links := []record.Digest{record.DigestOf(record.GenesisBlock(h.fleet.network, 0))}
		if h.seq > 0 {
			links[0] = h.prev
		}
		h.seq++
		h.height++
		raw := h.block(h.key, record.Bundle{Incarnation: 1, Seq: h.seq, Prev: h.prev, Writes: []*record.Write{w}}, h.height, links...)
		h.prev = record.DigestOf(raw)
		parcels = append(parcels, record.Parcel{Block: raw, Entries: [][]byte{e.Bytes}})
		out = append(out, record.Outgoing{Block: raw, Entries: []record.OutgoingEntry{e}})
	}
	if _, err := h.Ingest(h.ctx, record.KeyOf(h.key), parcels); err != nil { // it can be asked for what got lost
		return err
	}
	for _, o := range out {
		h.net.Publish(o)
	}
	return nil
}

// invents makes blocks by keys that nobody knows, each the beginning of a chain: on the topic, and to be had by sync.
func (h *hostileMember) invents() error {
	var parcels []record.Parcel
	for range floodBlocks {
		_, key, err := ed25519.GenerateKey(nil)
		if err != nil {
			return err
		}
		genesis := record.DigestOf(record.GenesisBlock(h.fleet.network, 0))
		raw := h.block(key, record.Bundle{Incarnation: 1, Seq: 1}, 2, genesis)
		h.net.Publish(record.Outgoing{Block: raw})
		parcels = append(parcels, record.Parcel{Block: raw})
	}
	_, err := h.Ingest(h.ctx, record.KeyOf(h.key), parcels)
	return err
}

// repeats publishes what everybody has.
func (h *hostileMember) repeats() error {
	if h.old == nil {
		err := h.Missing(h.ctx, nil, record.KeyOf(h.key), func(p record.Parcel) error {
			if len(h.old) < 4096 {
				h.old = append(h.old, record.Outgoing{Block: append([]byte{}, p.Block...)})
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	for _, o := range h.old {
		h.net.Publish(o)
	}
	time.Sleep(10 * time.Millisecond)
	return nil
}

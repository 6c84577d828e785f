package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"github.com/ipfs/boxo/bitswap"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/go-datastore"
	badger "github.com/ipfs/go-ds-badger4"
	crdt "github.com/ipfs/go-ds-crdt"
)

// replica is go-ds-crdt as its documents put it together: a datastore, its own broadcaster over gossipsub, and for the
// blocks bitswap, wired as ipfs-lite does it. The datastore is of badger, because the product's is. Everything has the
// settings it comes with, but for the interval of the rebroadcast, which is that of its example.
type replica struct {
	*node
	*crdt.Datastore
}

// newReplica makes a replica that tells of every key when it has it.
func newReplica(ctx context.Context, dir string, has func(i int)) (*replica, error) {
	n, err := newNode(ctx)
	if err != nil {
		return nil, err
	}
	store, err := badger.NewDatastore(dir, nil)
	if err != nil {
		return nil, err
	}
	blocks := blockstore.NewBlockstore(store)
	exchange := bitswap.New(ctx, bsnet.NewFromIpfsHost(n.host), nil, blocks)
	dag := merkledag.NewDAGService(blockservice.New(blocks, exchange))
	broadcaster, err := crdt.NewPubSubBroadcaster(ctx, n.pubsub, topic)
	if err != nil {
		return nil, err
	}
	o := crdt.DefaultOptions()
	o.RebroadcastInterval = 5 * time.Second
	o.PutHook = func(k datastore.Key, _ []byte) {
		if i, err := strconv.Atoi(k.BaseNamespace()); err == nil {
			has(i)
		}
	}
	d, err := crdt.New(store, datastore.NewKey("crdt"), dag, broadcaster, o)
	return &replica{n, d}, err
}

// durably puts a value of 100 bytes that is on disk when it returns.
func (r *replica) durably(ctx context.Context, i int) error {
	k := datastore.NewKey("/p/" + strconv.Itoa(i))
	if err := r.Put(ctx, k, make([]byte, 100)); err != nil {
		return err
	}
	return r.Sync(ctx, k)
}

// put is how many durable puts one client makes in a second.
func put(ctx context.Context, w work) (result, error) {
	r, err := newReplica(ctx, w.dir, func(int) {})
	if err != nil {
		return result{}, err
	}
	began := time.Now()
	for i := range w.count {
		if err := r.durably(ctx, i); err != nil {
			return result{}, err
		}
	}
	return result{Value: float64(w.count) / time.Since(began).Seconds()}, nil
}

// catchUp is from one more put on a full replica until an empty one, which is connected and knew of nothing, has all.
func catchUp(ctx context.Context, w work) (result, error) {
	d := newDeliveries(1, w.count+1)
	full, err := newReplica(ctx, filepath.Join(w.dir, "full"), func(int) {})
	if err != nil {
		return result{}, err
	}
	empty, err := newReplica(ctx, filepath.Join(w.dir, "empty"), d.saw)
	if err != nil {
		return result{}, err
	}
	value := make([]byte, 100)
	for i := range w.count {
		if err := full.Put(ctx, datastore.NewKey("/p/"+strconv.Itoa(i)), value); err != nil {
			return result{}, err
		}
	}
	if err := connect(ctx, full.node, empty.node); err != nil {
		return result{}, err
	}
	time.Sleep(meshTime)
	began := time.Now()
	if err := full.durably(ctx, w.count); err != nil {
		return result{}, err
	}
	select {
	case <-d.all:
		return result{Value: time.Since(began).Seconds()}, nil
	case <-ctx.Done():
		d.mu.Lock()
		defer d.mu.Unlock()
		return result{}, fmt.Errorf("%d of %d are missing: %w", d.left, w.count+1, ctx.Err())
	}
}

// propagate is from the call of a durable put until the last replica has merged it.
func propagate(ctx context.Context, w work) (result, error) {
	d := newDeliveries(w.hosts, w.count)
	var replicas []*replica
	var nodes []*node
	for i := range w.hosts {
		r, err := newReplica(ctx, filepath.Join(w.dir, strconv.Itoa(i)), d.saw)
		if err != nil {
			return result{}, err
		}
		replicas, nodes = append(replicas, r), append(nodes, r.node)
	}
	if err := connect(ctx, nodes...); err != nil {
		return result{}, err
	}
	time.Sleep(meshTime)
	return d.measure(w.rate, func(i int) error { return replicas[i%w.hosts].durably(ctx, i) })
}

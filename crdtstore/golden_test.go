package crdtstore

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	dag "github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/go-cid"
	ds "github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	crdt "github.com/ipfs/go-ds-crdt"
	pb "github.com/ipfs/go-ds-crdt/pb"
	ipld "github.com/ipfs/go-ipld-format"
	"google.golang.org/protobuf/proto"

	"syncagent/crdtstore/record"
)

// TestGoldenBlocks holds that record.EncodeBlock gives, to the byte, what go-ds-crdt makes of a Put on 0, 1, 3 and the
// most heads. The block rule accepts no other bytes, so an upgrade of the library that changes them must fail here.
func TestGoldenBlocks(t *testing.T) {
	var network record.NetworkID
	copy(network[:], bytes.Repeat([]byte{7}, 32))
	for _, heads := range []int{0, 1, 3, 127, 128, 1000, record.MaxLinks} {
		t.Run(fmt.Sprint(heads, " links"), func(t *testing.T) {
			lib := newLibrary(t)
			value, priority := record.GenesisValue(network, 0), uint64(1)
			genesis := record.DigestOf(record.GenesisBlock(network, 0))
			links := []record.Digest{genesis}
			if heads == 0 {
				links = nil
			} else {
				lib.put(value)
				priority = 2
			}
			if heads > 1 {
				links, priority = nil, 3
				for i := range heads {
					b := record.EncodeBlock([]record.Digest{genesis}, 2, fmt.Appendf(nil, "sibling %d", i))
					lib.feed(b)
					links = append(links, record.DigestOf(b))
				}
				slices.SortFunc(links, func(a, b record.Digest) int { return bytes.Compare(a[:], b[:]) })
			}
			if heads > 0 {
				value = bytes.Repeat([]byte("value "), 1000)
			}
			node := lib.put(value)
			if want := record.EncodeBlock(links, priority, value); !bytes.Equal(node.RawData(), want) {
				t.Fatalf("go-ds-crdt gives\n%.300x\nour encoder\n%.300x", node.RawData(), want)
			}
			d := record.DigestOf(node.RawData())
			if c := node.Cid(); !bytes.Equal(c.Bytes(), d.CID()) || c.String() != d.String() {
				t.Errorf("go-ds-crdt names it %s, we %s", c, d)
			}
			if heads == 0 && d != genesis {
				t.Error("the first Put on an empty store is not the genesis block")
			}
		})
	}
}

// library is a go-ds-crdt as its makers meant it, on a map, fed one block at a time.
type library struct {
	t    *testing.T
	dag  *mapDAG
	in   *feeder
	crdt *crdt.Datastore
}

func newLibrary(t *testing.T) *library {
	l := &library{t: t, dag: &mapDAG{nodes: map[string]ipld.Node{}}, in: &feeder{next: make(chan []byte), idle: make(chan struct{})}}
	options := crdt.DefaultOptions()
	options.RepairInterval, options.RebroadcastInterval, options.DAGSyncerTimeout = 0, time.Hour, time.Minute
	var err error
	l.crdt, err = crdt.New(dssync.MutexWrap(ds.NewMapDatastore()), ds.NewKey("/c"), l.dag, l.in, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.crdt.Close(); err != nil {
			t.Error(err)
		}
	})
	<-l.in.idle
	return l
}

// put makes a block of one element on all heads.
func (l *library) put(value []byte) ipld.Node {
	l.t.Helper()
	if err := l.crdt.Put(context.Background(), ds.NewKey("/b"), value); err != nil {
		l.t.Fatal(err)
	}
	return l.dag.newest
}

// feed hands over a block from elsewhere and returns when it is merged.
func (l *library) feed(raw []byte) {
	l.t.Helper()
	node, err := dag.DecodeProtobuf(raw)
	if err != nil {
		l.t.Fatal(err)
	}
	if err := node.SetCidBuilder(dag.V1CidPrefix()); err != nil {
		l.t.Fatal(err)
	}
	if !bytes.Equal(node.RawData(), raw) {
		l.t.Fatal("a node does not encode to the bytes it was decoded from")
	}
	if err := l.dag.Add(context.Background(), node); err != nil {
		l.t.Fatal(err)
	}
	payload, err := proto.Marshal(&pb.CRDTBroadcast{Heads: []*pb.Head{{Cid: node.Cid().Bytes()}}})
	if err != nil {
		l.t.Fatal(err)
	}
	l.in.next <- payload
	<-l.in.idle // Next was called again: the payload before is merged
}

// feeder is a Broadcaster that sends nothing and receives what a test gives it.
type feeder struct {
	next chan []byte
	idle chan struct{}
}

func (f *feeder) Broadcast(context.Context, []byte) error { return nil }

func (f *feeder) Next(ctx context.Context) ([]byte, error) {
	select {
	case f.idle <- struct{}{}:
	case <-ctx.Done():
		return nil, crdt.ErrNoMoreBroadcast
	}
	select {
	case payload := <-f.next:
		return payload, nil
	case <-ctx.Done():
		return nil, crdt.ErrNoMoreBroadcast
	}
}

// mapDAG is a DAGService in memory that remembers the newest node.
type mapDAG struct {
	ipld.DAGService // not called for anything else
	mu              sync.Mutex
	nodes           map[string]ipld.Node
	newest          ipld.Node
}

func (m *mapDAG) Add(_ context.Context, n ipld.Node) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.nodes[n.Cid().KeyString()], m.newest = n, n
	return nil
}

func (m *mapDAG) Get(_ context.Context, c cid.Cid) (ipld.Node, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n, ok := m.nodes[c.KeyString()]; ok {
		return n, nil
	}
	return nil, ipld.ErrNotFound{Cid: c}
}

func (m *mapDAG) GetMany(ctx context.Context, cids []cid.Cid) <-chan *ipld.NodeOption {
	out := make(chan *ipld.NodeOption, len(cids))
	for _, c := range cids {
		n, err := m.Get(ctx, c)
		out <- &ipld.NodeOption{Node: n, Err: err}
	}
	close(out)
	return out
}

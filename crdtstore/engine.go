package crdtstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	dag "github.com/ipfs/boxo/ipld/merkledag"
	blockformat "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ds "github.com/ipfs/go-datastore"
	crdt "github.com/ipfs/go-ds-crdt"
	crdtpb "github.com/ipfs/go-ds-crdt/pb"
	ipld "github.com/ipfs/go-ipld-format"
	"google.golang.org/protobuf/proto"

	"syncagent/crdtstore/record"
)

// engine runs go-ds-crdt on an overlay in memory. go-ds-crdt merges blocks and keeps the heads; it never touches the
// network, and what it writes during a turn is committed with the turn's other rows or not at all.
//
// One goroutine uses it. Blocks are fed parents first, so that the library never walks a DAG (its walk loses branches
// after a crash, see ARCHITECTURE.md, "Decisions").
type engine struct {
	overlay *overlay
	ds      *crdt.Datastore
	feed    chan []byte   // payloads for Broadcaster.Next
	idle    chan struct{} // a token each time Next is called: the payload before it is merged
	added   *record.Block // what the last Put made
	check   func(*record.Block) error
}

// elementKey is the one key that all deltas carry; the winner is never read through go-ds-crdt.
var elementKey = ds.NewKey("/b")

// newEngine starts go-ds-crdt with these heads. Check is the block rule, applied to blocks that it makes.
func newEngine(base func() view, heads map[record.Digest]head, check func(*record.Block) error, log *slog.Logger) (*engine, error) {
	e := &engine{feed: make(chan []byte), idle: make(chan struct{}), check: check}
	e.overlay = &overlay{base: base, heads: heads, blocks: map[record.Digest]ipld.Node{}, marks: map[record.Digest]bool{}, rows: map[string][]byte{}}
	o := crdt.DefaultOptions()
	o.Logger = crdtLog{log}
	o.RepairInterval = 0 // its repair believes marks that a crash made wrong
	o.MultiHeadProcessing = false
	o.NumWorkers = 1
	o.DAGSyncerTimeout = time.Minute // blocks are local: never waited for
	o.RebroadcastInterval = 5 * time.Second
	x, err := crdt.New(e.overlay, ds.NewKey("/c"), dagService{e: e}, broadcaster{e}, o)
	if err != nil {
		return nil, fmt.Errorf("start go-ds-crdt: %w", err)
	}
	e.ds = x
	<-e.idle // New has begun to ask for payloads
	return e, nil
}

func (e *engine) close() error { return e.ds.Close() }

// merge feeds blocks that are in the overlay already, parents first. It gives the first block that go-ds-crdt did not
// take, if any.
func (e *engine) merge(blocks []*record.Block) (refused *record.Block, err error) {
	if len(blocks) == 0 {
		return nil, nil
	}
	m := &crdtpb.CRDTBroadcast{Heads: make([]*crdtpb.Head, len(blocks))}
	for i, b := range blocks {
		n, err := nodeOf(b.Digest, b.Raw)
		if err != nil {
			return nil, err
		}
		e.overlay.putBlock(b.Digest, n)
		m.Heads[i] = &crdtpb.Head{Cid: b.Digest.CID()}
	}
	payload, err := proto.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode payload: %w", err)
	}
	e.feed <- payload
	<-e.idle
	for _, b := range blocks {
		if !e.overlay.marked(b.Digest) {
			return b, nil
		}
	}
	return nil, e.overlay.dirty()
}

// put publishes one value as a new block on top of all heads and gives the block.
func (e *engine) put(value []byte) (*record.Block, error) {
	e.added = nil
	// The background context: a put that is under way is never cut off in the middle.
	if err := e.ds.Put(context.Background(), elementKey, value); err != nil {
		return nil, err
	}
	if e.added == nil {
		return nil, errors.New("go-ds-crdt made no block")
	}
	return e.added, e.overlay.dirty()
}

// heads gives go-ds-crdt's own heads.
func (e *engine) heads() ([]record.Digest, error) {
	var all []record.Digest
	for _, c := range e.ds.InternalStats(context.Background()).Heads {
		d, err := record.DigestFromCID(c.Bytes())
		if err != nil {
			return nil, fmt.Errorf("head %s: %w", c, err)
		}
		all = append(all, d)
	}
	return all, nil
}

// broadcaster hands payloads to go-ds-crdt. What it wants to send is ignored: the store announces its own blocks.
type broadcaster struct{ e *engine }

func (broadcaster) Broadcast(context.Context, []byte) error { return nil }

func (b broadcaster) Next(ctx context.Context) ([]byte, error) {
	select {
	case b.e.idle <- struct{}{}:
	case <-ctx.Done():
		return nil, crdt.ErrNoMoreBroadcast
	}
	select {
	case p := <-b.e.feed:
		return p, nil
	case <-ctx.Done():
		return nil, crdt.ErrNoMoreBroadcast
	}
}

// dagService gives go-ds-crdt the blocks of the overlay and of the store, and nothing from elsewhere.
type dagService struct {
	ipld.DAGService // removal is never called
	e               *engine
}

func (d dagService) Add(_ context.Context, n ipld.Node) error {
	raw := n.RawData()
	b, err := d.e.parse(raw)
	if err != nil {
		return fmt.Errorf("own block: %w", err)
	}
	d.e.added = b
	d.e.overlay.putBlock(b.Digest, n)
	return nil
}

// parse applies the block rule to a block of our own.
func (e *engine) parse(raw []byte) (*record.Block, error) {
	b, err := record.ParseBlock(raw)
	if err != nil {
		// The one block without links is the genesis; check knows it.
		b = &record.Block{Digest: record.DigestOf(raw), Raw: raw, Priority: 1}
	}
	return b, e.check(b)
}

func (d dagService) Get(_ context.Context, c cid.Cid) (ipld.Node, error) {
	digest, err := record.DigestFromCID(c.Bytes())
	if err != nil {
		return nil, err
	}
	n, err := d.e.overlay.block(digest)
	if err == nil && n == nil {
		err = ipld.ErrNotFound{Cid: c}
	}
	return n, err
}

// nodeOf reads a block that has this digest.
func nodeOf(d record.Digest, raw []byte) (ipld.Node, error) {
	c, err := cid.Cast(d.CID())
	if err != nil {
		return nil, err
	}
	b, err := blockformat.NewBlockWithCid(raw, c)
	if err != nil {
		return nil, err
	}
	return dag.DecodeProtobufBlock(b)
}

func (d dagService) GetMany(ctx context.Context, cs []cid.Cid) <-chan *ipld.NodeOption {
	out := make(chan *ipld.NodeOption, len(cs))
	defer close(out)
	for _, c := range cs {
		n, err := d.Get(ctx, c)
		out <- &ipld.NodeOption{Node: n, Err: err}
	}
	return out
}

// crdtLog sends go-ds-crdt's lines to slog; its routine lines at debug level.
type crdtLog struct{ log *slog.Logger }

func (l crdtLog) Debug(...any)              {}
func (l crdtLog) Debugf(string, ...any)     {}
func (l crdtLog) Info(...any)               {}
func (l crdtLog) Infof(string, ...any)      {}
func (l crdtLog) Warn(a ...any)             { l.log.Warn("go-ds-crdt", "text", fmt.Sprint(a...)) }
func (l crdtLog) Warnf(f string, a ...any)  { l.log.Warn("go-ds-crdt", "text", fmt.Sprintf(f, a...)) }
func (l crdtLog) Error(a ...any)            { l.log.Error("go-ds-crdt", "text", fmt.Sprint(a...)) }
func (l crdtLog) Errorf(f string, a ...any) { l.log.Error("go-ds-crdt", "text", fmt.Sprintf(f, a...)) }
func (l crdtLog) Panic(a ...any)            { panic(fmt.Sprint(a...)) }
func (l crdtLog) Panicf(f string, a ...any) { panic(fmt.Sprintf(f, a...)) }
func (l crdtLog) Fatal(a ...any)            { panic(fmt.Sprint(a...)) }
func (l crdtLog) Fatalf(f string, a ...any) { panic(fmt.Sprintf(f, a...)) }

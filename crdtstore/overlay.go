package crdtstore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/ipfs/boxo/datastore/dshelp"
	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	ipld "github.com/ipfs/go-ipld-format"

	"syncagent/crdtstore/record"
)

// overlay is the datastore under go-ds-crdt: what it writes stays here until the turn commits it, reads fall through
// to the rows. Its set keys are dropped, they are never read; a block's mark is the block's own row; its heads are those that
// the turn works out itself, and stores in rows that change less often.
type overlay struct {
	mu     sync.Mutex // go-ds-crdt's statistics look in from another goroutine
	base   func() view
	heads  map[record.Digest]head      // at start
	blocks map[record.Digest]ipld.Node // of this turn
	marks  map[record.Digest]bool
	rows   map[string][]byte // nil deletes
	isBad  bool              // go-ds-crdt set its dirty mark
}

const (
	nsSet   = "/c/s/"
	nsHeads = "/c/h/"
	nsMarks = "/c/b/"
	nsDirty = "/c/d"
)

// take gives what go-ds-crdt wrote in this turn and starts anew.
func (o *overlay) take(r *rows) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for k, v := range o.rows {
		if v == nil {
			r.delete([]byte(k))
		} else {
			r.set([]byte(k), v)
		}
	}
	clear(o.rows)
	clear(o.blocks)
	clear(o.marks)
}

func (o *overlay) putBlock(d record.Digest, n ipld.Node) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.blocks[d] = n
}

// block gives a block of this turn or of the store, nil if there is none.
func (o *overlay) block(d record.Digest) (ipld.Node, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if n := o.blocks[d]; n != nil {
		return n, nil
	}
	raw, err := o.read(blockKey(d))
	if raw == nil || err != nil {
		return nil, err
	}
	return nodeOf(d, raw)
}

func (o *overlay) read(key []byte) ([]byte, error) {
	v := o.base()
	defer v.Close()
	value, _, err := v.Get(key)
	return value, err
}

func (o *overlay) marked(d record.Digest) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.marks[d]
}

func (o *overlay) dirty() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.isBad {
		return errors.New("go-ds-crdt could not finish a step")
	}
	return nil
}

// rowKey gives the key of our row for one of go-ds-crdt's keys: "c" for its leading "/c".
func rowKey(k string) []byte { return []byte(k[1:]) }

func markOf(k string) (record.Digest, error) {
	var d record.Digest
	mh, err := dshelp.BinaryFromDsKey(ds.RawKey(k[len(nsMarks)-1:]))
	if err != nil || len(mh) != 34 {
		return d, fmt.Errorf("mark %q is not a sha2-256 multihash", k)
	}
	copy(d[:], mh[2:])
	return d, nil
}

func (o *overlay) set(k string, v []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case strings.HasPrefix(k, nsSet), strings.HasPrefix(k, nsHeads):
	case strings.HasPrefix(k, nsMarks):
		d, err := markOf(k)
		if err != nil {
			return err
		}
		o.marks[d] = true
	case k == nsDirty:
		o.isBad = true
	default:
		o.rows[string(rowKey(k))] = v
	}
	return nil
}

func (o *overlay) Get(_ context.Context, k ds.Key) ([]byte, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := k.String()
	if strings.HasPrefix(s, nsSet) || strings.HasPrefix(s, nsMarks) || strings.HasPrefix(s, nsHeads) {
		return nil, ds.ErrNotFound
	}
	v, ok := o.rows[string(rowKey(s))]
	if !ok {
		var err error
		if v, err = o.read(rowKey(s)); err != nil {
			return nil, err
		}
	}
	if v == nil {
		return nil, ds.ErrNotFound
	}
	return v, nil
}

func (o *overlay) Has(ctx context.Context, k ds.Key) (bool, error) {
	s := k.String()
	if strings.HasPrefix(s, nsMarks) {
		d, err := markOf(s)
		if err != nil {
			return false, err
		}
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.marks[d] {
			return true, nil
		}
		if _, fresh := o.blocks[d]; fresh {
			return false, nil // of this turn, not merged yet
		}
		v, err := o.read(blockKey(d))
		return v != nil, err
	}
	_, err := o.Get(ctx, k)
	if errors.Is(err, ds.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

func (o *overlay) GetSize(ctx context.Context, k ds.Key) (int, error) {
	v, err := o.Get(ctx, k)
	return len(v), err
}

func (o *overlay) Put(_ context.Context, k ds.Key, v []byte) error {
	if v == nil {
		v = []byte{}
	}
	return o.set(k.String(), v)
}

func (o *overlay) Delete(_ context.Context, k ds.Key) error { return o.set(k.String(), nil) }

// Query serves the one query that go-ds-crdt makes: its heads, at start.
func (o *overlay) Query(_ context.Context, q query.Query) (query.Results, error) {
	var all []query.Entry
	if q.Prefix+"/" == nsHeads {
		for d, h := range o.heads {
			name := dshelp.MultihashToDsKey(d.CID()[2:]).String()
			all = append(all, query.Entry{Key: q.Prefix + name, Value: binary.AppendUvarint(nil, h.priority)})
		}
	}
	return query.ResultsWithEntries(q, all), nil
}

func (o *overlay) Sync(context.Context, ds.Key) error { return nil }
func (o *overlay) Close() error                       { return nil }

// It is no ds.Batching: in memory nothing can fail between two steps, and batches would cost time.
var _ ds.Datastore = (*overlay)(nil)

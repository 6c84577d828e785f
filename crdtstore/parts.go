package crdtstore

import (
	"errors"
	"fmt"

	"github.com/dgraph-io/badger/v4"

	"syncagent/crdtstore/fault"
)

// A transaction of badger may have 15 % of a memtable, 1.2 MB; the largest block makes up to 2.3 MB of rows. Such a commit
// takes several transactions, its parts, and is one all the same. Nobody sees a part alone, since a view reads at the last
// commit that has ended (moments.go). And a crash leaves none: before the first a mark says that there will be more, and a
// start that finds it gives every row that is newer than the mark what it had before, which badger keeps for the views.
//
// The mark is on disk before the first part, and all parts are before it goes: they may lie in the logs of two memtables,
// and a power cut may take what it wants of what is not synced.

var partsMark = []byte("mc")

// write stores rows in one transaction, or in parts if it cannot hold them.
func (b *badgerKV) write(r *rows) error {
	txn := b.begin()
	defer func() { txn.Discard() }()
	for k, v := range r.m {
		err := change(txn, k, v)
		if errors.Is(err, badger.ErrTxnTooBig) {
			if err = b.endPart(txn); err == nil {
				txn = b.begin()
				err = change(txn, k, v)
			}
		}
		if err != nil {
			return err
		}
	}
	if err := b.end(txn); err != nil {
		return err
	}
	for _, v := range r.m { // not before: a sync in between would take the mark and leave the value
		if len(v) >= bigValue {
			b.big.Store(true)
		}
	}
	if !b.inParts {
		return nil
	}
	fault.Point("commit.written")
	return b.unmark()
}

func change(txn *badger.Txn, key string, value []byte) error {
	if value == nil {
		return txn.Delete([]byte(key))
	}
	return txn.Set([]byte(key), value)
}

func (b *badgerKV) begin() *badger.Txn { return b.db.NewTransactionAt(b.number, true) }

func (b *badgerKV) end(txn *badger.Txn) error {
	b.number++
	return txn.CommitAt(b.number, nil)
}

// endPart commits a part after which another one follows.
func (b *badgerKV) endPart(txn *badger.Txn) error {
	if err := b.mark(); err != nil {
		return err
	}
	err := b.end(txn)
	fault.Point("commit.between")
	return err
}

// mark says that a commit in parts is under way, before its first part.
func (b *badgerKV) mark() error {
	if b.inParts {
		return nil
	}
	if err := b.alone(partsMark, []byte{}); err != nil {
		return err
	}
	b.inParts = true
	err := b.Sync()
	fault.Point("commit.marked")
	return err
}

// unmark says that all parts are there.
func (b *badgerKV) unmark() error {
	if err := b.Sync(); err != nil {
		return err
	}
	b.inParts = false
	return b.alone(partsMark, nil)
}

// alone commits a row by itself.
func (b *badgerKV) alone(key, value []byte) error {
	txn := b.begin()
	defer txn.Discard()
	if err := change(txn, string(key), value); err != nil {
		return err
	}
	return b.end(txn)
}

// takeBack undoes a commit of which a crash left some parts. To be killed meanwhile does no harm: the mark stays until all
// is as it was.
func (b *badgerKV) takeBack() error {
	now := b.db.NewTransactionAt(b.number, false)
	defer now.Discard()
	mark, err := now.Get(partsMark)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return nil
	}
	if err != nil {
		return readError(err)
	}
	before := b.db.NewTransactionAt(mark.Version(), false)
	defer before.Discard()
	o := badger.DefaultIteratorOptions
	o.AllVersions = true // deleted rows, too
	o.SinceTs = mark.Version()
	o.PrefetchValues = false
	it := now.NewIterator(o)
	defer it.Close()
	r := newRows()
	for it.Rewind(); it.Valid(); it.Next() {
		key := it.Item().KeyCopy(nil)
		item, err := before.Get(key)
		if errors.Is(err, badger.ErrKeyNotFound) {
			r.delete(key)
			continue
		}
		if err != nil {
			return readError(err)
		}
		value, err := item.ValueCopy(nil)
		if err != nil {
			return readError(err)
		}
		r.set(key, value)
	}
	fault.Point("commit.take-back")
	b.inParts = true
	if err := b.write(r); err != nil {
		return fmt.Errorf("take back %d rows: %w", len(r.m), err)
	}
	return nil
}

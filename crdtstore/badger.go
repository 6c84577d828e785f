package crdtstore

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"github.com/dgraph-io/badger/v4/table"
	"github.com/dgraph-io/badger/v4/y"
)

// badgerKV keeps the rows in badger. Commits are not synced one by one: the store syncs once for a whole group.
type badgerKV struct {
	db      *badger.DB
	dir     string
	logs    logs
	big     atomic.Bool // a value went to the value log and may not be synced
	moments moments
	commits sync.Mutex
	number  uint64 // of the last transaction
	inParts bool   // a commit was begun that takes several
	failed  error  // of a commit: what is left of it must not come to be seen with a later one
}

// memtable is the size of badger's memtables, which decides most of what a busy agent needs: two of them, and for each
// table that is being built four times as much. A transaction may have 15 % of it.
const (
	memtable    = 8 << 20
	oldMemtable = 16 << 20 // of stores before November 2026
)

// bigValue is from what size on badger puts a value into its value log.
const bigValue = 1 << 20

// openBadger opens or makes the rows in dir. The settings are for a small agent: badger's own take up to 700 MB.
func openBadger(dir string, log *slog.Logger) (*badgerKV, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	old, err := tidyLogs(dir)
	if err != nil {
		return nil, err
	}
	if old { // it makes tables of them
		db, err := openDB(dir, oldMemtable, log)
		if err != nil {
			return nil, err
		}
		if err := db.Close(); err != nil {
			return nil, fmt.Errorf("open store %s: %w", dir, err)
		}
	}
	db, err := openDB(dir, memtable, log)
	if err != nil {
		return nil, err
	}
	b := &badgerKV{db: db, dir: dir, logs: logs{dir: dir, datasync: datasync, arrivals: watchArrivals(dir)}, number: db.MaxVersion()}
	if err := b.takeBack(); err != nil {
		return nil, errors.Join(fmt.Errorf("open store %s: %w", dir, err), b.Close())
	}
	b.moments.end(b.number)
	return b, nil
}

func openDB(dir string, memtable int64, log *slog.Logger) (*badger.DB, error) {
	db, err := badger.OpenManaged(badger.DefaultOptions(dir).
		WithSyncWrites(false). // one db.Sync a turn instead
		WithMemTableSize(memtable).
		WithNumMemtables(2).
		WithBlockCacheSize(16 << 20).
		WithIndexCacheSize(16 << 20).
		WithValueLogFileSize(64 << 20).
		WithValueThreshold(bigValue). // values stay in the LSM tree, so one log holds nearly every row
		WithNumCompactors(2).
		WithNumLevelZeroTables(16). // twice badger's rows a merge into the level below, which is most of what a large store costs
		WithNumLevelZeroTablesStall(30).
		WithCompression(options.Snappy). // salvage.go knows
		WithChecksumVerificationMode(options.OnBlockRead).
		WithDetectConflicts(false). // one writer
		WithMetricsEnabled(false).
		WithLogger(badgerLog{log}))
	if err == nil {
		return db, nil
	}
	if strings.Contains(err.Error(), "Cannot acquire directory lock") {
		err = ErrLocked
	}
	return nil, fmt.Errorf("open store %s: %w", dir, err)
}

// tidyLogs removes memtables' logs of no bytes. A kill between badger's truncate and unlink leaves them, and the next Open
// would fail on them (badger v4.9). It tells whether some log may be of a memtable that was larger than ours: badger
// would not find room for its rows. The log of one of ours has twice its size while it is written to.
func tidyLogs(dir string) (old bool, err error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.mem"))
	if err != nil {
		return false, err
	}
	for _, f := range files {
		fi, err := os.Stat(f)
		if err != nil {
			continue
		}
		if fi.Size() == 0 {
			if err := os.Remove(f); err != nil {
				return false, fmt.Errorf("open store: %w", err)
			}
			continue
		}
		old = old || fi.Size() != 2*memtable
	}
	return old, nil
}

func (b *badgerKV) View() view {
	at := b.moments.enter()
	return &badgerView{kv: b, at: at, txn: b.db.NewTransactionAt(at, false)}
}

func (b *badgerKV) Commit(r *rows) error {
	b.commits.Lock()
	defer b.commits.Unlock()
	if b.failed != nil {
		return b.failed
	}
	if err := b.write(r); err != nil {
		b.failed = fmt.Errorf("commit %d rows, %d bytes: %w", len(r.m), r.size, err)
		return b.failed
	}
	b.moments.end(b.number)
	return nil
}

func (b *badgerKV) Sync() error {
	err := b.logs.sync()
	if err == nil && b.big.Swap(false) {
		if err = b.db.Sync(); err != nil {
			b.big.Store(true)
		}
	}
	if err != nil {
		return fmt.Errorf("sync store: %w", err)
	}
	return nil
}

func (b *badgerKV) Verify() error {
	for _, t := range b.db.Tables() { // not the files that lie there: some are being written
		if err := verifyTable(table.NewFilename(t.ID, b.dir)); err != nil && !errors.Is(err, fs.ErrNotExist) { // compaction has removed it
			return err
		}
	}
	return nil
}

func (b *badgerKV) Close() error {
	b.logs.close()
	if err := b.db.Close(); err != nil {
		return fmt.Errorf("close store: %w", err)
	}
	return nil
}

// badgerView keeps the iterators it made: making one costs more than seeking with it.
type badgerView struct {
	kv       *badgerKV
	at       uint64
	txn      *badger.Txn
	up, down []*badger.Iterator // idle ones
}

func (v *badgerView) iterator(down bool) *badger.Iterator {
	idle := &v.up
	if down {
		idle = &v.down
	}
	if n := len(*idle); n > 0 {
		it := (*idle)[n-1]
		*idle = (*idle)[:n-1]
		return it
	}
	o := badger.DefaultIteratorOptions
	o.PrefetchValues = false // values lie beside their keys
	o.Reverse = down
	return v.txn.NewIterator(o)
}

func (v *badgerView) idle(it *badger.Iterator, down bool) {
	if down {
		v.down = append(v.down, it)
	} else {
		v.up = append(v.up, it)
	}
}

func (v *badgerView) Get(key []byte) ([]byte, bool, error) {
	item, err := v.txn.Get(key)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, readError(err)
	}
	value, err := item.ValueCopy(nil)
	if err != nil {
		return nil, false, readError(err)
	}
	return value, true, nil
}

func readError(err error) error {
	if errors.Is(err, y.ErrChecksumMismatch) {
		err = fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return fmt.Errorf("read store: %w", err)
}

func (v *badgerView) Scan(prefix, start []byte, down bool, fn func(key, value []byte) (bool, error)) error {
	it := v.iterator(down)
	defer v.idle(it, down)
	switch {
	case start == nil && down:
		start = append(bytes.Clone(prefix), bytes.Repeat([]byte{0xff}, 128)...)
	case start == nil:
		start = prefix
	}
	for it.Seek(start); it.ValidForPrefix(prefix); it.Next() {
		item, more := it.Item(), false
		err := item.Value(func(value []byte) (err error) {
			more, err = fn(item.Key(), value)
			return err
		})
		if err != nil {
			return err
		}
		if !more {
			return nil
		}
	}
	return nil
}

func (v *badgerView) Close() {
	for _, it := range append(v.up, v.down...) {
		it.Close()
	}
	v.txn.Discard()
	if oldest, grown := v.kv.moments.leave(v.at); grown {
		v.kv.db.SetDiscardTs(oldest)
	}
}

// badgerLog sends badger's own lines to slog, its chatter at debug level.
type badgerLog struct{ log *slog.Logger }

func (l badgerLog) Errorf(f string, a ...any)   { l.log.Error("badger", "text", line(f, a)) }
func (l badgerLog) Warningf(f string, a ...any) { l.log.Warn("badger", "text", line(f, a)) }
func (l badgerLog) Infof(f string, a ...any)    { l.log.Debug("badger", "text", line(f, a)) }
func (l badgerLog) Debugf(string, ...any)       {}

func line(f string, a []any) string { return strings.TrimSpace(fmt.Sprintf(f, a...)) }

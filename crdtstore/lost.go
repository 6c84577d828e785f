package crdtstore

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/table"
	"github.com/dgraph-io/badger/v4/y"
)

// badger removes every table that its MANIFEST does not name, and takes a MANIFEST that lost its end for a whole one. So
// the tables that are not named get a name that badger does not know, until the store is open and tells what they are: of a
// flush or a merge that a kill cut off it has all blocks, as no block is ever deleted; else it lost them.

// lostPrefix is what the file of such a table is named with. salvage reads it like any other.
const lostPrefix = "lost-"

// hideUnnamed renames the tables that are whole and not named. Those that a crash of an earlier start left renamed stay. A
// table that is not whole was being written when the agent was killed: badger may remove it.
func hideUnnamed(dir string, named []string) error {
	names := make(map[string]bool)
	for _, name := range named {
		names[name] = true
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil {
		return err
	}
	for _, f := range files {
		if names[f] || strings.HasPrefix(filepath.Base(f), lostPrefix) {
			continue
		}
		hidden := filepath.Join(dir, lostPrefix+filepath.Base(f))
		if _, err := os.Lstat(hidden); err == nil {
			continue // of the start that the crash cut off, which had all its rows in a log
		}
		err := verifyTable(f)
		if errors.Is(err, ErrCorrupt) {
			continue
		}
		if err == nil {
			err = os.Rename(f, hidden)
		}
		if err != nil {
			return fmt.Errorf("open store: %w", err)
		}
	}
	return nil
}

// judgeUnnamed removes the renamed tables, or fails with ErrCorrupt if the store lacks a block that is in one of them.
func judgeUnnamed(b *badgerKV) error {
	files, err := filepath.Glob(filepath.Join(b.dir, lostPrefix+"*.sst"))
	if err != nil || len(files) == 0 {
		return err
	}
	txn := b.db.NewTransactionAt(math.MaxUint64, false)
	defer txn.Discard()
	for _, f := range files {
		if err := hasBlocksOf(txn, f); err != nil {
			return err
		}
	}
	for _, f := range files {
		if err := os.Remove(f); err != nil {
			return fmt.Errorf("open store: %w", err)
		}
	}
	return nil
}

// hasBlocksOf fails with ErrCorrupt if a transaction does not see every block that is in a table.
func hasBlocksOf(txn *badger.Txn, file string) error {
	t, err := openTable(file)
	if err != nil {
		return fmt.Errorf("open store: table %s: %w", filepath.Base(file), err)
	}
	it := t.NewIterator(table.NOCACHE)
	defer it.Close() //nolint:errcheck // memory
	for it.Seek(y.KeyWithTs([]byte{'b'}, math.MaxUint64)); it.Valid(); it.Next() {
		key := y.ParseKey(it.Key())
		if key[0] != 'b' {
			break
		}
		has, err := hasRow(txn, key)
		if err != nil {
			return err
		}
		if !has {
			return fmt.Errorf("%w: the MANIFEST does not name table %s, which has a block that is nowhere else", ErrCorrupt, filepath.Base(file))
		}
	}
	return nil
}

// hasRow tells whether a row is there, or was and is deleted: a commit that was taken back (parts.go) deletes blocks.
func hasRow(txn *badger.Txn, key []byte) (bool, error) {
	if _, err := txn.Get(key); !errors.Is(err, badger.ErrKeyNotFound) {
		return err == nil, err
	}
	o := badger.DefaultIteratorOptions
	o.AllVersions = true
	o.PrefetchValues = false
	it := txn.NewKeyIterator(key, o)
	defer it.Close()
	it.Rewind()
	return it.Valid(), nil
}

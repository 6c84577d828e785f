package crdtstore

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"syncagent/crdtstore/fault"
)

// badger keeps deleted bytes in its files until it happens to rewrite them. After entries were dropped because the
// right to read them was withdrawn, the next start therefore writes all live rows into fresh files and removes the old
// ones. Row mx asks for it.

var scrubMark = []byte("mx")

// RequestScrub has the next start rewrite the store, so that nothing that was deleted is left in its files.
func (s *Store) RequestScrub() error {
	r := newRows()
	r.set(scrubMark, nil)
	if err := s.kv.Commit(r); err != nil {
		return err
	}
	return s.kv.Sync()
}

const (
	scrubNew = ".scrub-new" // rows written so far; worth nothing until renamed
	scrubOld = ".scrub-old" // the store before; worth nothing once the new one has its name
)

// openScrubbed opens the rows in dir, rewritten first if that was asked for. A crash at any moment leaves the old store
// or the new one, and finishScrub tells which.
func openScrubbed(dir string, log *slog.Logger) (*badgerKV, error) {
	if err := finishScrub(dir); err != nil {
		return nil, err
	}
	b, err := openRows(dir, log)
	if err != nil {
		return nil, err
	}
	v := b.View()
	_, asked, err := v.Get(scrubMark)
	if err == nil && asked {
		log.Info("store is rewritten, to leave no byte of what may no longer be read")
		fault.Point("scrub.asked")
		err = copyRows(v, dir+scrubNew, log)
	}
	v.Close()
	if err == nil && !asked {
		return b, nil
	}
	if err := errors.Join(err, b.Close()); err != nil {
		return nil, err
	}
	fault.Point("scrub.copied")
	if err := os.Rename(dir, dir+scrubOld); err != nil {
		return nil, fmt.Errorf("rewrite store: %w", err)
	}
	fault.Point("scrub.old-renamed")
	if err := finishScrub(dir); err != nil {
		return nil, err
	}
	return openRows(dir, log)
}

// finishScrub completes or takes back a rewrite that a crash cut off.
func finishScrub(dir string) error {
	exists := func(name string) bool {
		_, err := os.Stat(name)
		return !errors.Is(err, fs.ErrNotExist)
	}
	var err error
	if !exists(dir) && exists(dir+scrubOld) {
		// The new rows were complete and synced before the old ones lost their name.
		if err = os.Rename(dir+scrubNew, dir); err == nil {
			fault.Point("scrub.new-renamed")
			err = syncDir(filepath.Dir(dir))
		}
	}
	if err == nil {
		err = errors.Join(os.RemoveAll(dir+scrubNew), os.RemoveAll(dir+scrubOld))
	}
	if err != nil {
		return fmt.Errorf("rewrite store: %w", err)
	}
	return nil
}

// copyRows writes the live rows into a new store. The change feed stays behind, it may name paths: watches start over.
func copyRows(v view, dir string, log *slog.Logger) error {
	fresh, err := openBadger(dir, log)
	if err != nil {
		return err
	}
	r := newRows()
	err = v.Scan(nil, nil, false, func(k, value []byte) (bool, error) {
		if k[0] == 'f' || string(k) == string(scrubMark) {
			return true, nil
		}
		if string(k) == string(countersKey) {
			c, err := decodeCounters(value)
			if err != nil {
				return false, err
			}
			c.feedFirst, c.feedBytes = c.feed+1, 0
			value = c.encode()
		}
		r.set(k, append([]byte(nil), value...))
		if r.size < turnBytes {
			return true, nil
		}
		err := fresh.Commit(r)
		r = newRows()
		return true, err
	})
	if err == nil {
		err = fresh.Commit(r)
	}
	if err == nil {
		err = fresh.Sync()
	}
	return errors.Join(err, fresh.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

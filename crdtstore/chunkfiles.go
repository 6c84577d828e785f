package crdtstore

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"syncagent/crdtstore/record"
)

// chunkFiles is where the chunks of large values lie, beside the rows: badger would write each byte several times. It
// is a seam for tests; chunkDir is the real one. All methods are safe for concurrent use, for different chunks.
type chunkFiles interface {
	// Put stores a chunk; when it returns, the chunk survives a power cut.
	Put(id record.ID, chunk []byte) error
	// Get gives what is stored, unchecked; fs.ErrNotExist if nothing is.
	Get(id record.ID) ([]byte, error)
	Has(id record.ID) (bool, error)
	// Remove need not survive a power cut: what comes back is swept at the next start.
	Remove(id record.ID) error
	// Each calls fn for every chunk.
	Each(fn func(id record.ID) error) error
}

// chunkDir keeps each chunk in a file DIR/ab/abcd... of its own.
type chunkDir string

// newChunk begins the name of a file that is not complete yet.
const newChunk = ".new-"

func (d chunkDir) name(id record.ID) string {
	text := id.String()
	return filepath.Join(string(d), text[:2], text)
}

// Put implements chunkFiles.
func (d chunkDir) Put(id record.ID, chunk []byte) error {
	name := d.name(id)
	if err := d.put(filepath.Dir(name), name, chunk); err != nil {
		return fmt.Errorf("store chunk: %w", err)
	}
	return nil
}

func (d chunkDir) put(dir, name string, chunk []byte) error {
	f, err := os.CreateTemp(dir, newChunk)
	if errors.Is(err, fs.ErrNotExist) {
		if err = d.makeDir(dir); err == nil {
			f, err = os.CreateTemp(dir, newChunk)
		}
	}
	if err != nil {
		return err
	}
	_, err = f.Write(chunk)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncDir(dir)
}

// makeDir makes one of the directories of chunks, durably.
func (d chunkDir) makeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return errors.Join(syncDir(string(d)), syncDir(filepath.Dir(string(d))))
}

// Get implements chunkFiles.
func (d chunkDir) Get(id record.ID) ([]byte, error) { return os.ReadFile(d.name(id)) }

// Has implements chunkFiles.
func (d chunkDir) Has(id record.ID) (bool, error) {
	_, err := os.Stat(d.name(id))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Remove implements chunkFiles.
func (d chunkDir) Remove(id record.ID) error {
	if err := os.Remove(d.name(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove chunk: %w", err)
	}
	return nil
}

// Each implements chunkFiles. Files that a crash left incomplete are removed, so it must not run beside Put.
func (d chunkDir) Each(fn func(record.ID) error) error {
	dirs, err := os.ReadDir(string(d))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("list chunks: %w", err)
	}
	for _, sub := range dirs {
		files, err := os.ReadDir(filepath.Join(string(d), sub.Name()))
		if err != nil {
			return fmt.Errorf("list chunks: %w", err)
		}
		for _, f := range files {
			var id record.ID
			if strings.HasPrefix(f.Name(), newChunk) {
				err = os.Remove(filepath.Join(string(d), sub.Name(), f.Name()))
			} else if raw, bad := hex.DecodeString(f.Name()); bad == nil && len(raw) == len(id) {
				copy(id[:], raw)
				err = fn(id)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

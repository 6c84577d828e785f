package crdtstore

import (
	"bytes"
	"cmp"
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
	Put(ref chunkRef, chunk []byte) error
	// Get gives what is stored, unchecked; fs.ErrNotExist if nothing is.
	Get(ref chunkRef) ([]byte, error)
	Has(ref chunkRef) (bool, error)
	// Remove need not survive a power cut: what comes back is swept at the next start.
	Remove(ref chunkRef) error
	// Each calls fn for every chunk.
	Each(fn func(ref chunkRef) error) error
}

// chunkRef names a stored chunk. The versions of a path share chunks, two paths do not: else whoever knows a chunk's ID,
// or guesses its content, could name it in an entry of its own, and be given what it may not read.
type chunkRef struct {
	path record.Tag
	id   record.ID
}

func refsOf(path record.Tag, ids []record.ID) []chunkRef {
	refs := make([]chunkRef, len(ids))
	for i, id := range ids {
		refs[i] = chunkRef{path, id}
	}
	return refs
}

func compareRefs(a, b chunkRef) int {
	return cmp.Or(bytes.Compare(a.path[:], b.path[:]), bytes.Compare(a.id[:], b.id[:]))
}

// chunkDir keeps each chunk in a file DIR/ab/abcd...-0123... of its own, by chunk ID and path key.
type chunkDir string

// newChunk begins the name of a file that is not complete yet.
const newChunk = ".new-"

func (d chunkDir) name(ref chunkRef) string {
	text := ref.id.String() + "-" + hex.EncodeToString(ref.path[:])
	return filepath.Join(string(d), text[:2], text)
}

// parseChunkName undoes name.
func parseChunkName(text string) (ref chunkRef, ok bool) {
	id, path, _ := strings.Cut(text, "-")
	rawID, err := hex.DecodeString(id)
	rawPath, err2 := hex.DecodeString(path)
	if err != nil || err2 != nil || len(rawID) != len(ref.id) || len(rawPath) != len(ref.path) {
		return ref, false
	}
	copy(ref.id[:], rawID)
	copy(ref.path[:], rawPath)
	return ref, true
}

// Put implements chunkFiles.
func (d chunkDir) Put(ref chunkRef, chunk []byte) error {
	name := d.name(ref)
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
func (d chunkDir) Get(ref chunkRef) ([]byte, error) { return os.ReadFile(d.name(ref)) }

// Has implements chunkFiles.
func (d chunkDir) Has(ref chunkRef) (bool, error) {
	_, err := os.Stat(d.name(ref))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Remove implements chunkFiles.
func (d chunkDir) Remove(ref chunkRef) error {
	if err := os.Remove(d.name(ref)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove chunk: %w", err)
	}
	return nil
}

// Each implements chunkFiles. Files that a crash left incomplete are removed, so it must not run beside Put.
func (d chunkDir) Each(fn func(chunkRef) error) error {
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
			if strings.HasPrefix(f.Name(), newChunk) {
				err = os.Remove(filepath.Join(string(d), sub.Name(), f.Name()))
			} else if ref, ok := parseChunkName(f.Name()); ok {
				err = fn(ref)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

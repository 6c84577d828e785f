package crdtstore

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"syncagent/crdtstore/record"
)

// chunkFiles is where the chunks of large values lie, beside the rows: badger would write each byte several times. It
// is a seam for tests; chunkDir is the real one. All methods are safe for concurrent use, for different chunks.
type chunkFiles interface {
	// Put stores a chunk; when it returns, the chunk survives a power cut.
	Put(ref chunkRef, chunk []byte) error
	// Get gives what is stored, unchecked, in place of what is in buf if it has room; fs.ErrNotExist if nothing is.
	Get(ref chunkRef, buf []byte) ([]byte, error)
	// Has tells whether a chunk is stored, durably.
	Has(ref chunkRef) (bool, error)
	// SetAside keeps a damaged chunk out of the way, until it is put anew or removed.
	SetAside(ref chunkRef) error
	// Remove need not survive a power cut: what comes back is swept at the next start.
	Remove(ref chunkRef) error
	// Each calls fn for every chunk that is stored, and for those that were set aside: they are not whole.
	Each(fn func(ref chunkRef, whole bool) error) error
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

// chunkDir keeps each chunk in a file DIR/ab/abcd...-0123... of its own, by chunk ID and path key. Chunks that are put at
// the same time become durable together: the file system writes its journal for all of them at once.
type chunkDir struct {
	dir  string
	turn sync.Mutex // one group syncs its files

	mu    sync.Mutex
	next  *chunkGroup      // which a file may join
	fresh map[chunkRef]int // being put: not durable yet
}

func newChunkDir(dir string) *chunkDir { return &chunkDir{dir: dir, fresh: make(map[chunkRef]int)} }

// chunkGroup is new files that become durable together.
type chunkGroup struct {
	files []newFile
	done  chan struct{} // closed when err is known
	err   error
}

// newFile is an open file without its name.
type newFile struct {
	*os.File
	as string
}

const (
	newChunk     = ".new-"    // begins the name of a file that is not complete yet
	damagedChunk = ".damaged" // ends the name of one that is set aside
	chunkSyncers = 16         // files or directories of a group that are synced at the same time
)

func (d *chunkDir) name(ref chunkRef) string {
	text := ref.id.String() + "-" + hex.EncodeToString(ref.path[:])
	return filepath.Join(d.dir, text[:2], text)
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
func (d *chunkDir) Put(ref chunkRef, chunk []byte) error {
	d.note(ref, 1)
	defer d.note(ref, -1)
	f, err := d.write(d.name(ref), chunk)
	if err == nil {
		err = d.settle(f)
	}
	if err != nil {
		return fmt.Errorf("store chunk: %w", err)
	}
	return nil
}

func (d *chunkDir) note(ref chunkRef, n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fresh[ref] += n; d.fresh[ref] == 0 {
		delete(d.fresh, ref)
	}
}

func (d *chunkDir) write(name string, chunk []byte) (newFile, error) {
	dir := filepath.Dir(name)
	f, err := os.CreateTemp(dir, newChunk)
	if errors.Is(err, fs.ErrNotExist) {
		if err = d.makeDir(dir); err == nil {
			f, err = os.CreateTemp(dir, newChunk)
		}
	}
	if err != nil {
		return newFile{}, err
	}
	if _, err = f.Write(chunk); err != nil {
		return newFile{}, errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	return newFile{f, name}, nil
}

// settle returns when a file is durable under its name. The first one of a group does the work for all of it.
func (d *chunkDir) settle(f newFile) error {
	d.mu.Lock()
	g := d.next
	first := g == nil
	if first {
		g = &chunkGroup{done: make(chan struct{})}
		d.next = g
	}
	g.files = append(g.files, f)
	d.mu.Unlock()
	if first {
		g.err = d.settleAll(g)
		close(g.done)
	}
	<-g.done
	return g.err
}

func (d *chunkDir) settleAll(g *chunkGroup) error {
	d.turn.Lock()
	d.mu.Lock()
	d.next = nil
	d.mu.Unlock()
	err := g.place()
	d.turn.Unlock() // the next group syncs its files beside the directories of this one
	if err != nil {
		return err
	}
	dirs := make(map[string]struct{}, len(g.files))
	for _, f := range g.files {
		dirs[filepath.Dir(f.as)] = struct{}{}
	}
	syncers := errgroup.Group{}
	syncers.SetLimit(chunkSyncers)
	for dir := range dirs {
		syncers.Go(func() error { return syncDir(dir) })
	}
	return syncers.Wait()
}

// place gives the files their names, once all of them are synced.
func (g *chunkGroup) place() error {
	syncers := errgroup.Group{}
	syncers.SetLimit(chunkSyncers)
	for _, f := range g.files {
		syncers.Go(func() error { return errors.Join(f.Sync(), f.Close()) })
	}
	err := syncers.Wait()
	for _, f := range g.files {
		if err == nil {
			err = errors.Join(os.Rename(f.Name(), f.as), removeIfThere(f.as+damagedChunk))
		}
		if err != nil {
			_ = os.Remove(f.Name()) // the next start will find it
		}
	}
	return err
}

// makeDir makes one of the directories of chunks, durably.
func (d *chunkDir) makeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return errors.Join(syncDir(d.dir), syncDir(filepath.Dir(d.dir)))
}

// Get implements chunkFiles.
func (d *chunkDir) Get(ref chunkRef, buf []byte) ([]byte, error) {
	f, err := os.Open(d.name(ref))
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // read only
	// One byte more than a chunk has, to see the end, and that it is one.
	buf = slices.Grow(buf[:0], record.ChunkSize+1)[:record.ChunkSize+1]
	n, err := io.ReadFull(f, buf)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return buf[:n], err
}

// Has implements chunkFiles.
func (d *chunkDir) Has(ref chunkRef) (bool, error) {
	d.mu.Lock()
	fresh := d.fresh[ref] > 0
	d.mu.Unlock()
	if fresh {
		return false, nil
	}
	_, err := os.Stat(d.name(ref))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// SetAside implements chunkFiles.
func (d *chunkDir) SetAside(ref chunkRef) error {
	name := d.name(ref)
	if err := os.Rename(name, name+damagedChunk); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("set chunk aside: %w", err)
	}
	return nil
}

// Remove implements chunkFiles.
func (d *chunkDir) Remove(ref chunkRef) error {
	name := d.name(ref)
	if err := errors.Join(removeIfThere(name), removeIfThere(name+damagedChunk)); err != nil {
		return fmt.Errorf("remove chunk: %w", err)
	}
	return nil
}

func removeIfThere(name string) error {
	if err := os.Remove(name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Each implements chunkFiles. Files that a crash left incomplete are removed, so it must not run beside Put.
func (d *chunkDir) Each(fn func(ref chunkRef, whole bool) error) error {
	dirs, err := os.ReadDir(d.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("list chunks: %w", err)
	}
	for _, sub := range dirs {
		files, err := os.ReadDir(filepath.Join(d.dir, sub.Name()))
		if err != nil {
			return fmt.Errorf("list chunks: %w", err)
		}
		for _, f := range files {
			name, aside := strings.CutSuffix(f.Name(), damagedChunk)
			if strings.HasPrefix(name, newChunk) {
				err = os.Remove(filepath.Join(d.dir, sub.Name(), f.Name()))
			} else if ref, ok := parseChunkName(name); ok {
				err = fn(ref, !aside)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

package crdtstore

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"syncagent/crdtstore/fault"
	"syncagent/crdtstore/record"
)

// ErrBackup says that a file is no backup, or not a whole one.
var ErrBackup = errors.New("bad backup")

// ErrNotEmpty says that there is something where a backup was to be restored.
var ErrNotEmpty = errors.New("data directory is not empty")

// BackupReader reads a backup from the beginning to its end, once.
type BackupReader struct {
	Head     BackupHead
	Policies [][]byte // signed texts, which may be of anybody

	// Progress, if set, is told how many blocks were read.
	Progress func(blocks int64)

	r    *bufio.Reader
	sum  hash.Hash
	held frame // the first one after the policies
}

type frame struct {
	kind    byte
	payload []byte
}

// ReadBackup reads head and policies. The rest follows when the backup is restored or checked.
func ReadBackup(r io.Reader) (*BackupReader, error) {
	b := &BackupReader{r: bufio.NewReaderSize(r, 256<<10), sum: sha256.New()}
	magic := make([]byte, len(backupMagic))
	if err := b.read(magic); err != nil {
		return nil, err
	}
	if string(magic) != backupMagic {
		return nil, fmt.Errorf("%w: it does not begin as one that this program knows", ErrBackup)
	}
	f, err := b.next()
	if err != nil {
		return nil, err
	}
	if f.kind != frameHead {
		return nil, fmt.Errorf("%w: no head", ErrBackup)
	}
	if err := json.Unmarshal(f.payload, &b.Head); err != nil {
		return nil, fmt.Errorf("%w: head: %w", ErrBackup, err)
	}
	for {
		if f, err = b.next(); err != nil {
			return nil, err
		}
		if f.kind != framePolicy {
			b.held = f
			return b, nil
		}
		b.Policies = append(b.Policies, f.payload)
	}
}

func (b *BackupReader) read(p []byte) error {
	_, err := io.ReadFull(b.r, p)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it is cut off", ErrBackup)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrBackup, err)
	}
	b.sum.Write(p)
	return nil
}

// next reads a frame. The end frame is checked, and nothing may follow it.
func (b *BackupReader) next() (frame, error) {
	if f := b.held; f.kind != 0 {
		b.held = frame{}
		return f, nil
	}
	sum := b.sum.Sum(nil)
	var head [5]byte
	if err := b.read(head[:]); err != nil {
		return frame{}, err
	}
	size := be.Uint32(head[1:])
	if size > maxBackupFrame {
		return frame{}, fmt.Errorf("%w: a frame of %d bytes", ErrBackup, size)
	}
	f := frame{head[0], make([]byte, size)}
	if err := b.read(f.payload); err != nil {
		return frame{}, err
	}
	switch {
	case f.kind == frameEnd && !bytes.Equal(f.payload, sum):
		return frame{}, fmt.Errorf("%w: it was changed since it was made", ErrBackup)
	case f.kind == frameEnd:
		if _, err := b.r.ReadByte(); !errors.Is(err, io.EOF) {
			return frame{}, fmt.Errorf("%w: something follows its end", ErrBackup)
		}
	case f.kind < frameHead || f.kind > frameChunk:
		return frame{}, fmt.Errorf("%w: a frame of unknown type %d, of a later version perhaps", ErrBackup, f.kind)
	}
	return f, nil
}

// parcels calls fn for every block, with as many of its entries as may travel with it; the others come alone. Chunk is
// called for every chunk, before fn for what needs it.
func (b *BackupReader) parcels(ctx context.Context, fn func(record.Parcel) error, chunk func([]byte) error) error {
	var p record.Parcel
	size, blocks := 0, int64(0)
	flush := func() error {
		full := p
		p, size = record.Parcel{}, 0
		if full.Block == nil && full.Entries == nil {
			return ctx.Err()
		}
		return errors.Join(ctx.Err(), fn(full))
	}
	for {
		f, err := b.next()
		if err != nil {
			return err
		}
		switch f.kind {
		case frameEnd:
			return flush()
		case frameBlock:
			if err := flush(); err != nil {
				return err
			}
			p.Block = f.payload
			if blocks++; b.Progress != nil {
				b.Progress(blocks)
			}
		case frameEntry:
			if size += len(f.payload); size > parcelEntries {
				if err := flush(); err != nil {
					return err
				}
			}
			p.Entries = append(p.Entries, f.payload)
		case frameChunk:
			if err := chunk(f.payload); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%w: a frame of type %d among the blocks", ErrBackup, f.kind)
		}
	}
}

// Check reads to the end and verifies every block and entry, as Restore would.
func (b *BackupReader) Check(ctx context.Context) (blocks, entries int64, err error) {
	network, err := record.ParseNetworkID(b.Head.Network)
	if err != nil {
		return 0, 0, fmt.Errorf("%w: head: %w", ErrBackup, err)
	}
	err = b.parcels(ctx, func(p record.Parcel) error {
		if p.Block != nil {
			block, err := record.ParseBlock(p.Block)
			if err == nil {
				err = block.Verify(network)
			}
			if err != nil {
				return fmt.Errorf("%w: %w", ErrBackup, err)
			}
			blocks++
		}
		for _, e := range p.Entries {
			if _, _, err := entryIDs(e); err != nil {
				return fmt.Errorf("%w: %w", ErrBackup, err)
			}
			entries++
		}
		return nil
	}, func([]byte) error { return nil }) // a chunk is what its hash says: the file's hash covers it
	return blocks, entries, err
}

// Restored says what a restore brought.
type Restored struct {
	Blocks int64
	Stats  Stats // of the new store
}

// restoring is where below the data directory a store is built until it is whole.
const restoring = "restoring"

// Restore makes the store in o.Dir of a backup, with a new incarnation, by the same turns that take blocks from peers:
// signatures and hashes are checked, and what this identity may not read is left out. Further policies, signed as any,
// come on top of those of the backup. The directory must be empty. Whatever fails or is killed leaves it so; the next
// restore begins anew.
func Restore(ctx context.Context, o Options, b *BackupReader, policies ...[]byte) (Restored, error) {
	if err := checkEmpty(o.Dir); err != nil {
		return Restored{}, err
	}
	lock, err := lockDir(o.Dir)
	if err != nil {
		return Restored{}, err
	}
	defer lock.Close() //nolint:errcheck // read only
	if b.Head.Network != o.Network.String() {
		return Restored{}, fmt.Errorf("%w: the backup is of network %s, the configuration of %s", ErrNetwork, b.Head.Network, o.Network)
	}
	dir := o.Dir
	o.Dir = filepath.Join(dir, restoring)
	if err := os.RemoveAll(o.Dir); err != nil {
		return Restored{}, err
	}
	defer os.RemoveAll(o.Dir) //nolint:errcheck // the next restore removes it
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return Restored{}, err
	}
	s, err := Open(o)
	if err != nil {
		return Restored{}, err
	}
	out, err := s.restore(ctx, b, policies)
	if err := errors.Join(err, s.Close()); err != nil {
		return Restored{}, err
	}
	if err := ownAs(dir, o.Dir); err != nil {
		return Restored{}, err
	}
	fault.Point("restore.built")
	if err := moveChunks(o.Dir, dir); err != nil {
		return Restored{}, err
	}
	fault.Point("restore.chunks-moved")
	if err := os.Rename(filepath.Join(o.Dir, "store"), filepath.Join(dir, "store")); err != nil {
		return Restored{}, err
	}
	fault.Point("restore.in-place")
	return out, syncDir(dir)
}

// ownAs gives a tree the owner of a directory: root restores, another user runs the agent.
func ownAs(dir, tree string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || os.Geteuid() != 0 {
		return nil
	}
	return filepath.WalkDir(tree, func(name string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(name, int(owner.Uid), int(owner.Gid))) //nolint:gosec // nobody else can write there yet
	})
}

// moveChunks brings the chunks to their place. Without the store, which follows, they mean nothing.
func moveChunks(from, to string) error {
	if err := os.RemoveAll(filepath.Join(to, "chunks")); err != nil {
		return err
	}
	err := os.Rename(filepath.Join(from, "chunks"), filepath.Join(to, "chunks"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // no large values
	}
	return err
}

// checkEmpty wants nothing in the data directory but what a restore that was cut off left, or chunks without a store.
func checkEmpty(dir string) error {
	found, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, f := range found {
		if f.Name() != restoring && f.Name() != "chunks" && f.Name() != "lost+found" {
			return fmt.Errorf("%w: %s holds %s", ErrNotEmpty, dir, f.Name())
		}
	}
	return nil
}

const restoreBatch = 4 << 20 // bytes of parcels that are given to the turns at one go

// restore takes the place of Run.
func (s *Store) restore(ctx context.Context, b *BackupReader, policies [][]byte) (out Restored, err error) {
	if err := s.index.fill(s.kv.View(), nil); err != nil { // nothing is there yet: every path is new
		return out, err
	}
	if err := s.restorePolicies(append(policies, b.Policies...)); err != nil {
		return out, err
	}
	s.carried = make(map[chunkRef]bool)
	var batch []record.Parcel
	size := 0
	flush := func() error {
		n, err := s.restoreParcels(batch)
		out.Blocks += int64(n)
		batch, size = nil, 0
		fault.Point("restore.batch")
		return err
	}
	err = b.parcels(ctx, func(p record.Parcel) error {
		batch = append(batch, p)
		size += len(p.Block)
		for _, e := range p.Entries {
			size += len(e)
		}
		if size < restoreBatch {
			return nil
		}
		return flush()
	}, s.restoreChunk)
	if err == nil {
		err = flush()
	}
	if err == nil {
		err = s.kv.Sync()
	}
	if err == nil {
		err = s.loadChunks() // no chunk stays of what this identity may not read
	}
	out.Stats = s.Stats()
	return out, err
}

// restoreChunk stores a chunk for the entries that follow.
func (s *Store) restoreChunk(frame []byte) error {
	var ref chunkRef
	if len(frame) <= len(ref.path) {
		return fmt.Errorf("%w: a chunk of %d bytes", ErrBackup, len(frame))
	}
	data := frame[copy(ref.path[:], frame):]
	ref.id = record.ChunkID(data)
	s.carried[ref] = true
	return s.chunks.files.Put(ref, data)
}

func (s *Store) restorePolicies(texts [][]byte) error {
	for _, text := range texts {
		signed, err := s.checkPolicy(text)
		if err != nil {
			continue // of an admin that is no longer pinned here, perhaps
		}
		s.queue.add(&policyRequest{signed, make(chan error, 1)})
	}
	if err := s.catchUp(); err != nil {
		return err
	}
	if s.Policy() == nil {
		return fmt.Errorf("%w: none of the policies in the backup is signed by an admin that the configuration pins, "+
			"and not older than the join token", ErrPolicy)
	}
	return nil
}

// restoreParcels gives the number of new blocks.
func (s *Store) restoreParcels(batch []record.Parcel) (int, error) {
	checked, _, invalid, err := s.check(s.self, batch)
	if err != nil {
		return 0, err
	}
	if invalid != nil {
		return 0, fmt.Errorf("%w: %w", ErrBackup, invalid)
	}
	r := &ingestRequest{from: s.self, parcels: checked, done: make(chan ingestResult, 1)}
	s.queue.add(r)
	if err := s.catchUp(); err != nil {
		return 0, err
	}
	got := <-r.done
	switch {
	case got.err != nil:
		return 0, got.err
	case got.Invalid != nil:
		return 0, fmt.Errorf("%w: %w", ErrBackup, got.Invalid)
	case len(got.Missing) > 0:
		return 0, fmt.Errorf("%w: block %s, which others need, is not in it", ErrBackup, got.Missing[0])
	}
	return got.New, nil
}

// catchUp makes turns until nothing is left to do. The caller owns the store.
func (s *Store) catchUp() error {
	for s.busy() {
		if err := s.step(); err != nil {
			return err
		}
	}
	return s.conclude()
}

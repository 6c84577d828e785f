package crdtstore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"time"

	"syncagent/acl"
	"syncagent/crdtstore/record"
)

// A backup is one state of a store as a stream of frames, all of which prove themselves: signed policies, signed blocks
// in ascending height, each followed by the entries that it names and that are held, the chunks of large values before
// the first of these that needs them, then a hash over everything. So
// whoever holds the file can leave something out, but not put anything in.
//
//	backup = "syncagent backup 1\n" frame*      frame = type(u8) length(u32) payload
//	head: JSON, for people    policy: signed text    block    entry or stub, of the block before it    chunk: path key, bytes    end: SHA-256
//
// The hash covers all before the end frame.

const (
	backupMagic    = "syncagent backup 1\n"
	maxBackupFrame = 4 << 20
)

// The types of frames, in the order in which they come.
const (
	frameHead   = 1
	framePolicy = 2
	frameBlock  = 3
	frameEntry  = 4
	frameChunk  = 5
	frameEnd    = 255
)

// BackupHead says what a backup is. It is for people: nothing that it says is relied on.
type BackupHead struct {
	Network    string    `json:"network"`
	PeerID     string    `json:"peer_id"` // of the agent that made it
	Name       string    `json:"name"`
	Token      string    `json:"token,omitempty"` // by which a new host can join the network; it may have expired
	Time       time.Time `json:"time"`
	Blocks     int64     `json:"blocks"`
	Entries    int64     `json:"entries"`
	Missing    int       `json:"missing,omitempty"` // entries that the agent itself lacked
	ViewDigest string    `json:"view_digest"`
}

// Backup writes the state of this moment to w while the store goes on. The caller fills in name and token of the head.
// Entries that reader may not read are left out; nothing is written for one that is no member, because even blocks are
// for members only. Progress, which may be nil, is told how many blocks are written.
func (s *Store) Backup(ctx context.Context, reader record.PublicKey, head BackupHead, w io.Writer, progress func(done, total int64)) (BackupHead, error) {
	n, err := s.Snapshot()
	if err != nil {
		return head, err
	}
	defer n.Close()
	switch {
	case n.policy == nil:
		return head, ErrNoPolicy
	case !n.policy.Member(reader):
		return head, fmt.Errorf("back up as %s, which may not replicate: %w", reader, ErrDenied)
	}
	// A block of ours must not leave the host before it is synced: after a power cut its number would be used again.
	if err := s.kv.Sync(); err != nil {
		return head, err
	}
	head.Network, head.PeerID, head.Time = s.network.String(), s.self.String(), s.AgentTime().UTC()
	head.Blocks, head.Entries, head.Missing = int64(n.counters.blocks), int64(n.counters.entries), s.wants.len()
	head.ViewDigest = hex.EncodeToString(n.counters.viewDigest[:])
	b := &backup{s: s, view: n.view, policy: n.policy, reader: reader, w: w, sum: sha256.New(), chunks: map[chunkRef]bool{}}
	b.write([]byte(backupMagic))
	text, err := json.Marshal(head)
	if err != nil {
		return head, err
	}
	b.frame(frameHead, text)
	if err := b.policies(); err != nil {
		return head, err
	}
	if err := b.blocks(ctx, head.Blocks, progress); err != nil {
		return head, err
	}
	b.frame(frameEnd, b.sum.Sum(nil))
	return head, b.err
}

// backup is one that is being written. The first error of w stays.
type backup struct {
	s      *Store
	view   view
	policy *acl.Policy
	reader record.PublicKey
	w      io.Writer
	sum    hash.Hash
	chunks map[chunkRef]bool // that were written
	err    error
}

func (b *backup) write(data []byte) {
	if b.err != nil {
		return
	}
	b.sum.Write(data)
	_, b.err = b.w.Write(data)
}

func (b *backup) frame(kind byte, payload []byte) {
	b.write(be.AppendUint32([]byte{kind}, uint32(len(payload))))
	b.write(payload)
}

func (b *backup) policies() error {
	return b.view.Scan([]byte{'p'}, nil, false, func(_, value []byte) (bool, error) {
		b.frame(framePolicy, value)
		return true, b.err
	})
}

// blocks writes all blocks that the view holds, whether they were told to peers already or not.
func (b *backup) blocks(ctx context.Context, total int64, progress func(done, total int64)) error {
	ends, err := chainEnds(b.view)
	if err != nil {
		return err
	}
	h, err := newChainHeap(b.view, ends, nil)
	if err != nil {
		return err
	}
	for done := int64(1); len(h) > 0; done++ { // the genesis block, which everybody makes, counts as done
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := b.block(h[0].row.digest); err != nil {
			return err
		}
		if err := h.next(); err != nil {
			return err
		}
		if progress != nil {
			progress(done, total)
		}
	}
	return nil
}

func (b *backup) block(d record.Digest) error {
	raw, block, err := b.s.storedBlock(b.view, d)
	if err != nil {
		return err
	}
	b.frame(frameBlock, raw)
	for _, w := range block.Writes {
		err := b.s.heldEntries(b.view, b.policy, w, b.reader, func(data []byte) bool {
			b.chunksOf(data)
			b.frame(frameEntry, data)
			return true
		})
		if err != nil {
			return err
		}
	}
	return b.err
}

// chunksOf writes the chunks of a large value that were not written yet. What this agent lacks itself, or finds damaged,
// is left out: a host that is made of the backup asks the others for it.
func (b *backup) chunksOf(entry []byte) {
	e, err := record.ParseEntry(entry)
	if err != nil {
		return // a stub
	}
	l, _ := e.Chunks()
	for _, ref := range refsOf(b.s.network.PathKey(e.Path), l.Chunks) {
		if b.chunks[ref] {
			continue
		}
		if data, err := b.s.chunks.get(ref, nil); err == nil {
			b.frame(frameChunk, append(ref.path[:], data...))
			b.chunks[ref] = true
		}
	}
}

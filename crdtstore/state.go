package crdtstore

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"

	"syncagent/crdtstore/record"
)

// storeVersion is the version of the row layouts. A store of an earlier one is brought to it (upgrade.go), one of a later
// one refused with words.
const storeVersion = 2

// identityRow is row mi: written once, when the store is made, and when it takes a new incarnation.
type identityRow struct {
	version     uint32
	network     record.NetworkID
	key         record.PublicKey
	incarnation uint64
}

var (
	identityKey = []byte("mi")
	countersKey = []byte("ms")
)

func (r identityRow) encode() []byte {
	b := be.AppendUint32(nil, r.version)
	b = append(b, r.network[:]...)
	b = append(b, r.key[:]...)
	return be.AppendUint64(b, r.incarnation)
}

func decodeIdentity(b []byte) (r identityRow, err error) {
	if len(b) < 4 {
		return r, fmt.Errorf("%w: identity row", ErrCorrupt)
	}
	if r.version = be.Uint32(b); r.version < 1 || r.version > storeVersion {
		return r, fmt.Errorf("%w: it has version %d, this program knows versions 1 to %d", ErrVersion, r.version, storeVersion)
	}
	if len(b) != 4+32+32+8 {
		return r, fmt.Errorf("%w: identity row", ErrCorrupt)
	}
	copy(r.network[:], b[4:])
	copy(r.key[:], b[36:])
	r.incarnation = be.Uint64(b[68:])
	return r, nil
}

// counters is row ms: small facts that change with every turn, in the same commit as what they count.
type counters struct {
	agentTime  int64 // Unix milliseconds
	blocks     uint64
	entries    uint64   // visible
	withheld   uint64   // slots of others that this agent may not read
	viewDigest [32]byte // sum modulo 2^256 over the visible entries
	feed       uint64   // last number of the change feed
	feedFirst  uint64   // lowest number that is kept
	feedBytes  uint64   // size of the rows that are kept
	voided     int64    // when the policy in force came into force, Unix milliseconds
	generation uint64   // counts policy switches
	judged     uint64   // generation by which all rows are right; lower while they are being put right
	place      record.Tag
}

func (c *counters) encode() []byte {
	b := make([]byte, 0, countersSize)
	b = be.AppendUint64(b, uint64(c.agentTime))
	b = be.AppendUint64(b, c.blocks)
	b = be.AppendUint64(b, c.entries)
	b = be.AppendUint64(b, c.withheld)
	b = append(b, c.viewDigest[:]...)
	b = be.AppendUint64(b, c.feed)
	b = be.AppendUint64(b, c.feedFirst)
	b = be.AppendUint64(b, c.feedBytes)
	b = be.AppendUint64(b, uint64(c.voided))
	b = be.AppendUint64(b, c.generation)
	b = be.AppendUint64(b, c.judged)
	return append(b, c.place[:]...)
}

const countersSize = 8*10 + 32 + 16

func decodeCounters(b []byte) (c counters, err error) {
	if len(b) != countersSize {
		return c, fmt.Errorf("%w: counters row", ErrCorrupt)
	}
	c.agentTime = int64(be.Uint64(b))
	c.blocks = be.Uint64(b[8:])
	c.entries = be.Uint64(b[16:])
	c.withheld = be.Uint64(b[24:])
	copy(c.viewDigest[:], b[32:])
	c.feed = be.Uint64(b[64:])
	c.feedFirst = be.Uint64(b[72:])
	c.feedBytes = be.Uint64(b[80:])
	c.voided = int64(be.Uint64(b[88:]))
	c.generation = be.Uint64(b[96:])
	c.judged = be.Uint64(b[104:])
	copy(c.place[:], b[112:])
	return c, nil
}

// digestTerm is what one visible entry adds to the view digest.
func digestTerm(path string, v record.Version, entry record.ID) [32]byte {
	b := make([]byte, 0, 2+len(path)+record.VersionSize+len(entry))
	b = be.AppendUint16(b, uint16(len(path)))
	b = append(b, path...)
	b = v.Append(b)
	return sha256.Sum256(append(b, entry[:]...))
}

// addDigest and subDigest are the sum and difference of two 256 bit big-endian numbers.
func addDigest(a, b [32]byte) (sum [32]byte) {
	carry := uint16(0)
	for i := 31; i >= 0; i-- {
		carry += uint16(a[i]) + uint16(b[i])
		sum[i] = byte(carry)
		carry >>= 8
	}
	return sum
}

func subDigest(a, b [32]byte) (diff [32]byte) {
	borrow := int16(0)
	for i := 31; i >= 0; i-- {
		d := int16(a[i]) - int16(b[i]) - borrow
		borrow = 0
		if d < 0 {
			d += 256
			borrow = 1
		}
		diff[i] = byte(d)
	}
	return diff
}

// chain is the end of one chain of blocks.
type chain struct {
	seq  uint64
	last record.Digest // at a fork the lowest digest of that number, the same everywhere
}

// dagState is what is known of the DAG as a whole: heads and chain ends. It is never changed after it was published.
type dagState struct {
	heads  map[record.Digest]head
	chains map[chainID]chain
	digest [32]byte
}

func newDAGState() *dagState {
	return &dagState{heads: make(map[record.Digest]head), chains: make(map[chainID]chain)}
}

func (d *dagState) clone() *dagState {
	return &dagState{heads: maps.Clone(d.heads), chains: maps.Clone(d.chains)}
}

func (d *dagState) sortedHeads() []record.Digest {
	heads := slices.Collect(maps.Keys(d.heads))
	slices.SortFunc(heads, func(a, b record.Digest) int { return bytes.Compare(a[:], b[:]) })
	return heads
}

// seal computes the block digest: SHA-256 over the heads' digests in ascending order.
func (d *dagState) seal() { d.digest = record.LinksDigest(d.sortedHeads()) }

// ahead tells whether a block comes after the end of its chain, so that it is not held: a chain is taken in sequence.
func (d *dagState) ahead(b *record.Block) bool {
	return b.Seq > d.chains[chainID{b.Origin, b.Incarnation}].seq
}

// add notes a new block.
func (d *dagState) add(b *record.Block) {
	for _, l := range b.Links {
		delete(d.heads, l)
	}
	d.heads[b.Digest] = headOf(b)
	if b.Bundle == nil {
		return
	}
	id := chainID{b.Origin, b.Incarnation}
	c, ok := d.chains[id]
	if !ok || b.Seq > c.seq || b.Seq == c.seq && bytes.Compare(b.Digest[:], c.last[:]) < 0 {
		d.chains[id] = chain{b.Seq, b.Digest}
	}
}

package record

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
)

// Limits of a block, protocol constants.
const (
	MaxBlock = 512 << 10 // bytes
	MaxLinks = 1024
)

// elementKey is the key of the one element that every delta holds.
const elementKey = "/b"

// Digest is the SHA-256 of a block's bytes, the changing part of its CID.
type Digest [32]byte

// DigestOf gives the digest of a block's bytes.
func DigestOf(block []byte) Digest { return sha256.Sum256(block) }

// cidPrefix is CIDv1, dag-pb, sha2-256, 32 bytes: what stands before the digest in every CID of ours.
var cidPrefix = []byte{1, 0x70, 0x12, 0x20}

// CID gives the binary CID.
func (d Digest) CID() []byte { return append(slices.Clone(cidPrefix), d[:]...) }

// String gives the CID in its usual text form, "bafybei...".
func (d Digest) String() string { return "b" + base32Lower.EncodeToString(d.CID()) }

// DigestFromCID reads a binary CID of the one form that blocks have.
func DigestFromCID(c []byte) (d Digest, err error) {
	if len(c) != len(cidPrefix)+len(d) || !bytes.HasPrefix(c, cidPrefix) {
		return d, formatError("not a CIDv1 of dag-pb with sha2-256")
	}
	copy(d[:], c[len(cidPrefix):])
	return d, nil
}

// Block is one node of the Merkle-DAG: a go-ds-crdt delta with exactly one element, whose value is a bundle.
type Block struct {
	Digest   Digest
	Raw      []byte
	Links    []Digest // strictly ascending; none only for the genesis block
	Priority uint64   // height: 1 for the genesis block
	*Bundle           // nil for the genesis block
}

// EncodeBlock gives the bytes that go-ds-crdt makes of a delta with this one element: dag-pb with the links first.
// Links must be ascending.
func EncodeBlock(links []Digest, priority uint64, value []byte) []byte {
	element := appendField(nil, 1, []byte(elementKey))
	element = appendField(element, 3, value)
	delta := appendField(make([]byte, 0, len(element)+16), 1, element)
	delta = binary.AppendUvarint(append(delta, 3<<3), priority)

	b := make([]byte, 0, len(links)*44+len(delta)+16)
	for _, l := range links {
		link := appendField(nil, 1, l.CID())
		link = append(link, 2<<3|2, 0, 3<<3, 0) // empty name, size 0: boxo writes both
		b = appendField(b, 2, link)
	}
	return appendField(b, 1, delta)
}

// appendField adds a length-delimited protobuf field.
func appendField(b []byte, num byte, value []byte) []byte {
	b = binary.AppendUvarint(append(b, num<<3|2), uint64(len(value)))
	return append(b, value...)
}

// ParseBlock reads a block strictly: only the bytes that EncodeBlock gives are accepted. It checks neither signatures
// nor what the block names; see Block.Verify and Block.CheckLinks. The genesis block is refused: every agent derives
// its own.
func ParseBlock(raw []byte) (*Block, error) {
	b, value, err := parseNode(raw)
	if err != nil {
		return nil, err
	}
	if b.Bundle, err = ParseBundle(value); err != nil {
		return nil, err
	}
	if len(b.Links) == 0 {
		return nil, formatError("block without links")
	}
	return b, nil
}

// ParseGenesisBlock reads the genesis block of a network.
func ParseGenesisBlock(raw []byte, network NetworkID, epoch uint32) (*Block, error) {
	if !bytes.Equal(raw, GenesisBlock(network, epoch)) {
		return nil, formatError("not the genesis block of network %s", network)
	}
	b, _, err := parseNode(raw)
	return b, err
}

func parseNode(raw []byte) (*Block, []byte, error) {
	if len(raw) > MaxBlock {
		return nil, nil, formatError("block of %d bytes, the limit is %d", len(raw), MaxBlock)
	}
	b := &Block{Digest: DigestOf(raw), Raw: raw}
	d := decoder{b: raw}
	for d.err == nil && len(d.b) > 0 && d.b[0] == 2<<3|2 {
		l := decoder{b: d.field(2)}
		link, err := DigestFromCID(l.field(1))
		if l.err == nil && err != nil {
			return nil, nil, err
		}
		if !bytes.Equal(l.b, []byte{2<<3 | 2, 0, 3 << 3, 0}) {
			l.fail("link with a name or size")
		}
		if l.err != nil {
			return nil, nil, l.err
		}
		if n := len(b.Links); n > 0 && bytes.Compare(b.Links[n-1][:], link[:]) >= 0 {
			d.fail("links are not ascending")
		}
		if b.Links = append(b.Links, link); len(b.Links) > MaxLinks {
			d.fail("more than %d links", MaxLinks)
		}
	}
	delta := decoder{b: d.field(1)}
	if err := d.end(); err != nil {
		return nil, nil, err
	}
	element := decoder{b: delta.field(1)}
	if delta.u8("priority tag") != 3<<3 {
		delta.fail("delta is not one element and a priority")
	}
	if b.Priority = delta.uvarint(1<<63, "priority"); b.Priority == 0 {
		delta.fail("priority 0")
	}
	if err := delta.end(); err != nil {
		return nil, nil, err
	}
	if key := element.field(1); element.err == nil && string(key) != elementKey {
		element.fail("element key %q", key)
	}
	value := element.field(3)
	if element.err == nil && len(value) == 0 {
		element.fail("empty element")
	}
	return b, value, element.end()
}

// field reads a length-delimited protobuf field with this number.
func (d *decoder) field(num byte) []byte {
	if tag := d.u8("field"); d.err == nil && tag != num<<3|2 {
		d.fail("field tag %#x, want field %d", tag, num)
	}
	return d.bytes(int(d.uvarint(MaxBlock, "field length")), "field")
}

// Verify checks all signatures of the block. It is the costly part of the block rule (about 50 us a signature) and
// depends on nothing but the bytes.
func (b *Block) Verify(network NetworkID) error { return b.Bundle.Verify(network, b.Links) }

// Header is what the block rule needs to know of a block that another one names.
type Header struct {
	Priority    uint64
	Origin      PublicKey
	Epoch       uint32
	Incarnation uint64
	Seq         uint64 // 0 for the genesis block
}

// Header gives the block's own header.
func (b *Block) Header() Header {
	h := Header{Priority: b.Priority}
	if b.Bundle != nil {
		h.Origin, h.Epoch, h.Incarnation, h.Seq = b.Origin, b.Epoch, b.Incarnation, b.Seq
	}
	return h
}

// MissingError lists blocks that a block names and that are not known here. The block may be valid; ask for these.
type MissingError struct{ Digests []Digest }

func (e *MissingError) Error() string {
	return fmt.Sprintf("%d blocks that it names are not known here", len(e.Digests))
}

// CheckLinks is the second half of the block rule: all links and the previous block are known, the priority follows
// from the links, the chain of the origin goes on. Known gives the header of a block that is held. It returns a
// *MissingError if only blocks are missing, and an error that wraps ErrFormat if the block can never become valid.
//
// The rule is frozen: it is a pure function of the block and the blocks it names. Clock, policy, config and load may
// delay or hide a block, never make it invalid, or the fleet splits.
func (b *Block) CheckLinks(known func(Digest) (Header, bool)) error {
	var missing []Digest
	var highest uint64
	for _, l := range b.Links {
		h, ok := known(l)
		if !ok {
			missing = append(missing, l)
			continue
		}
		highest = max(highest, h.Priority)
	}
	if b.Seq > 1 {
		h, ok := known(b.Prev)
		switch {
		case !ok:
			if !slices.Contains(missing, b.Prev) {
				missing = append(missing, b.Prev)
			}
		case h.Origin != b.Origin || h.Epoch != b.Epoch || h.Incarnation != b.Incarnation || h.Seq != b.Seq-1:
			return formatError("the previous block is not number %d of the same chain", b.Seq-1)
		case h.Priority >= b.Priority:
			return formatError("the previous block is not lower")
		}
	}
	// A missing link can only raise what the known ones give.
	if b.Priority <= highest || len(missing) == 0 && b.Priority != highest+1 {
		return formatError("priority %d, the links give %d", b.Priority, highest+1)
	}
	if len(missing) > 0 {
		return &MissingError{missing}
	}
	return nil
}

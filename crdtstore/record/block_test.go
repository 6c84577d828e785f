package record

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"testing"
)

// node builds the bytes of a block field by field, so that each can be wrong on its own.
type node struct {
	links    [][]byte // whole link messages
	elements [][]byte
	priority []byte // with its tag
	extra    []byte // after the priority, in the delta
	tail     []byte // after the node
}

func fixedNode() node {
	return node{
		links:    [][]byte{linkTo(genesisDigest())},
		elements: [][]byte{elementOf("/b", fixedBundle(1, Digest{}, fixedWrite(1, 1)).Encode())},
		priority: []byte{3 << 3, 2},
	}
}

func linkTo(d Digest) []byte { return append(appendField(nil, 1, d.CID()), 2<<3|2, 0, 3<<3, 0) }

func elementOf(key string, value []byte) []byte {
	return appendField(appendField(nil, 1, []byte(key)), 3, value)
}

func (n node) encode() []byte {
	var b, delta []byte
	for _, l := range n.links {
		b = appendField(b, 2, l)
	}
	for _, e := range n.elements {
		delta = appendField(delta, 1, e)
	}
	delta = slices.Concat(delta, n.priority, n.extra)
	return append(appendField(b, 1, delta), n.tail...)
}

// paddedField writes the length of a field in one byte more than it needs.
func paddedField(num byte, value []byte) []byte {
	b := binary.AppendUvarint([]byte{num<<3 | 2}, uint64(len(value)))
	b[len(b)-1] |= 0x80
	return slices.Concat(b, []byte{0}, value)
}

// TestBlockBytes breaks each rule about the bytes of a block once: protobuf knows many encodings of one message, the
// block rule knows one.
func TestBlockBytes(t *testing.T) {
	value := fixedBundle(1, Digest{}, fixedWrite(1, 1)).Encode()
	link := linkTo(genesisDigest())
	cid := genesisDigest().CID()
	low, high := linkTo(Digest{1}), linkTo(Digest{2})
	if _, err := ParseBlock(fixedNode().encode()); err != nil {
		t.Fatalf("the good block: %v", err)
	}
	for _, tc := range []struct {
		name   string
		edit   func(*node)
		reason string
	}{
		{"no links", func(n *node) { n.links = nil }, "without links"},
		{"links descending", func(n *node) { n.links = [][]byte{high, low} }, "ascending"},
		{"a link twice", func(n *node) { n.links = [][]byte{low, low} }, "ascending"},
		{"a link with a name", func(n *node) { n.links[0] = append(appendField(nil, 1, cid), 2<<3|2, 1, 'x', 3<<3, 0) }, "name or size"},
		{"a link with a size", func(n *node) { n.links[0] = append(link[:len(link)-1:len(link)-1], 1) }, "name or size"},
		{"a link without name and size", func(n *node) { n.links[0] = appendField(nil, 1, cid) }, "name or size"},
		{"a link with a padded size", func(n *node) { n.links[0] = append(link[:len(link)-1:len(link)-1], 0x80, 0) }, "name or size"},
		{"an empty link", func(n *node) { n.links[0] = nil }, "field"},
		{"a CID of raw bytes", func(n *node) { n.links[0] = bytes.Replace(link, []byte{1, 0x70}, []byte{1, 0x55}, 1) }, "CIDv1"},
		{"a CID with another hash", func(n *node) { n.links[0] = bytes.Replace(link, []byte{0x12, 0x20}, []byte{0x13, 0x20}, 1) }, "CIDv1"},
		{"a CIDv0", func(n *node) { n.links[0] = append(appendField(nil, 1, cid[2:]), 2<<3|2, 0, 3<<3, 0) }, "CIDv1"},
		{"a padded CID length", func(n *node) { n.links[0] = append(paddedField(1, cid), 2<<3|2, 0, 3<<3, 0) }, "not minimal"},
		{"1025 links", func(n *node) { n.links = manyLinks(MaxLinks + 1) }, "more than 1024 links"},

		{"another key", func(n *node) { n.elements[0] = elementOf("/a", value) }, "element key"},
		{"a key to climb out with", func(n *node) { n.elements[0] = elementOf("/../b", value) }, "element key"},
		{"an element with an ID", func(n *node) {
			n.elements[0] = slices.Concat(appendField(nil, 1, []byte("/b")), appendField(nil, 2, []byte("x")), appendField(nil, 3, value))
		}, "field"},
		{"an element the other way round", func(n *node) {
			n.elements[0] = slices.Concat(appendField(nil, 3, value), appendField(nil, 1, []byte("/b")))
		}, "field"},
		{"an element with a tail", func(n *node) { n.elements[0] = append(n.elements[0], 8<<3, 1) }, "trailing"},
		{"an empty value", func(n *node) { n.elements[0] = elementOf("/b", nil) }, "empty element"},
		{"no value", func(n *node) { n.elements[0] = appendField(nil, 1, []byte("/b")) }, "field"},
		{"no element", func(n *node) { n.elements = nil }, "field"},
		{"two elements", func(n *node) { n.elements = append(n.elements, n.elements[0]) }, "one element"},
		{"a tombstone", func(n *node) {
			n.elements = append(n.elements, nil)
			n.priority = append(appendField(nil, 2, n.elements[0]), 24, 2)
		}, "one element"},

		{"priority 0", func(n *node) { n.priority = []byte{24, 0} }, "priority 0"},
		{"no priority", func(n *node) { n.priority = nil }, "priority tag"},
		{"padded priority", func(n *node) { n.priority = []byte{24, 0x82, 0} }, "not minimal"},
		{"priority over 2^63", func(n *node) { n.priority = binary.AppendUvarint([]byte{24}, 1<<63+1) }, "limit"},
		{"priority 2^64-1", func(n *node) { n.priority = binary.AppendUvarint([]byte{24}, 1<<64-1) }, "limit"},
		{"priority over 64 bits", func(n *node) { n.priority = append([]byte{24}, bytes.Repeat([]byte{0xff}, 10)...) }, "varint"},
		{"priority twice", func(n *node) { n.extra = []byte{24, 2} }, "trailing"},
		{"a DAG name", func(n *node) { n.extra = appendField(nil, 4, []byte("x")) }, "trailing"},

		{"bytes after the data", func(n *node) { n.tail = []byte{0} }, "trailing"},
		{"links after the data", func(n *node) { n.tail = appendField(nil, 2, link) }, "trailing"},
		{"over the size limit", func(n *node) { n.tail = make([]byte, MaxBlock) }, "block of"},
		{"value of the genesis", func(n *node) { n.elements[0] = elementOf("/b", GenesisValue(fixedNetwork(), 0)) }, "magic"},
	} {
		n := fixedNode()
		tc.edit(&n)
		_, err := ParseBlock(n.encode())
		refused(t, tc.name, err, tc.reason)
	}
	raw := fixedBlock()
	for i := range raw {
		_, err := ParseBlock(raw[:i])
		refused(t, "cut block", err, "")
	}
}

func manyLinks(n int) (links [][]byte) {
	for i := range n {
		links = append(links, linkTo(Digest{byte(i >> 8), byte(i)}))
	}
	return links
}

// Offsets in a bundle.
const (
	atEpoch  = 36
	atSeq    = 48
	atPrev   = 56
	atWrites = 88
)

func TestBundleRefused(t *testing.T) {
	first, second := fixedBundle(1, Digest{}, fixedWrite(1, 1)).Encode(), fixedBundle(2, Digest{1}).Encode()
	for _, tc := range []struct {
		name   string
		b      []byte
		reason string
	}{
		{"magic", change(first, 0, 'X'), "magic"},
		{"epoch 1", change(first, atEpoch, 0, 0, 0, 1), "epoch"},
		{"number 0", change(second, atSeq, make([]byte, 8)...), "sequence number 0"},
		{"number 0 without a previous block", change(second, atSeq, make([]byte, 40)...), "sequence number 0"},
		{"number 1 with a previous block", change(first, atPrev, 1), "sequence number 1"},
		{"number 2 without a previous block", change(second, atPrev, make([]byte, 32)...), "sequence number 2"},
		{"257 writes", slices.Concat(first[:atWrites], []byte{0x81, 2}, first[atWrites+1:]), "limit of 256"},
		{"number of writes in two bytes", slices.Concat(first[:atWrites], []byte{0x81, 0}, first[atWrites+1:]), "not minimal"},
		{"more writes than promised", change(first, atWrites, 0), "trailing"},
		{"fewer writes than promised", change(first, atWrites, 2), ""},
		{"no signature", first[:len(first)-64], "signature"},
		{"bytes after the signature", append(bytes.Clone(first), 0), "trailing"},
	} {
		_, err := ParseBundle(tc.b)
		refused(t, tc.name, err, tc.reason)
	}
}

// TestBlockLimits is at each limit of a block and one above it.
func TestBlockLimits(t *testing.T) {
	bundleOf := func(writes, slots int) *Bundle {
		u := fixedBundle(1, Digest{})
		for w := range writes {
			v := &Write{Author: u.Origin, HLC: HLC(w)}
			for s := range slots / writes {
				v.Slots = append(v.Slots, Slot{Tags: []Tag{{byte(s >> 8), byte(s)}}})
			}
			u.Writes = append(u.Writes, v)
		}
		u.Sign(fixedKey(1), fixedNetwork(), onGenesis())
		return u
	}
	for _, tc := range []struct {
		name          string
		writes, slots int
		ok            bool
	}{
		{"no write", 0, 0, true},
		{"1024 slots in one write", 1, 1024, true},
		{"256 writes with 1024 slots", 256, 1024, true},
		{"256 writes with 1280 slots", 256, 1280, false},
		{"25 writes with 1025 slots", 25, 1025, false},
		{"257 writes", 257, 257, false},
	} {
		u := bundleOf(max(tc.writes, 1), tc.slots)
		if tc.writes == 0 {
			u = fixedBundle(1, Digest{})
		}
		b, err := ParseBlock(EncodeBlock([]Digest{genesisDigest()}, 2, u.Encode()))
		if (err == nil) != tc.ok {
			t.Errorf("%s: %v", tc.name, err)
		}
		if err == nil && b.SlotCount() != tc.slots {
			t.Errorf("%s: %d slots", tc.name, b.SlotCount())
		}
	}

	n := fixedNode()
	n.links = manyLinks(MaxLinks)
	if _, err := ParseBlock(n.encode()); err != nil {
		t.Errorf("1024 links: %v", err)
	}

	for size, ok := range map[int]bool{MaxBlock: true, MaxBlock + 1: false} {
		raw := blockOfSize(t, size)
		if b, err := ParseBlock(raw); (err == nil) != ok || ok && b.Verify(fixedNetwork()) != nil {
			t.Errorf("a block of %d bytes: %v", len(raw), err)
		}
	}
}

// blockOfSize fills a block to the byte: a slot has 33 bytes and 16 for each of its tags.
func blockOfSize(t *testing.T, size int) []byte {
	t.Helper()
	u := fixedBundle(1, Digest{})
	w := &Write{Author: u.Origin}
	u.Writes = []*Write{w}
	encode := func() []byte {
		u.Sign(fixedKey(1), fixedNetwork(), onGenesis())
		return EncodeBlock([]Digest{genesisDigest()}, 2, u.Encode())
	}
	w.Slots = make([]Slot, MaxSlots)
	for i := range w.Slots {
		w.Slots[i].Tags = []Tag{{byte(i >> 8), byte(i)}}
	}
	for (size-len(encode()))%16 != 0 {
		w.Slots = w.Slots[1:]
	}
	for missing, i := (size-len(encode()))/16, 0; missing > 0; i++ {
		n := min(missing, MaxSegments-1)
		w.Slots[i].Tags = append(make([]Tag, n), w.Slots[i].Tags...)
		missing -= n
	}
	raw := encode()
	if len(raw) != size {
		t.Fatalf("built a block of %d bytes, want %d", len(raw), size)
	}
	return raw
}

// TestBlockTampering flips every bit of a signed block. What the origin signed cannot change, the links included; the
// priority makes another block, which the links then refuse.
func TestBlockTampering(t *testing.T) {
	t.Parallel()
	network := fixedNetwork()
	raw := fixedBlock()
	good, err := ParseBlock(raw)
	if err != nil || good.Verify(network) != nil {
		t.Fatal("the good block is refused")
	}
	signed := good.Encode()
	survived := 0
	for i := range len(raw) * 8 {
		flipped := change(raw, i/8, raw[i/8]^1<<(i%8))
		b, err := ParseBlock(flipped)
		if err != nil || b.Verify(network) != nil {
			continue
		}
		survived++
		if b.Digest == good.Digest || !bytes.Equal(b.Encode(), signed) {
			t.Errorf("bit %d can be flipped in what the origin signed", i)
		}
		if err := b.CheckLinks(headers{genesisDigest(): {Priority: 1}}.known); err == nil {
			t.Errorf("bit %d can be flipped, and the links still hold", i)
		}
	}
	if limit := 8 * 8; survived > limit { // the priority
		t.Errorf("%d flipped bits survive, want at most %d", survived, limit)
	}
	if err := good.Verify(NetworkID{}); err == nil {
		t.Error("the block counts in another network")
	}
}

// TestBundleOnOtherLinks wraps a good bundle into a second block, as a hostile member could to make its origin look
// like one that forked its chain.
func TestBundleOnOtherLinks(t *testing.T) {
	links := []Digest{genesisDigest(), Digest(fixedHash("block", 0))}
	slices.SortFunc(links, func(a, b Digest) int { return bytes.Compare(a[:], b[:]) })
	b, err := ParseBlock(EncodeBlock(links, 3, fixedBundle(1, Digest{}, fixedWrite(1, 1)).Encode()))
	if err != nil {
		t.Fatal(err)
	}
	refused(t, "a bundle on other links", b.Verify(fixedNetwork()), "origin's signature")
}

func TestBundleSignatures(t *testing.T) {
	network := fixedNetwork()
	foreign := relayedWrite(2, 3)
	foreign.Sig[0] ^= 1
	wrong := fixedBundle(1, Digest{})
	wrong.Sign(fixedKey(2), network, onGenesis())
	own := relayedWrite(1, 1) // the origin may sign for itself as a client would
	for _, tc := range []struct {
		name   string
		u      *Bundle
		reason string
	}{
		{"a client's broken signature in a well signed bundle", fixedBundle(1, Digest{}, fixedWrite(1, 1), foreign), "signature of author"},
		{"signed by another key", wrong, "origin's signature"},
	} {
		refused(t, tc.name, tc.u.Verify(network, onGenesis()), tc.reason)
	}
	if err := fixedBundle(1, Digest{}, own).Verify(network, onGenesis()); err != nil {
		t.Error(err)
	}
	weak := &Bundle{Origin: PublicKey{1}, Seq: 1, Sig: make([]byte, 64)}
	weak.Sig[0] = 1
	for seq := range uint64(64) {
		weak.Incarnation = seq
		refused(t, "an origin of small order", weak.Verify(network, onGenesis()), "origin's signature")
	}
}

// headers are the blocks that somebody holds.
type headers map[Digest]Header

func (h headers) known(d Digest) (Header, bool) { v, ok := h[d]; return v, ok }

// TestBlockRule breaks each rule about what a block names once.
func TestBlockRule(t *testing.T) {
	origin, other := KeyOf(fixedKey(1)), KeyOf(fixedKey(2))
	a, b, prev := Digest{1}, Digest{2}, Digest{3}
	const incarnation = 0x1122334455667788
	held := func() headers {
		return headers{
			a:    {Priority: 4, Origin: other, Incarnation: 9, Seq: 7},
			b:    {Priority: 6, Origin: other, Incarnation: 9, Seq: 8},
			prev: {Priority: 5, Origin: origin, Incarnation: incarnation, Seq: 2},
		}
	}
	for _, tc := range []struct {
		name    string
		edit    func(*Block, headers)
		missing []Digest
		reason  string
	}{
		{name: "all is well", edit: func(*Block, headers) {}},
		{name: "the previous block is a link too", edit: func(k *Block, _ headers) { k.Links = []Digest{b, prev} }},
		{name: "the first of its incarnation", edit: func(k *Block, _ headers) { k.Seq, k.Prev = 1, Digest{} }},
		{name: "a link is missing", edit: func(_ *Block, h headers) { delete(h, b) }, missing: []Digest{b}},
		{name: "all links are missing", edit: func(_ *Block, h headers) { delete(h, a); delete(h, b) }, missing: []Digest{a, b}},
		{name: "the previous block is missing", edit: func(_ *Block, h headers) { delete(h, prev) }, missing: []Digest{prev}},
		{name: "a link that is the previous block is missing", edit: func(k *Block, h headers) {
			k.Links = []Digest{a, prev}
			delete(h, prev)
		}, missing: []Digest{prev}},
		{name: "everything is missing", edit: func(_ *Block, h headers) { clear(h) }, missing: []Digest{a, b, prev}},
		{name: "too high", edit: func(k *Block, _ headers) { k.Priority = 8 }, reason: "priority 8, the links give 7"},
		{name: "too low", edit: func(k *Block, _ headers) { k.Priority = 6 }, reason: "priority 6, the links give 7"},
		{name: "the highest priority of all", edit: func(k *Block, _ headers) { k.Priority = 1 << 63 }, reason: "the links give 7"},
		{name: "below a known link while another is missing", edit: func(k *Block, h headers) {
			k.Priority = 6
			delete(h, a)
		}, reason: "priority 6"},
		{name: "a gap in the chain", edit: func(k *Block, _ headers) { k.Seq = 4 }, reason: "number 3"},
		{name: "not behind its previous block", edit: func(k *Block, _ headers) { k.Seq = 2 }, reason: "number 1"},
		{name: "the previous block is another's", edit: func(k *Block, h headers) { k.Prev = a; h[a] = Header{4, other, 0, incarnation, 2} }, reason: "same chain"},
		{name: "of another incarnation", edit: func(_ *Block, h headers) { h[prev] = Header{5, origin, 0, 1, 2} }, reason: "same chain"},
		{name: "of another epoch", edit: func(_ *Block, h headers) { h[prev] = Header{5, origin, 1, incarnation, 2} }, reason: "same chain"},
		{name: "the genesis block is nobody's previous one", edit: func(k *Block, h headers) {
			k.Seq, k.Prev = 2, genesisDigest()
			h[k.Prev] = Header{Priority: 1}
		}, reason: "same chain"},
		{name: "the previous block as high", edit: func(_ *Block, h headers) { h[prev] = Header{7, origin, 0, incarnation, 2} }, reason: "not lower"},
		{name: "a wrong previous block outweighs a missing link", edit: func(k *Block, h headers) {
			k.Seq = 4
			delete(h, a)
		}, reason: "number 3"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			block := &Block{Links: []Digest{a, b}, Priority: 7, Bundle: fixedBundle(3, prev)}
			h := held()
			tc.edit(block, h)
			err := block.CheckLinks(h.known)
			var missing *MissingError
			switch {
			case tc.reason != "":
				refused(t, tc.name, err, tc.reason)
			case tc.missing != nil:
				if !errors.As(err, &missing) || !slices.Equal(missing.Digests, tc.missing) {
					t.Errorf("got %v, want %d missing", err, len(tc.missing))
				}
				if errors.Is(err, ErrFormat) {
					t.Error("a block that waits counts as invalid")
				}
			case err != nil:
				t.Error(err)
			}
		})
	}
}

func TestDigestFromCID(t *testing.T) {
	good := genesisDigest().CID()
	for name, c := range map[string][]byte{
		"empty": nil, "cut": good[:35], "longer": append(bytes.Clone(good), 0), "v0": good[2:], "raw": change(good, 1, 0x55),
		"identity": change(good, 2, 0), "other length": change(good, 3, 0x1f), "padded": slices.Concat([]byte{0x81, 0}, good[1:]),
	} {
		_, err := DigestFromCID(c)
		refused(t, name, err, "CIDv1")
	}
}

package record

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"slices"
)

// Values made from nothing but their numbers, so that golden vectors and failures can be made again.

func fixedHash(what string, n int) [32]byte {
	return sha256.Sum256(fmt.Appendf(nil, "syncagent test %s %d", what, n))
}

func fixedKey(n int) ed25519.PrivateKey {
	seed := fixedHash("key", n)
	return ed25519.NewKeyFromSeed(seed[:])
}

func fixedGenesis() Genesis {
	admins := []PublicKey{KeyOf(fixedKey(100)), KeyOf(fixedKey(101))}
	slices.SortFunc(admins, CompareKeys)
	return Genesis{Nonce: fixedHash("nonce", 0), Admins: admins}
}

func fixedNetwork() NetworkID { return fixedGenesis().ID() }

func fixedEntry(n int) *Entry {
	e := &Entry{Kind: KindPut, Mode: 0o640, Path: fmt.Sprintf("/certs/web%d/tls.key", n), Value: fmt.Appendf(nil, "value %d", n)}
	salt := fixedHash("salt", n)
	copy(e.Salt[:], salt[:])
	return e
}

func fixedDelete() *Entry {
	e := fixedEntry(7)
	e.Kind, e.Mode, e.Value = KindDelete, 0, nil
	return e
}

func fixedChunked() *Entry {
	e := fixedEntry(8)
	e.Kind = KindChunked
	e.Expires = 1_800_000_000_000
	e.Value = ChunkList{Size: ChunkSize + 1, Chunks: []ID{
		ChunkID(bytes.Repeat([]byte{'a'}, ChunkSize)), ChunkID([]byte{'b'}),
	}}.Encode()
	return e
}

const fixedHLC HLC = 0x0199_0000_0000_0003

// fixedWrite is a write of key author with one slot for each number.
func fixedWrite(author int, numbers ...int) *Write {
	w := &Write{Author: KeyOf(fixedKey(author)), HLC: fixedHLC}
	for _, n := range numbers {
		e := fixedEntry(n)
		w.Slots = append(w.Slots, Slot{Entry: e.ID(), Tags: fixedNetwork().Tags(e.Path)})
	}
	return w
}

// relayedWrite is one that its author signed.
func relayedWrite(author int, numbers ...int) *Write {
	w := fixedWrite(author, numbers...)
	w.Sign(fixedKey(author), fixedNetwork())
	return w
}

// onGenesis are the links of a first block.
func onGenesis() []Digest { return []Digest{genesisDigest()} }

// fixedBundle is a bundle of key 1, signed for a block on the genesis block.
func fixedBundle(seq uint64, prev Digest, writes ...*Write) *Bundle {
	return fixedBundleOn(onGenesis(), seq, prev, writes...)
}

func fixedBundleOn(links []Digest, seq uint64, prev Digest, writes ...*Write) *Bundle {
	u := &Bundle{Origin: KeyOf(fixedKey(1)), Incarnation: 0x1122334455667788, Seq: seq, Prev: prev, Writes: writes}
	u.Sign(fixedKey(1), fixedNetwork(), links)
	return u
}

func genesisDigest() Digest { return DigestOf(GenesisBlock(fixedNetwork(), 0)) }

// fixedBlock is the first block of key 1: a write of its own and one that key 2 signed.
func fixedBlock() []byte {
	u := fixedBundle(1, Digest{}, fixedWrite(1, 1, 2), relayedWrite(2, 3))
	return EncodeBlock(onGenesis(), 2, u.Encode())
}

// mergeBlock is the second block of key 1, without writes, on the first one and another.
func mergeBlock() []byte {
	first := DigestOf(fixedBlock())
	links := []Digest{first, Digest(fixedHash("block", 0))}
	slices.SortFunc(links, func(a, b Digest) int { return bytes.Compare(a[:], b[:]) })
	return EncodeBlock(links, 3, fixedBundleOn(links, 2, first).Encode())
}

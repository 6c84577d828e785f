package record

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
)

// MaxBundleWrites bounds the writes of a bundle, a protocol constant.
const MaxBundleWrites = 256

const bundleContext = "syncagent bundle v1\n"

// Bundle is the payload of a block: writes that one origin agent published at one go, chained by sequence number.
type Bundle struct {
	Origin      PublicKey
	Epoch       uint32 // 0
	Incarnation uint64 // random, made with the origin's store
	Seq         uint64 // from 1
	Prev        Digest // the origin's block Seq-1 of this incarnation, zero for Seq 1
	Writes      []*Write
	Sig         []byte
}

func (u *Bundle) sizeUnsigned() int {
	n := len("SAB1") + 32 + 4 + 8 + 8 + 32 + uvarintLen(len(u.Writes))
	for _, w := range u.Writes {
		n += w.Size()
	}
	return n
}

func (u *Bundle) appendUnsigned(b []byte) []byte {
	b = append(b, "SAB1"...)
	b = append(b, u.Origin[:]...)
	b = be.AppendUint32(b, u.Epoch)
	b = be.AppendUint64(b, u.Incarnation)
	b = be.AppendUint64(b, u.Seq)
	b = append(b, u.Prev[:]...)
	b = binary.AppendUvarint(b, uint64(len(u.Writes)))
	for _, w := range u.Writes {
		b = w.Append(b)
	}
	return b
}

// Encode gives the canonical bytes of a signed bundle.
func (u *Bundle) Encode() []byte {
	return append(u.appendUnsigned(make([]byte, 0, u.sizeUnsigned()+len(u.Sig))), u.Sig...)
}

// signedHash is what the origin signs: the bundle and the links of its block. Without the links anybody could wrap the
// bundle into a second valid block, and the origin would seem to have forked its chain.
func (u *Bundle) signedHash(links []Digest) [32]byte {
	base := LinksDigest(links)
	return sha256.Sum256(append(u.appendUnsigned(make([]byte, 0, u.sizeUnsigned()+len(base))), base[:]...))
}

// LinksDigest is the SHA-256 of digests in the order given. Over the ascending heads it is a replica's block digest.
func LinksDigest(links []Digest) (sum [32]byte) {
	h := sha256.New()
	for i := range links {
		h.Write(links[i][:])
	}
	h.Sum(sum[:0])
	return sum
}

// Sign sets the origin's signature, for a block with these links in ascending order.
func (u *Bundle) Sign(priv ed25519.PrivateKey, network NetworkID, links []Digest) {
	u.Sig = Sign(priv, bundleContext, network, u.signedHash(links))
}

// Verify checks the origin's signature for a block with these links, and that of every write that carries its own.
func (u *Bundle) Verify(network NetworkID, links []Digest) error {
	for i, s := range u.signatures(links) {
		if s.fits(network) {
			continue
		}
		if i == 0 {
			return formatError("the origin's signature does not fit")
		}
		return formatError("the signature of author %s does not fit", s.by)
	}
	return nil
}

// signatures gives those that Verify checks.
func (u *Bundle) signatures(links []Digest) []signature {
	all := append(make([]signature, 0, 1), signature{u.Origin, bundleContext, u.signedHash(links), u.Sig})
	for _, w := range u.Writes {
		if w.Sig != nil {
			all = append(all, w.signature())
		}
	}
	return all
}

// SlotCount is the number of slots in all writes.
func (u *Bundle) SlotCount() int {
	n := 0
	for _, w := range u.Writes {
		n += len(w.Slots)
	}
	return n
}

// ParseBundle reads a bundle strictly. It does not check signatures.
func ParseBundle(b []byte) (*Bundle, error) {
	d := decoder{b: b}
	u := new(Bundle)
	d.magic("SAB1")
	u.Origin = PublicKey(id32(d.bytes(32, "origin")))
	if u.Epoch = d.u32("epoch"); u.Epoch != 0 {
		d.fail("unknown epoch %d", u.Epoch)
	}
	u.Incarnation = d.u64("incarnation")
	u.Seq = d.u64("sequence number")
	u.Prev = Digest(id32(d.bytes(32, "previous block")))
	if d.err == nil && (u.Seq == 0 || (u.Seq == 1) != (u.Prev == Digest{})) {
		d.fail("sequence number %d does not fit the previous block", u.Seq)
	}
	n := d.uvarint(MaxBundleWrites, "writes")
	u.Writes = make([]*Write, 0, n)
	slots := 0
	for i := uint64(0); i < n && d.err == nil; i++ {
		w := parseWrite(&d, u.Origin)
		if slots += len(w.Slots); slots > MaxSlots {
			d.fail("more than %d slots", MaxSlots)
		}
		u.Writes = append(u.Writes, w)
	}
	u.Sig = bytes.Clone(d.bytes(ed25519.SignatureSize, "signature"))
	return u, d.end()
}

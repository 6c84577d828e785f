package record

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"
)

// PublicKey is an identity: an Ed25519 public key, which is also the libp2p peer ID.
type PublicKey [32]byte

// KeyOf gives the public half of a private key.
func KeyOf(priv ed25519.PrivateKey) PublicKey {
	return PublicKey(id32(priv.Public().(ed25519.PublicKey)))
}

// peerPrefix begins the peer ID of every Ed25519 key: identity multihash, its length, and as protobuf the type of the
// key and its length. What follows is the key.
const peerPrefix = "\x00\x24\x08\x01\x12\x20"

// PeerID gives the libp2p peer ID of the key.
func (k PublicKey) PeerID() peer.ID { return peer.ID(peerPrefix + string(k[:])) }

// String gives the peer ID, "12D3KooW...".
func (k PublicKey) String() string { return k.PeerID().String() }

// IsZero tells whether k is the zero value, which is no identity.
func (k PublicKey) IsZero() bool { return k == PublicKey{} }

// Short gives the last eight characters of the peer ID, for people.
func (k PublicKey) Short() string { s := k.String(); return s[len(s)-8:] }

// PublicKeyOf extracts the key from a libp2p peer ID. It fails for IDs that are not Ed25519 keys and for weak keys.
func PublicKeyOf(id peer.ID) (k PublicKey, err error) {
	raw, ok := strings.CutPrefix(string(id), peerPrefix)
	if !ok || len(raw) != len(k) { // the key in other bytes would be a second name for one identity
		return k, fmt.Errorf("peer ID %s: not an Ed25519 identity in its canonical form", id)
	}
	copy(k[:], raw)
	if err := k.Check(); err != nil {
		return PublicKey{}, fmt.Errorf("peer ID %s: %w", id, err)
	}
	return k, nil
}

// ParsePublicKey reads a peer ID in text form.
func ParsePublicKey(s string) (PublicKey, error) {
	id, err := peer.Decode(s)
	if err != nil {
		return PublicKey{}, fmt.Errorf("peer ID %q: want the form 12D3KooW", s)
	}
	return PublicKeyOf(id)
}

// smallOrder lists the y coordinates of all points of small order, canonical and not, without the sign bit.
// Anyone can make signatures that verify under such a key (RFC 8032, section 8.9; libsodium has the same list).
var smallOrder = [7][32]byte{
	{},
	{1},
	{0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05},
	{0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a},
	highPoint(0xec), highPoint(0xed), highPoint(0xee), // p-1, p, p+1
}

func highPoint(low byte) (p [32]byte) {
	for i := range p {
		p[i] = 0xff
	}
	p[0], p[31] = low, 0x7f
	return p
}

// Check refuses keys of small order, for which signatures prove nothing.
func (k PublicKey) Check() error {
	y := k
	y[31] &= 0x7f
	for _, weak := range smallOrder {
		if y == weak {
			return formatError("public key of small order")
		}
	}
	return nil
}

// CompareKeys orders identities by their bytes.
func CompareKeys(a, b PublicKey) int { return bytes.Compare(a[:], b[:]) }

package record

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"fmt"
)

// NetworkID names a network: the hash of its genesis. It is part of every signature and every path tag.
type NetworkID [32]byte

var base32Lower = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// String gives 52 lower-case base32 characters.
func (n NetworkID) String() string { return base32Lower.EncodeToString(n[:]) }

// ParseNetworkID reads what String wrote.
func ParseNetworkID(s string) (n NetworkID, err error) {
	b, err := base32Lower.DecodeString(s)
	if err != nil || len(b) != len(n) || base32Lower.EncodeToString(b) != s {
		return n, fmt.Errorf("network ID %q: want 52 characters a-z2-7", s)
	}
	copy(n[:], b)
	return n, nil
}

// MaxAdmins bounds the admin keys of a genesis.
const MaxAdmins = 64

// Genesis is what a network is made from: a random nonce and the admin keys at its birth, ascending.
type Genesis struct {
	Nonce  [32]byte
	Admins []PublicKey
}

// Encode gives the canonical bytes: "SAG1" nonce n(uvarint) admin*n.
func (g Genesis) Encode() []byte {
	b := append([]byte("SAG1"), g.Nonce[:]...)
	b = binary.AppendUvarint(b, uint64(len(g.Admins)))
	for _, a := range g.Admins {
		b = append(b, a[:]...)
	}
	return b
}

// ParseGenesis reads a genesis strictly.
func ParseGenesis(b []byte) (g Genesis, err error) {
	d := decoder{b: b}
	d.magic("SAG1")
	g.Nonce = id32(d.bytes(32, "nonce"))
	n := d.uvarint(MaxAdmins, "admins")
	if d.err == nil && n == 0 {
		d.fail("no admin key")
	}
	for i := uint64(0); i < n && d.err == nil; i++ {
		k := PublicKey(id32(d.bytes(32, "admin key")))
		if err := k.Check(); err != nil && d.err == nil {
			d.err = err
		}
		if i > 0 && CompareKeys(g.Admins[i-1], k) >= 0 {
			d.fail("admin keys are not ascending")
		}
		g.Admins = append(g.Admins, k)
	}
	return g, d.end()
}

// ID gives the network that the genesis makes.
func (g Genesis) ID() NetworkID {
	h := sha256.New()
	h.Write([]byte("syncagent network v1\n"))
	h.Write(g.Encode())
	return NetworkID(h.Sum(nil))
}

// GenesisValue is the element value of the genesis block, which every agent derives for itself.
func GenesisValue(n NetworkID, epoch uint32) []byte {
	b := append([]byte("SAR1"), n[:]...)
	return be.AppendUint32(b, epoch)
}

// GenesisBlock is the one block without links: the first Put on an empty store.
func GenesisBlock(n NetworkID, epoch uint32) []byte {
	return EncodeBlock(nil, 1, GenesisValue(n, epoch))
}

package record

import (
	"crypto/ed25519"
	"crypto/sha256"
	"math/big"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/mr-tron/base58"
)

func TestPeerID(t *testing.T) {
	for n := range 20 {
		priv := fixedKey(n)
		k := KeyOf(priv)
		lp, err := crypto.UnmarshalEd25519PrivateKey(priv)
		if err != nil {
			t.Fatal(err)
		}
		id, err := peer.IDFromPrivateKey(lp)
		if err != nil {
			t.Fatal(err)
		}
		if k.PeerID() != id || k.String() != id.String() || !strings.HasSuffix(k.String(), k.Short()) || len(k.Short()) != 8 {
			t.Errorf("%s is not %s", k, id)
		}
		if got, err := PublicKeyOf(id); got != k || err != nil {
			t.Errorf("%s: %v, %v", id, got, err)
		}
		if got, err := ParsePublicKey(k.String()); got != k || err != nil {
			t.Errorf("%s: %v, %v", id, got, err)
		}
	}
}

func TestPeerIDRefused(t *testing.T) {
	key := KeyOf(fixedKey(1))
	inner := append([]byte{8, 1, 18, 32}, key[:]...) // protobuf: type Ed25519, 32 bytes
	identity := func(b []byte) string { return base58.Encode(append([]byte{0, byte(len(b))}, b...)) }
	if _, err := ParsePublicKey(identity(inner)); err != nil {
		t.Fatalf("the canonical form: %v", err)
	}
	hash := sha256.Sum256(inner)
	weak := PublicKey{1}
	for name, s := range map[string]string{
		"empty":                    "",
		"garbage":                  "12D3KooW",
		"space":                    key.String() + " ",
		"one letter wrong":         "12D3KooX" + key.String()[8:],
		"RSA key, hashed":          base58.Encode(append([]byte{0x12, 32}, hash[:]...)),
		"unknown field appended":   identity(append(inner[:36:36], 24, 1)),
		"fields the other way":     identity(append(append([]byte{18, 32}, key[:]...), 8, 1)),
		"type given twice":         identity(append([]byte{8, 1}, inner...)),
		"secp256k1":                identity(append([]byte{8, 2, 18, 32}, key[:]...)),
		"31 bytes":                 identity(append([]byte{8, 1, 18, 31}, key[:31]...)),
		"small order":              identity(append([]byte{8, 1, 18, 32}, weak[:]...)),
		"small order, as peer ID":  weak.String(),
		"zero key":                 PublicKey{}.String(),
		"not minimal in its field": identity(append([]byte{8, 0x81, 0, 18, 32}, key[:]...)),
	} {
		if k, err := ParsePublicKey(s); err == nil {
			t.Errorf("%s: accepted as %s", name, k)
		}
	}
}

func TestVerify(t *testing.T) {
	priv, network, hash := fixedKey(1), fixedNetwork(), fixedHash("text", 0)
	sig := Sign(priv, "context\n", network, hash)
	k := KeyOf(priv)
	if !k.Verify("context\n", network, hash, sig) {
		t.Fatal("a good signature is refused")
	}
	for name, ok := range map[string]bool{
		"other context": k.Verify("contexts\n", network, hash, sig),
		"other network": k.Verify("context\n", NetworkID{}, hash, sig),
		"other hash":    k.Verify("context\n", network, fixedHash("text", 1), sig),
		"other key":     KeyOf(fixedKey(2)).Verify("context\n", network, hash, sig),
		"short":         k.Verify("context\n", network, hash, sig[:63]),
		"long":          k.Verify("context\n", network, hash, append(sig[:64:64], 0)),
		"none":          k.Verify("context\n", network, hash, nil),
		"plus order":    k.Verify("context\n", network, hash, plusOrder(sig)),
	} {
		if ok {
			t.Errorf("%s: accepted", name)
		}
	}
	for i := range len(sig) * 8 {
		sig[i/8] ^= 1 << (i % 8)
		if k.Verify("context\n", network, hash, sig) {
			t.Errorf("accepted with bit %d flipped", i)
		}
		sig[i/8] ^= 1 << (i % 8)
	}
}

// plusOrder adds the group's order to the second half of a signature: the classic second form of the same signature.
func plusOrder(sig []byte) []byte {
	order, _ := new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)
	s := new(big.Int).Add(littleEndian(sig[32:]), order)
	out := append([]byte(nil), sig...)
	for i, b := range s.FillBytes(make([]byte, 32)) {
		out[63-i] = b
	}
	return out
}

func littleEndian(b []byte) *big.Int {
	n := new(big.Int)
	for i := range b {
		n.Or(n, new(big.Int).Lsh(big.NewInt(int64(b[i])), uint(8*i)))
	}
	return n
}

// TestSmallOrder derives all encodings of all points of small order by arithmetic on the curve, independent of the
// list, and shows that each of them is refused and would else let anybody sign.
func TestSmallOrder(t *testing.T) {
	t.Parallel()
	weak := smallOrderKeys()
	// 8 points; y = 0 twice (order 4, two signs) and y = 1 also as y+p; the sign of x = 0 can be given either way.
	if len(weak) != 14 {
		t.Fatalf("%d encodings", len(weak))
	}
	forgeable := 0
	for k := range weak {
		if k.Check() == nil {
			t.Errorf("%x is accepted", k)
		}
		if forge(k) {
			forgeable++
		}
	}
	if forgeable == 0 {
		t.Error("no forged signature verifies under the bare library: the test proves nothing")
	}
	for n := range 8 {
		k := KeyOf(fixedKey(n))
		if err := k.Check(); err != nil {
			t.Errorf("%s: %v", k, err)
		}
		if k.PeerID(); forge(k) {
			t.Errorf("%s: forged", k)
		}
	}
	for i := range smallOrder {
		if !weak[smallOrder[i]] {
			t.Errorf("the list holds %x, which is not of small order", smallOrder[i])
		}
	}
}

// forge makes signatures without a private key: R = identity, s = 0 verifies whenever the hash times the key vanishes.
func forge(k PublicKey) bool {
	sig := make([]byte, ed25519.SignatureSize)
	sig[0] = 1
	network := fixedNetwork()
	for n := range 64 {
		hash := fixedHash("forged", n)
		if ed25519.Verify(k[:], signedBytes(bundleContext, network, hash), sig) {
			return !k.Verify(bundleContext, network, hash, sig)
		}
	}
	return false
}

// point is a point of edwards25519 in affine coordinates.
type point struct{ x, y *big.Int }

var (
	fieldP, _ = new(big.Int).SetString("57896044618658097711785492504343953926634992332820282019728792003956564819949", 10)
	curveD    = func() *big.Int { // -121665/121666
		d := new(big.Int).ModInverse(big.NewInt(121666), fieldP)
		return mod(d.Mul(d, big.NewInt(-121665)))
	}()
)

func mod(n *big.Int) *big.Int      { return n.Mod(n, fieldP) }
func times(a, b *big.Int) *big.Int { return mod(new(big.Int).Mul(a, b)) }
func plus(a, b *big.Int) *big.Int  { return mod(new(big.Int).Add(a, b)) }
func over(a, b *big.Int) *big.Int  { return times(a, new(big.Int).ModInverse(b, fieldP)) }
func (p point) isIdentity() bool   { return p.x.Sign() == 0 && p.y.Cmp(big.NewInt(1)) == 0 }
func (p point) encode(y *big.Int) (k PublicKey) {
	for i, b := range y.FillBytes(make([]byte, 32)) {
		k[31-i] = b
	}
	k[31] |= byte(p.x.Bit(0)) << 7
	return k
}

func (p point) add(q point) point {
	one := big.NewInt(1)
	dxy := times(curveD, times(times(p.x, q.x), times(p.y, q.y)))
	return point{
		over(plus(times(p.x, q.y), times(q.x, p.y)), plus(one, dxy)),
		over(plus(times(p.y, q.y), times(p.x, q.x)), plus(one, new(big.Int).Neg(dxy))),
	}
}

// decode finds the point with this y and the even x, if there is one.
func decode(y *big.Int) (point, bool) {
	y2 := times(y, y)
	x2 := over(plus(y2, big.NewInt(-1)), plus(times(curveD, y2), big.NewInt(1)))
	x := new(big.Int).ModSqrt(x2, fieldP)
	if x == nil {
		return point{}, false
	}
	if x.Bit(0) == 1 {
		x.Sub(fieldP, x)
	}
	return point{x, y}, true
}

// smallOrderKeys multiplies points by the large prime order until one of order 8 comes out, and writes down its
// multiples in every way that 32 bytes allow.
func smallOrderKeys() map[PublicKey]bool {
	order, _ := new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)
	var torsion []point
	for y := int64(2); len(torsion) < 8; y++ {
		p, ok := decode(big.NewInt(y))
		if !ok {
			continue
		}
		generator := point{big.NewInt(0), big.NewInt(1)}
		for i := order.BitLen() - 1; i >= 0; i-- {
			if generator = generator.add(generator); order.Bit(i) == 1 {
				generator = generator.add(p)
			}
		}
		torsion = torsion[:0]
		for q := generator; ; q = q.add(generator) {
			if torsion = append(torsion, q); q.isIdentity() {
				break
			}
		}
	}
	keys := map[PublicKey]bool{}
	limit := new(big.Int).Lsh(big.NewInt(1), 255)
	for _, p := range torsion {
		for y := new(big.Int).Set(p.y); y.Cmp(limit) < 0; y.Add(y, fieldP) {
			k := p.encode(y)
			keys[k] = true
			if p.x.Sign() == 0 { // minus zero
				k[31] ^= 0x80
				keys[k] = true
			}
		}
	}
	return keys
}

package record

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha512"

	"filippo.io/edwards25519"
)

// VerifyTogether tells whether Verify would succeed for all of the blocks. For many of one origin it takes less than a
// third of the time. If it fails it is not known for which.
func VerifyTogether(network NetworkID, blocks []*Block) bool {
	sum := newWeightedSum()
	for _, b := range blocks {
		for _, s := range b.Bundle.signatures(b.Links) {
			if !sum.add(network, &s) {
				return false
			}
		}
	}
	return sum.isZero()
}

// weightedSum checks many signatures by one equation. A signature (R, s) by key A is valid by ZIP 215 if
// 8(R + kA - sB) = 0, where B is the base point and k a hash of R, A and the message. Then the sum of many, each times a
// weight of its own, is zero too. The weights are random, and nobody knows them beforehand: with a false one among them it
// is zero by a chance of 1 in 2^125. A point costs most of the time, and the signatures of one key share A.
type weightedSum struct {
	scalars []*edwards25519.Scalar
	points  []*edwards25519.Point
	keys    map[PublicKey]*edwards25519.Scalar // the scalar of each key's point
}

func newWeightedSum() *weightedSum {
	return &weightedSum{
		scalars: []*edwards25519.Scalar{edwards25519.NewScalar()},
		points:  []*edwards25519.Point{new(edwards25519.Point).Negate(edwards25519.NewGeneratorPoint())},
		keys:    make(map[PublicKey]*edwards25519.Scalar),
	}
}

// add takes one more signature and says whether it can be valid at all.
func (w *weightedSum) add(network NetworkID, sig *signature) bool {
	if len(sig.bytes) != ed25519.SignatureSize {
		return false
	}
	key := w.keys[sig.by]
	if key == nil {
		point, err := new(edwards25519.Point).SetBytes(sig.by[:])
		if err != nil || sig.by.Check() != nil {
			return false
		}
		key = edwards25519.NewScalar()
		w.keys[sig.by] = key
		w.term(key, point)
	}
	// SetBytes takes encodings that are not canonical, as ZIP 215 wants it.
	r, err := new(edwards25519.Point).SetBytes(sig.bytes[:32])
	if err != nil {
		return false
	}
	s, err := edwards25519.NewScalar().SetCanonicalBytes(sig.bytes[32:])
	if err != nil {
		return false
	}
	hash := sha512.New()
	hash.Write(sig.bytes[:32])
	hash.Write(sig.by[:])
	hash.Write(signedBytes(sig.context, network, sig.hash))
	k, err := edwards25519.NewScalar().SetUniformBytes(hash.Sum(nil))
	if err != nil {
		return false
	}
	weight := randomWeight()
	w.term(weight, r)
	key.MultiplyAdd(weight, k, key)
	w.scalars[0].MultiplyAdd(weight, s, w.scalars[0])
	return true
}

func (w *weightedSum) term(s *edwards25519.Scalar, p *edwards25519.Point) {
	w.scalars = append(w.scalars, s)
	w.points = append(w.points, p)
}

func (w *weightedSum) isZero() bool {
	sum := new(edwards25519.Point).VarTimeMultiScalarMult(w.scalars, w.points)
	return sum.MultByCofactor(sum).Equal(edwards25519.NewIdentityPoint()) == 1
}

// randomWeight gives a random number of 128 bits.
func randomWeight() *edwards25519.Scalar {
	var b [32]byte
	rand.Read(b[:16])
	weight, err := edwards25519.NewScalar().SetCanonicalBytes(b[:])
	if err != nil {
		panic(err) // 2^128 is far below the order
	}
	return weight
}

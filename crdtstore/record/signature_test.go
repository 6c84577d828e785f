package record

import (
	"crypto/ed25519"
	"crypto/sha512"
	"testing"

	"filippo.io/edwards25519"
)

func signedBlock(t *testing.T, n int) *Block {
	t.Helper()
	u := fixedBundle(1, Digest{}, fixedWrite(n, n))
	b, err := ParseBlock(EncodeBlock([]Digest{genesisDigest()}, 2, u.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestVerifyTogether(t *testing.T) {
	network := fixedNetwork()
	var blocks []*Block
	for n := range 9 {
		blocks = append(blocks, signedBlock(t, n))
	}
	if !VerifyTogether(network, blocks) {
		t.Fatal("valid blocks are refused")
	}
	if VerifyTogether(NetworkID{1}, blocks) {
		t.Error("blocks of another network are valid")
	}
	for name, spoil := range map[string]func(*Block){
		"a bit of the signature": func(b *Block) { b.Sig[3] ^= 1 },
		"another's block":        func(b *Block) { b.Origin = KeyOf(fixedKey(50)) },
		"key of small order":     func(b *Block) { b.Origin, b.Sig = PublicKey{1}, append([]byte{1}, make([]byte, 63)...) },
		"short signature":        func(b *Block) { b.Sig = b.Sig[:63] },
		"an author's signature": func(b *Block) {
			b.Writes[0].Sign(fixedKey(51), network) // not the author
			b.Bundle.Sign(fixedKey(1), network, b.Links)
		},
	} {
		bad := signedBlock(t, 20)
		if spoil(bad); VerifyTogether(network, append(blocks[:4:4], bad)) || bad.Verify(network) == nil {
			t.Errorf("%s: valid", name)
		}
	}
}

// Signatures of many keys by turns, as several chains and relayed writes bring them.
func TestVerifyTogetherOfManyKeys(t *testing.T) {
	network := fixedNetwork()
	var blocks []*Block
	for n := range 12 {
		b := signedBlock(t, n)
		b.Bundle = &Bundle{Seq: 1, Origin: KeyOf(fixedKey(n % 3)), Writes: []*Write{relayedWrite(n%4, n), relayedWrite(n%5, n+1)}}
		b.Bundle.Sign(fixedKey(n%3), network, b.Links)
		blocks = append(blocks, b)
	}
	if !VerifyTogether(network, blocks) {
		t.Fatal("valid blocks are refused")
	}
	for i, b := range blocks {
		for _, s := range b.signatures(b.Links) {
			s.bytes[40] ^= 1
			if VerifyTogether(network, blocks) || b.Verify(network) == nil {
				t.Errorf("block %d is valid with a false signature of %s", i, s.by)
			}
			s.bytes[40] ^= 1
		}
	}
}

// Two false signatures whose faults cancel each other when they are added up.
func TestVerifyTogetherWeighsEachSignature(t *testing.T) {
	network, one, two := fixedNetwork(), signedBlock(t, 1), signedBlock(t, 2)
	if !VerifyTogether(network, []*Block{one, two}) {
		t.Fatal("valid blocks are refused")
	}
	fault, err := edwards25519.NewScalar().SetCanonicalBytes(append([]byte{1}, make([]byte, 31)...))
	if err != nil {
		t.Fatal(err)
	}
	for b, shift := range map[*Block]func(s, x, y *edwards25519.Scalar) *edwards25519.Scalar{
		one: (*edwards25519.Scalar).Add, two: (*edwards25519.Scalar).Subtract,
	} {
		s, err := edwards25519.NewScalar().SetCanonicalBytes(b.Sig[32:])
		if err != nil {
			t.Fatal(err)
		}
		copy(b.Sig[32:], shift(s, s, fault).Bytes())
	}
	if VerifyTogether(network, []*Block{one, two}) {
		t.Error("two false signatures are valid together")
	}
}

// A key's owner can make signatures that some programs take and others refuse. Here one by one and together must agree.
func TestSignatureWithAPointOfSmallOrder(t *testing.T) {
	network, b := fixedNetwork(), signedBlock(t, 1)
	priv := fixedKey(1)
	message := signedBytes(bundleContext, network, b.signedHash(b.Links))
	b.Sig = torsion(t, priv, message)
	if ed25519.Verify(priv.Public().(ed25519.PublicKey), message, b.Sig) {
		t.Fatal("crypto/ed25519 takes it: it tells nothing")
	}
	if err := b.Verify(network); err != nil {
		t.Errorf("refused alone: %v", err)
	}
	if !VerifyTogether(network, []*Block{b, signedBlock(t, 2)}) {
		t.Error("refused with another")
	}
}

// torsion signs with a point of order 8 added to R.
func torsion(t *testing.T, priv ed25519.PrivateKey, message []byte) []byte {
	t.Helper()
	seed := sha512.Sum512(priv.Seed())
	a, err := edwards25519.NewScalar().SetBytesWithClamping(seed[:32])
	if err != nil {
		t.Fatal(err)
	}
	order8, err := new(edwards25519.Point).SetBytes(smallOrder[2][:])
	if err != nil {
		t.Fatal(err)
	}
	nonce := sha512.Sum512([]byte("a nonce"))
	r, _ := edwards25519.NewScalar().SetUniformBytes(nonce[:])
	point := new(edwards25519.Point).ScalarBaseMult(r)
	sig := point.Add(point, order8).Bytes()
	challenge := sha512.Sum512(append(append(sig[:32:32], priv.Public().(ed25519.PublicKey)...), message...))
	k, _ := edwards25519.NewScalar().SetUniformBytes(challenge[:])
	return append(sig, edwards25519.NewScalar().MultiplyAdd(k, a, r).Bytes()...)
}

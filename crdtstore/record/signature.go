package record

import (
	"crypto/ed25519"

	"github.com/hdevalence/ed25519consensus"
)

// Replicas must agree on which signatures are valid, whatever checks them, one by one or many at once. RFC 8032 leaves
// that open and crypto/ed25519 promises nothing, so signatures are valid by the rules of ZIP 215.

// signature is one that a record carries.
type signature struct {
	by      PublicKey
	context string // says what is signed
	hash    [32]byte
	bytes   []byte
}

func (s *signature) fits(network NetworkID) bool {
	return s.by.Verify(s.context, network, s.hash, s.bytes)
}

// Verify checks an Ed25519 signature over context, then network, then hash. It is the one form of signature that
// records use: the context says what is signed, the network keeps signatures from being replayed elsewhere.
func (k PublicKey) Verify(context string, network NetworkID, hash [32]byte, sig []byte) bool {
	return len(sig) == ed25519.SignatureSize && k.Check() == nil &&
		ed25519consensus.Verify(k[:], signedBytes(context, network, hash), sig)
}

// Sign makes the signature that Verify checks.
func Sign(priv ed25519.PrivateKey, context string, network NetworkID, hash [32]byte) []byte {
	return ed25519.Sign(priv, signedBytes(context, network, hash))
}

func signedBytes(context string, network NetworkID, hash [32]byte) []byte {
	b := make([]byte, 0, len(context)+64)
	b = append(b, context...)
	b = append(b, network[:]...)
	return append(b, hash[:]...)
}

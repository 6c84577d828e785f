package acl

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"

	"syncagent/crdtstore/record"
)

const (
	policyContext = "syncagent policy v1\n"

	// MaxSigned bounds a text with its signatures, in bytes.
	MaxSigned = MaxText + maxSignatures*256

	maxSignatures = record.MaxAdmins
)

// Signature is one admin's signature under a policy text.
type Signature struct {
	Admin record.PublicKey
	Sig   []byte
}

// Signed is a policy text with signatures. That it parsed does not mean that a signature is good: SignedBy says so.
type Signed struct {
	Text       []byte // without the signature lines; read only
	File       *File
	Serial     uint64
	Network    record.NetworkID
	Hash       [32]byte // SHA-256 of Text: the name of the policy
	Signatures []Signature
}

// split cuts the signature lines off the end of a policy file. Empty lines after them do not count.
func split(b []byte) (text []byte, signatures []string) {
	end := len(b)
	for rest := b; len(rest) > 0; {
		start := bytes.LastIndexByte(rest[:len(rest)-1], '\n') + 1
		line := string(rest[start:])
		switch {
		case isSignatureLine(line):
			signatures = append(signatures, line)
			end = start
		case strings.TrimSpace(line) != "" || len(signatures) > 0:
			slices.Reverse(signatures)
			return b[:end], signatures
		}
		rest = rest[:start]
	}
	slices.Reverse(signatures)
	return b[:end], signatures
}

func isSignatureLine(line string) bool {
	if !strings.HasPrefix(strings.TrimLeft(line, " \t"), "signature") {
		return false // most lines, and those of a megabyte: not worth splitting
	}
	fields := fieldsOf(strings.TrimRight(line, "\r\n"))
	return len(fields) > 0 && fields[0].text == "signature" && !isRule(fields)
}

// Unsigned gives the text without any signature lines, wherever somebody left them: an edited text is to be signed
// anew. The result does not share memory with b.
func Unsigned(b []byte) []byte {
	text := make([]byte, 0, len(b))
	for line := range bytes.Lines(b) {
		if !isSignatureLine(string(line)) {
			text = append(text, line...)
		}
	}
	return text
}

// ParseSigned reads a policy file: the text, then one or more lines `signature ADMIN BASE64`, in the one form that
// Encode gives. The text must have a network and a serial line. It does not check signatures. Limits are checked before
// anything is parsed. The result does not share memory with b.
func ParseSigned(b []byte) (*Signed, error) {
	if len(b) > MaxSigned {
		return nil, fmt.Errorf("policy of %d bytes, the limit is %d", len(b), MaxSigned)
	}
	b = bytes.Clone(b)
	text, lines := split(b)
	switch {
	case len(lines) == 0:
		return nil, errors.New("policy is not signed")
	case len(lines) > maxSignatures:
		return nil, fmt.Errorf("policy has %d signatures, the limit is %d", len(lines), maxSignatures)
	}
	s := &Signed{Text: text[:len(text):len(text)], Hash: sha256.Sum256(text)}
	for _, line := range lines {
		sig, err := parseSignature(line)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(s.Signatures, func(o Signature) bool { return o.Admin == sig.Admin }) {
			return nil, fmt.Errorf("policy is signed twice by %s", sig.Admin)
		}
		s.Signatures = append(s.Signatures, sig)
	}
	if !bytes.Equal(s.Encode(), b) {
		return nil, errors.New("signature lines are not in canonical form")
	}
	var err error
	if s.File, err = Parse(text); err != nil {
		return nil, err
	}
	s.Network, s.Serial = s.File.Network, s.File.Serial
	if s.Network == (record.NetworkID{}) || s.Serial == 0 {
		return nil, errors.New("a signed policy needs a network and a serial line")
	}
	return s, nil
}

func parseSignature(line string) (s Signature, err error) {
	parts := strings.Fields(line)
	if len(parts) != 3 {
		return s, errors.New("signature line: want `signature ADMIN BASE64`")
	}
	if s.Admin, err = parseKey(parts[1]); err != nil {
		return s, fmt.Errorf("signature line: %w", err)
	}
	s.Sig, err = base64.StdEncoding.Strict().DecodeString(parts[2])
	if err != nil || len(s.Sig) != ed25519.SignatureSize {
		return s, errors.New("signature line: want 64 bytes in base64")
	}
	return s, nil
}

// Encode gives the file that ParseSigned read, byte for byte.
func (s *Signed) Encode() []byte {
	b := make([]byte, 0, len(s.Text)+160*len(s.Signatures))
	b = append(b, s.Text...)
	for _, sig := range s.Signatures {
		b = fmt.Appendf(b, "signature %s %s\n", sig.Admin, base64.StdEncoding.EncodeToString(sig.Sig))
	}
	return b
}

// Sign gives the policy file with the admin's signature added, for this network. Signature lines at the end of text
// that still fit are kept, others are dropped. It does not parse the text: the tool has checked it before.
func Sign(text []byte, network record.NetworkID, admin ed25519.PrivateKey) []byte {
	body, lines := split(text)
	s := Signed{Text: bytes.Clone(body)}
	if n := len(s.Text); n > 0 && s.Text[n-1] != '\n' {
		s.Text = append(s.Text, '\n')
	}
	s.Hash = sha256.Sum256(s.Text)
	s.Signatures = []Signature{{record.KeyOf(admin), record.Sign(admin, policyContext, network, s.Hash)}}
	for _, line := range lines {
		sig, err := parseSignature(line)
		if err == nil && sig.Admin.Verify(policyContext, network, s.Hash, sig.Sig) {
			s.Signatures = append(s.Signatures, sig)
		}
	}
	slices.SortStableFunc(s.Signatures, func(a, b Signature) int { return record.CompareKeys(a.Admin, b.Admin) })
	s.Signatures = slices.CompactFunc(s.Signatures, func(a, b Signature) bool { return a.Admin == b.Admin })
	return s.Encode()
}

// SignedBy gives the first of these admins whose signature is good, if the text is for this network.
func (s *Signed) SignedBy(network record.NetworkID, admins []record.PublicKey) (record.PublicKey, bool) {
	if s == nil || s.Network != network {
		return record.PublicKey{}, false
	}
	for _, sig := range s.Signatures {
		if slices.Contains(admins, sig.Admin) && sig.Admin.Verify(policyContext, network, s.Hash, sig.Sig) {
			return sig.Admin, true
		}
	}
	return record.PublicKey{}, false
}

// Effective gives the text that is in force: of the highest serial, and among those of the highest hash. It gives nil
// for no texts. All of them must have passed SignedBy.
func Effective(texts []*Signed) *Signed {
	var in *Signed
	for _, s := range texts {
		if in == nil || s.Serial > in.Serial || s.Serial == in.Serial && bytes.Compare(s.Hash[:], in.Hash[:]) > 0 {
			in = s
		}
	}
	return in
}

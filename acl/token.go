package acl

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"syncagent/crdtstore/record"
)

// Limits of a join token.
const (
	MaxBootstrap = 32  // addresses
	MaxAddress   = 512 // bytes of an address
)

const (
	tokenContext = "syncagent token v1\n"
	tokenMagic   = "SAT1"
	tokenPrefix  = "sat1"
	maxToken     = 64 << 10 // characters; above what the other limits allow
	maxExpiry    = 1<<48 - 1
)

// ErrToken is wrapped by every error of ParseToken: the text is no join token, or it was cut off or changed.
var ErrToken = errors.New("invalid join token")

// Token is what a host needs to join a network. It is no secret and can be used again: it only says whom to trust, and
// a policy must name the host before it can do anything.
//
// Its text is "sat1" and the unpadded base64url form of
//
//	"SAT1" genesis(uvarint len, bytes)
//	pins(uvarint 1..64) admin[32]*pins ascending
//	addresses(uvarint 0..32) address(uvarint len, bytes)*addresses
//	serial(u64) hash[32] expires(u64 Unix milliseconds, not 0)
//	signer(u8, place among the admins of the genesis) sig[64]
//
// with sig = Ed25519(signer, "syncagent token v1\n" || networkID[32] || SHA-256(all before sig)). The network ID is the
// hash of the genesis and not sent.
type Token struct {
	Network      record.NetworkID // the ID of Genesis
	Genesis      record.Genesis
	Admins       []record.PublicKey // to be pinned
	Bootstrap    []string           // addresses of members, best first; not checked beyond being printable
	PolicySerial uint64             // of the policy in force: older ones are to be refused
	PolicyHash   [32]byte
	Expires      time.Time // in milliseconds
}

// Expired tells whether the token must no longer be used.
func (t *Token) Expired(now time.Time) bool { return !now.Before(t.Expires) }

// Sign gives the text of the token, signed by an admin of its genesis. Network is taken from Genesis. It fails if the
// key is not such an admin's or a field is beyond its limits.
func (t *Token) Sign(admin ed25519.PrivateKey) (string, error) {
	signer := slices.Index(t.Genesis.Admins, record.KeyOf(admin))
	if signer < 0 {
		return "", fmt.Errorf("sign join token: %s is no admin of the network's genesis", record.KeyOf(admin))
	}
	b := t.body(signer)
	b = append(b, record.Sign(admin, tokenContext, t.Genesis.ID(), sha256.Sum256(b))...)
	if _, err := parseToken(b); err != nil {
		return "", fmt.Errorf("sign join token: %w", err)
	}
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(b), nil
}

// body gives all before the signature.
func (t *Token) body(signer int) []byte {
	sized := func(b, v []byte) []byte { return append(binary.AppendUvarint(b, uint64(len(v))), v...) }
	pins := slices.Clone(t.Admins)
	slices.SortFunc(pins, record.CompareKeys)
	b := sized([]byte(tokenMagic), t.Genesis.Encode())
	b = binary.AppendUvarint(b, uint64(len(pins)))
	for _, k := range pins {
		b = append(b, k[:]...)
	}
	b = binary.AppendUvarint(b, uint64(len(t.Bootstrap)))
	for _, a := range t.Bootstrap {
		b = sized(b, []byte(a))
	}
	b = binary.BigEndian.AppendUint64(b, t.PolicySerial)
	b = append(b, t.PolicyHash[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(t.Expires.UnixMilli()))
	return append(b, byte(signer))
}

// ParseToken reads a token strictly and verifies its signature. White space around it does not count. Whether it has
// expired is for the caller to ask. Errors wrap ErrToken.
func ParseToken(s string) (*Token, error) {
	s = strings.TrimSpace(s)
	data, ok := strings.CutPrefix(s, tokenPrefix)
	if !ok || len(s) > maxToken {
		return nil, fmt.Errorf("%w: want sat1 and about 300 characters", ErrToken)
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(data)
	if err != nil || base64.RawURLEncoding.EncodeToString(b) != data { // the decoder skips line ends
		return nil, fmt.Errorf("%w: not base64url: was it cut off or broken into lines?", ErrToken)
	}
	return parseToken(b)
}

func parseToken(b []byte) (*Token, error) {
	r := reader{b: b}
	if string(r.bytes(len(tokenMagic))) != tokenMagic {
		r.fail("unknown version")
	}
	t := &Token{}
	genesis, err := record.ParseGenesis(r.sized(1 << 12))
	if err != nil {
		r.fail("genesis: %w", err)
	}
	t.Genesis, t.Network = genesis, genesis.ID()
	t.Admins = r.pins()
	t.Bootstrap = r.addresses()
	t.PolicySerial = r.u64()
	copy(t.PolicyHash[:], r.bytes(32))
	expires := r.u64()
	if expires == 0 || expires > maxExpiry || t.PolicySerial > MaxSerial {
		r.fail("expiry or serial out of range")
	}
	t.Expires = time.UnixMilli(int64(min(expires, maxExpiry))).UTC()
	signer := r.bytes(1)
	body := b[:len(b)-len(r.b)]
	sig := r.bytes(ed25519.SignatureSize)
	if len(r.b) > 0 {
		r.fail("trailing bytes")
	}
	if r.err != nil {
		return nil, r.err
	}
	if i := int(signer[0]); i >= len(genesis.Admins) ||
		!genesis.Admins[i].Verify(tokenContext, t.Network, sha256.Sum256(body), sig) {
		return nil, fmt.Errorf("%w: the signature does not fit: the token was changed", ErrToken)
	}
	return t, nil
}

// reader takes the fields of a token off the front of its bytes. The first fault sticks; what is read after it is zero.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %w", ErrToken, fmt.Errorf(format, args...))
	}
}

// bytes gives the next n bytes, none after a fault.
func (r *reader) bytes(n int) []byte {
	if n > len(r.b) {
		r.fail("it is cut off")
	}
	if r.err != nil {
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) u64() uint64 {
	if v := r.bytes(8); v != nil {
		return binary.BigEndian.Uint64(v)
	}
	return 0
}

// count reads a minimal uvarint of at most limit.
func (r *reader) count(limit int) int {
	if r.err != nil {
		return 0
	}
	v, n := binary.Uvarint(r.b)
	if n <= 0 || n > 1 && r.b[n-1] == 0 || v > uint64(limit) {
		r.fail("bad length")
		return 0
	}
	r.b = r.b[n:]
	return int(v)
}

func (r *reader) sized(limit int) []byte { return r.bytes(r.count(limit)) }

func (r *reader) pins() (pins []record.PublicKey) {
	n := r.count(record.MaxAdmins)
	if n == 0 {
		r.fail("no admin key to pin")
	}
	for range n {
		var k record.PublicKey
		copy(k[:], r.bytes(len(k)))
		if err := k.Check(); err != nil {
			r.fail("admin key: %w", err)
		}
		if len(pins) > 0 && record.CompareKeys(pins[len(pins)-1], k) >= 0 {
			r.fail("admin keys are not ascending")
		}
		pins = append(pins, k)
	}
	return pins
}

func (r *reader) addresses() (addresses []string) {
	for range r.count(MaxBootstrap) {
		a := r.sized(MaxAddress)
		if len(a) == 0 || bytes.ContainsFunc(a, func(c rune) bool { return c <= ' ' || c > '~' }) {
			r.fail("bad address")
		}
		addresses = append(addresses, string(a))
	}
	return addresses
}

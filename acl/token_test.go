package acl

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"syncagent/crdtstore/record"
)

func testToken() Token {
	g := record.Genesis{Nonce: [32]byte{1}, Admins: []record.PublicKey{key("admin"), key("second")}}
	slices.SortFunc(g.Admins, record.CompareKeys)
	pins := []record.PublicKey{key("admin"), key("third")}
	slices.SortFunc(pins, record.CompareKeys)
	return Token{
		Network: g.ID(), Genesis: g, Admins: pins,
		Bootstrap:    []string{"/ip4/10.0.0.1/tcp/7424/p2p/" + key("web1").String(), "db-1:7424", "/dns4/a.example/udp/1/quic-v1"},
		PolicySerial: 42, PolicyHash: [32]byte{5}, Expires: time.UnixMilli(1_800_000_000_123).UTC(),
	}
}

func mustToken(t testing.TB, tok Token, admin string) string {
	t.Helper()
	s, err := tok.Sign(private(admin))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestToken(t *testing.T) {
	want := testToken()
	for _, admin := range []string{"admin", "second"} {
		s := mustToken(t, want, admin)
		for _, text := range []string{s, s + "\n", "  " + s + "\r\n"} {
			got, err := ParseToken(text)
			if err != nil || !reflect.DeepEqual(*got, want) {
				t.Errorf("got %+v, %v\nwant %+v", got, err, want)
			}
		}
	}
	unordered := want
	unordered.Admins = []record.PublicKey{want.Admins[1], want.Admins[0]}
	unordered.Network = record.NetworkID{}
	if mustToken(t, unordered, "admin") != mustToken(t, want, "admin") {
		t.Error("the order of pins matters")
	}
	want.Bootstrap = nil
	if got, err := ParseToken(mustToken(t, want, "admin")); err != nil || !reflect.DeepEqual(*got, want) {
		t.Errorf("without addresses: %+v, %v", got, err)
	}
}

func TestTokenExpires(t *testing.T) {
	tok := testToken()
	for d, want := range map[time.Duration]bool{-time.Millisecond: false, 0: true, time.Hour: true} {
		if tok.Expired(tok.Expires.Add(d)) != want {
			t.Errorf("%v after its expiry: %v", d, !want)
		}
	}
}

func TestTokenSignRefuses(t *testing.T) {
	for name, change := range map[string]func(*Token){
		"no pins":            func(tok *Token) { tok.Admins = nil },
		"pin twice":          func(tok *Token) { tok.Admins = append(tok.Admins, tok.Admins[0]) },
		"weak pin":           func(tok *Token) { tok.Admins = append(tok.Admins, record.PublicKey{1}) },
		"no expiry":          func(tok *Token) { tok.Expires = time.UnixMilli(0) },
		"before 1970":        func(tok *Token) { tok.Expires = time.Time{} },
		"empty address":      func(tok *Token) { tok.Bootstrap = []string{""} },
		"address with space": func(tok *Token) { tok.Bootstrap = []string{"a b"} },
		"long address":       func(tok *Token) { tok.Bootstrap = []string{strings.Repeat("a", MaxAddress+1)} },
		"many addresses":     func(tok *Token) { tok.Bootstrap = slices.Repeat([]string{"a"}, MaxBootstrap+1) },
		"genesis unordered":  func(tok *Token) { slices.Reverse(tok.Genesis.Admins) },
		"not an admin":       func(tok *Token) { tok.Genesis.Admins = []record.PublicKey{key("second")} },
	} {
		tok := testToken()
		change(&tok)
		if s, err := tok.Sign(private("admin")); err == nil {
			t.Errorf("%s: %s", name, s)
		}
	}
	full := testToken()
	full.Bootstrap = slices.Repeat([]string{strings.Repeat("a", MaxAddress)}, MaxBootstrap)
	if _, err := ParseToken(mustToken(t, full, "admin")); err != nil {
		t.Errorf("a token at the limits: %v", err)
	}
}

func TestParseTokenRefuses(t *testing.T) {
	tok := testToken()
	good := mustToken(t, tok, "admin")
	raw, _ := base64.RawURLEncoding.DecodeString(good[4:])
	encode := func(b []byte) string { return tokenPrefix + base64.RawURLEncoding.EncodeToString(b) }
	bad := map[string]string{
		"empty": "", "prefix": "sat1", "other prefix": "sat2" + good[4:], "upper case": "SAT1" + good[4:],
		"line end inside": good[:40] + "\n" + good[40:], "space inside": good[:40] + " " + good[40:],
		"padding": good + "==", "more": encode(append(slices.Clone(raw), 0)), "cut off": good[:len(good)-4],
		"very long":   "sat1" + strings.Repeat("A", 1<<20),
		"huge count":  encode(slices.Concat(raw[:4], []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, raw[5:])),
		"long varint": encode(slices.Concat(raw[:4], []byte{raw[4] | 0x80, 0}, raw[5:])),
	}
	for name, s := range bad {
		if got, err := ParseToken(s); got != nil || !errors.Is(err, ErrToken) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	for i := range raw { // each byte counts: magic, lengths, signed fields, signature
		changed := slices.Clone(raw)
		changed[i] ^= 1
		if _, err := ParseToken(encode(changed)); !errors.Is(err, ErrToken) {
			t.Fatalf("byte %d changed: %v", i, err)
		}
		if _, err := ParseToken(encode(raw[:i])); !errors.Is(err, ErrToken) {
			t.Fatalf("cut off after %d bytes: %v", i, err)
		}
	}
}

// A signature of another kind, by another key or for another network is none.
func TestTokenSignature(t *testing.T) {
	tok := testToken()
	signer := slices.Index(tok.Genesis.Admins, key("admin"))
	body := tok.body(signer)
	hash := sha256.Sum256(body)
	for name, sig := range map[string][]byte{
		"other context": record.Sign(private("admin"), policyContext, tok.Network, hash),
		"other network": record.Sign(private("admin"), tokenContext, record.NetworkID{}, hash),
		"other admin":   record.Sign(private("second"), tokenContext, tok.Network, hash),
		"pin only":      record.Sign(private("third"), tokenContext, tok.Network, hash),
	} {
		if _, err := parseToken(append(slices.Clone(body), sig...)); !errors.Is(err, ErrToken) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Well signed, but not in the one form.
	for name, body := range map[string][]byte{
		"signer beyond the admins": append(slices.Clone(body[:len(body)-1]), 2),
		"long varint":              slices.Concat(body[:4], []byte{body[4] | 0x80, 0}, body[5:]),
	} {
		sig := record.Sign(private("admin"), tokenContext, tok.Network, sha256.Sum256(body))
		if _, err := parseToken(append(body, sig...)); !errors.Is(err, ErrToken) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := parseToken(append(body, record.Sign(private("admin"), tokenContext, tok.Network, hash)...)); err != nil {
		t.Errorf("good one: %v", err)
	}
}

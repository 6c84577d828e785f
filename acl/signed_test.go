package acl

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"

	"syncagent/crdtstore/record"
)

func TestSignAndParse(t *testing.T) {
	text := header(7) + "* /x read\n"
	b := Sign([]byte(text), testNetwork, private("admin"))
	s, err := ParseSigned(b)
	if err != nil {
		t.Fatal(err)
	}
	if string(s.Text) != text || s.Serial != 7 || s.Network != testNetwork || len(s.File.Rules) != 1 {
		t.Errorf("got %+v", s)
	}
	if !bytes.Equal(s.Encode(), b) {
		t.Error("encodes to other bytes")
	}
	pins := []record.PublicKey{key("other"), key("admin")}
	if k, ok := s.SignedBy(testNetwork, pins); !ok || k != key("admin") {
		t.Error("the signature does not count")
	}
	if !bytes.Equal(Sign(b, testNetwork, private("admin")), b) {
		t.Error("signing again changes the file")
	}
	b[0] = 'x' // the caller may reuse its buffer
	if s.Text[0] == 'x' {
		t.Error("text shares memory with the input")
	}
}

func TestSignKeepsOnlySignaturesThatFit(t *testing.T) {
	both := Sign(Sign([]byte(header(1)), testNetwork, private("admin")), testNetwork, private("second"))
	s, err := ParseSigned(both)
	if err != nil || len(s.Signatures) != 2 {
		t.Fatalf("%v, %v", s, err)
	}
	for _, name := range []string{"admin", "second"} {
		if _, ok := s.SignedBy(testNetwork, []record.PublicKey{key(name)}); !ok {
			t.Errorf("the signature of %s is gone", name)
		}
	}
	if swapped := Sign(Sign([]byte(header(1)), testNetwork, private("second")), testNetwork, private("admin")); !bytes.Equal(both, swapped) {
		t.Error("the file depends on who signed first")
	}
	edited := bytes.Replace(both, []byte("serial 1"), []byte("serial 2"), 1)
	if s, err = ParseSigned(Sign(edited, testNetwork, private("admin"))); err != nil || len(s.Signatures) != 1 {
		t.Errorf("edited text: %v, %v", s, err)
	}
	// Blank lines that an editor left at the end, a last line without an end, other line ends.
	for _, text := range []string{string(both) + "\n \n", strings.TrimSpace(string(both)), strings.ReplaceAll(string(both), "\n", "\r\n")} {
		if _, err = ParseSigned(Sign([]byte(text), testNetwork, private("admin"))); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestSignedByRefuses(t *testing.T) {
	good := signed(t, 1, "* /x read\n")
	admin := []record.PublicKey{key("admin")}
	other := record.NetworkID{7}
	weak := record.PublicKey{1}
	// For a key of small order anybody can make a signature: R = the neutral element, S = 0.
	forged := append([]byte{1}, make([]byte, 63)...)
	for name, c := range map[string]struct {
		s       *Signed
		network record.NetworkID
		admins  []record.PublicKey
	}{
		"nothing":                  {nil, testNetwork, admin},
		"no pins":                  {good, testNetwork, nil},
		"other pin":                {good, testNetwork, []record.PublicKey{key("other")}},
		"other network":            {good, other, admin},
		"signed for other network": {mustSigned(t, Sign([]byte(header(1)), other, private("admin"))), testNetwork, admin},
		"line for one network, signature for another": {mustSigned(t, Sign([]byte(header(1)), other, private("admin"))), other, admin},
		"changed text": {mustSigned(t, bytes.Replace(good.Encode(), []byte("/x"), []byte("/y"), 1)), testNetwork, admin},
		"changed signer": {
			mustSigned(t, bytes.Replace(good.Encode(), []byte(key("admin").String()), []byte(key("other").String()), 1)),
			testNetwork, []record.PublicKey{key("admin"), key("other")},
		},
		"weak key": {
			&Signed{Network: testNetwork, Hash: good.Hash, Signatures: []Signature{{weak, forged}}},
			testNetwork, []record.PublicKey{weak},
		},
	} {
		if _, ok := c.s.SignedBy(c.network, c.admins); ok {
			t.Errorf("%s: counts as signed", name)
		}
	}
}

func mustSigned(t *testing.T, b []byte) *Signed {
	t.Helper()
	s, err := ParseSigned(b)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestParseSignedRefuses(t *testing.T) {
	text := header(1) + "* /x read\n"
	good := string(Sign([]byte(text), testNetwork, private("admin")))
	line := good[len(text):]
	sign := func(text string) string { return string(Sign([]byte(text), testNetwork, private("admin"))) }
	fields := strings.Fields(line)
	for _, c := range []struct{ name, file, msg string }{
		{"empty", "", "not signed"},
		{"unsigned", text, "not signed"},
		{"signature alone", line, "network and a serial"},
		{"no network", sign("serial 1\n"), "network and a serial"},
		{"no serial", sign("network " + testNetwork.String() + "\n"), "network and a serial"},
		{"bad text", sign(header(1) + "deny"), "deny is reserved"},
		{"signature first", line + good, "inside the text"},
		{"text after it", good + "* /y read\n", "not signed"},
		{"comment after it", good + "# ok\n", "not signed"},
		{"signature between", text + line + "# x\n" + line, "inside the text"},
		{"twice by one admin", good + line, "signed twice"},
		{"no end of line", strings.TrimSuffix(good, "\n"), "canonical"},
		{"CR LF", text + strings.TrimSuffix(line, "\n") + "\r\n", "canonical"},
		{"blank line after it", good + "\n", "canonical"},
		{"two spaces", text + strings.Replace(line, " ", "  ", 1), "canonical"},
		{"comment", text + strings.TrimSuffix(line, "\n") + " # x\n", "want `signature"},
		{"indented", text + " " + line, "canonical"},
		{"unpadded base64", text + strings.Replace(line, "==", "", 1), "base64"},
		{"stray bits in base64", text + fields[0] + " " + fields[1] + " " + stray(fields[2]) + "\n", "base64"},
		{"short signature", text + "signature " + key("a").String() + " AAAA\n", "base64"},
		{"signer", text + "signature admin " + fields[2] + "\n", "peer ID"},
		{"weak signer", text + "signature " + record.PublicKey{}.String() + " " + fields[2] + "\n", "small order"},
		{"nothing but the word", text + "signature\n", "want `signature"},
		{"too large", strings.Repeat("#", MaxSigned) + "\n" + line, "policy of"},
		{"text too large", sign(strings.Repeat("#", MaxText)), "the limit is"},
		{"too many signatures", text + many(65), "65 signatures"},
	} {
		if s, err := ParseSigned([]byte(c.file)); err == nil || !strings.Contains(err.Error(), c.msg) || s != nil {
			t.Errorf("%s: %v, want ...%s...", c.name, err, c.msg)
		}
	}
	if _, err := ParseSigned([]byte(text + many(64))); err != nil {
		t.Errorf("64 signatures: %v", err)
	}
	full := header(1) + strings.Repeat("#", MaxText-len(header(1))-1) + "\n"
	if _, err := ParseSigned([]byte(full + many(64))); err != nil {
		t.Errorf("a text of exactly %d bytes with 64 signatures: %v", MaxText, err)
	}
}

// stray sets a bit that the last character of a base64 text must not have.
func stray(s string) string { return strings.TrimSuffix(s, "==")[:len(s)-3] + "B==" }

func many(n int) (lines string) {
	for i := range n {
		lines += fmt.Sprintf("signature %s %s\n", key(fmt.Sprint(i)), base64.StdEncoding.EncodeToString(make([]byte, 64)))
	}
	return lines
}

func TestUnsigned(t *testing.T) {
	text := header(1) + "signature /x read\nsignature peer\n# signature x\n"
	signed := Sign([]byte(text), testNetwork, private("admin"))
	for _, b := range [][]byte{
		signed, []byte("signature a b\n" + string(signed)),
		bytes.Replace(signed, []byte("serial"), []byte("\tsignature\nserial"), 1), []byte(text),
	} {
		if got := string(Unsigned(b)); got != text {
			t.Errorf("got %q", got)
		}
	}
	if f := mustParse(t, string(signed)); len(f.Rules) != 2 {
		t.Error("a signed file cannot be parsed as a text")
	}
}

func TestEffective(t *testing.T) {
	var texts []*Signed
	for serial := 1; serial < 5; serial++ {
		for i := range 3 {
			texts = append(texts, signed(t, serial, fmt.Sprintf("# %d\n", i)))
		}
	}
	best := texts[9]
	for _, s := range texts[10:] {
		if bytes.Compare(s.Hash[:], best.Hash[:]) > 0 {
			best = s
		}
	}
	rng := newRand(t)
	for range 100 {
		rng.Shuffle(len(texts), func(i, j int) { texts[i], texts[j] = texts[j], texts[i] })
		if Effective(texts) != best {
			t.Fatal("the text in force depends on the order of arrival")
		}
	}
	if low := slices.DeleteFunc(texts, func(s *Signed) bool { return s.Serial == 4 }); Effective(low).Serial != 3 {
		t.Error("not the highest serial")
	}
}

package acl

import (
	"bytes"
	"strings"
	"testing"

	"syncagent/crdtstore/record"
)

// FuzzParse looks for crashes, and for edits and signatures that a valid text does not survive.
func FuzzParse(f *testing.F) {
	f.Add(fill(example))
	f.Add(string(InitialPolicy(testNetwork, "web1", key("web1"))))
	f.Add(fill("revoke $a\r\nkeep " + version(1, "w", 0).String() + "\nretired $b 2026-11-01T00:00:00Z\nformer $c\n"))
	f.Add("signature x\n\n# a\n{self} /{self} rw\n\t\n")
	f.Add("identity a /x r\nserial\nnetwork # x\n* /**/{x} r")
	f.Fuzz(func(t *testing.T, text string) {
		file, err := Parse([]byte(text))
		if err != nil {
			checkFaults(t, text, err)
			return
		}
		Lint(file)
		p := CompileFile(testNetwork, file)
		p.RunTests()
		for _, r := range file.Rules {
			path := expandSelf(r.Path, "a")
			tags := testNetwork.Tags(path)
			for _, id := range file.Identities {
				if path != "/" && p.MayRead(id.Key, tags) != p.MayReadPath(id.Key, path) {
					t.Errorf("%s at %s: tags and path give different answers", id.Alias, path)
				}
			}
		}
		headed := SetHeader([]byte(text), testNetwork, 7)
		if len(headed) > MaxText {
			return
		}
		s, err := ParseSigned(Sign(headed, testNetwork, private("admin")))
		if err != nil {
			t.Fatalf("valid text, signed: %v\n%q", err, headed)
		}
		if _, ok := s.SignedBy(testNetwork, []record.PublicKey{key("admin")}); !ok || s.Serial != 7 {
			t.Error("the signature does not count")
		}
		if len(s.File.Rules) != len(file.Rules) || len(s.File.Identities) != len(file.Identities) {
			t.Error("setting the header changed other lines")
		}
		// The key of "newcomer" may be in the text already.
		line := Identity{Alias: "newcomer", Key: key("newcomer")}.String()
		if admitted, err := Admit(headed, line, ""); err == nil {
			after := mustParse(t, string(admitted))
			if len(after.Rules) != len(file.Rules) || len(after.Identities) < len(file.Identities) {
				t.Error("admitting changed other lines")
			}
		}
	})
}

func checkFaults(t *testing.T, text string, err error) {
	t.Helper()
	lines := strings.Count(text, "\n") + 1
	for i, e := range err.(SyntaxErrors) {
		if e.Line < 1 || e.Line > lines || e.Col < 1 || e.Col > len(text)+1 || e.Msg == "" {
			t.Errorf("fault %+v", e)
		}
		if i > 0 && err.(SyntaxErrors)[i-1].Line > e.Line {
			t.Error("faults out of order")
		}
	}
}

// FuzzParseSigned holds that a file has one form, and that a change of any byte is seen.
func FuzzParseSigned(f *testing.F) {
	good := Sign([]byte(header(1)+fill(example)), testNetwork, private("admin"))
	f.Add(good)
	f.Add(Sign(good, testNetwork, private("second")))
	f.Add(append(bytes.Clone(good), '\n'))
	f.Add([]byte("signature a b\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ParseSigned(b)
		if err != nil {
			return
		}
		if !bytes.Equal(s.Encode(), b) {
			t.Error("encodes to other bytes")
		}
		if _, ok := s.SignedBy(testNetwork, []record.PublicKey{key("admin")}); ok && !bytes.HasPrefix(good, s.Text) {
			t.Errorf("a text that nobody signed: %q", s.Text)
		}
		again, err := ParseSigned(Sign(b, testNetwork, private("second")))
		if err != nil || again.Hash != s.Hash {
			t.Errorf("signed by another: %v", err)
		}
	})
}

// FuzzParseToken holds that a token has one form and that nobody makes one without a key.
func FuzzParseToken(f *testing.F) {
	tok := testToken()
	good := mustToken(f, tok, "admin")
	f.Add(good)
	tok.Bootstrap = nil
	f.Add(mustToken(f, tok, "second"))
	f.Add("sat1")
	f.Fuzz(func(t *testing.T, s string) {
		got, err := ParseToken(s)
		if err != nil {
			return
		}
		if got.Network != got.Genesis.ID() {
			t.Error("network and genesis differ")
		}
		for _, name := range []string{"admin", "second"} {
			if again, err := got.Sign(private(name)); err == nil && again == strings.TrimSpace(s) {
				return
			}
		}
		t.Errorf("encodes to other text: %q", s)
	})
}

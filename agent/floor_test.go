package agent

import (
	"crypto/ed25519"
	"crypto/sha256"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"syncagent/acl"
	"syncagent/crdtstore/record"
)

func TestPolicyFloorComesFromTheJoinToken(t *testing.T) {
	seed := sha256.Sum256([]byte("admin"))
	admin := ed25519.NewKeyFromSeed(seed[:])
	g := record.Genesis{Nonce: seed, Admins: []record.PublicKey{record.KeyOf(admin)}}
	token := acl.Token{Network: g.ID(), Genesis: g, Admins: g.Admins, PolicySerial: 7, PolicyHash: seed, Expires: time.Now().Add(time.Hour)}
	text, err := token.Sign(admin)
	if err != nil {
		t.Fatal(err)
	}
	c := DefaultConfig()
	c.File, c.Network = filepath.Join(t.TempDir(), "syncagent.yaml"), g.ID().String()
	if serial, _, err := policyFloor(&c); serial != 0 || err != nil {
		t.Errorf("without a token: %d, %v", serial, err)
	}
	for name, row := range map[string]struct {
		text   string
		serial uint64
		reason string
	}{
		"a good token":        {text + "\n", 7, ""},
		"a tampered token":    {strings.Replace(text, text[60:61], "_", 1), 0, "join token"},
		"something else":      {"hello", 0, "join token"},
		"a token cut in half": {text[:len(text)/2], 0, "join token"},
	} {
		if err := os.WriteFile(c.TokenFile(), []byte(row.text), 0o600); err != nil {
			t.Fatal(err)
		}
		serial, hash, err := policyFloor(&c)
		if row.reason == "" && (err != nil || serial != row.serial || hash != seed) {
			t.Errorf("%s: %d, %v", name, serial, err)
		}
		if row.reason != "" && (err == nil || !strings.Contains(err.Error(), row.reason)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	c.Network = record.NetworkID{1}.String()
	if err := os.WriteFile(c.TokenFile(), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := policyFloor(&c); err == nil || !strings.Contains(err.Error(), "network") {
		t.Errorf("a token of another network: %v", err)
	}
}

package record

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

func genesisOf(admins int) Genesis {
	g := Genesis{Nonce: fixedHash("nonce", 0)}
	for n := range admins {
		g.Admins = append(g.Admins, KeyOf(fixedKey(n)))
	}
	slices.SortFunc(g.Admins, CompareKeys)
	return g
}

func TestGenesis(t *testing.T) {
	for _, n := range []int{1, 2, MaxAdmins} {
		g := genesisOf(n)
		if got, err := ParseGenesis(g.Encode()); err != nil || got.ID() != g.ID() {
			t.Errorf("%d admins: %v", n, err)
		}
	}
	good := genesisOf(2).Encode()
	edited := func(edit func(*Genesis)) []byte { g := genesisOf(2); edit(&g); return g.Encode() }
	for _, tc := range []struct {
		name   string
		b      []byte
		reason string
	}{
		{"empty", nil, "magic"},
		{"magic", change(good, 0, 'X'), "magic"},
		{"no admin", genesisOf(0).Encode(), "no admin"},
		{"65 admins", genesisOf(MaxAdmins + 1).Encode(), "limit of 64"},
		{"descending", edited(func(g *Genesis) { slices.Reverse(g.Admins) }), "ascending"},
		{"twice the same", edited(func(g *Genesis) { g.Admins[1] = g.Admins[0] }), "ascending"},
		{"small order", edited(func(g *Genesis) { g.Admins[0] = PublicKey{1} }), "small order"},
		{"zero key", edited(func(g *Genesis) { g.Admins[0] = PublicKey{} }), "small order"},
		{"cut", good[:len(good)-1], "admin key"},
		{"longer", append(bytes.Clone(good), 0), "trailing"},
		{"count in two bytes", slices.Concat(good[:36], []byte{0x82, 0}, good[37:]), "not minimal"},
	} {
		_, err := ParseGenesis(tc.b)
		refused(t, tc.name, err, tc.reason)
	}
	other := genesisOf(2)
	other.Nonce[0]++
	if other.ID() == genesisOf(2).ID() || genesisOf(1).ID() == genesisOf(2).ID() {
		t.Error("two geneses, one network")
	}
}

func TestGenesisBlock(t *testing.T) {
	network := fixedNetwork()
	good := GenesisBlock(network, 0)
	if b, err := ParseGenesisBlock(good, network, 0); err != nil || b.Digest != DigestOf(good) || b.Bundle != nil {
		t.Errorf("got %+v, %v", b, err)
	}
	value := GenesisValue(network, 0)
	for name, raw := range map[string][]byte{
		"empty":           nil,
		"higher":          EncodeBlock(nil, 2, value),
		"with a link":     EncodeBlock([]Digest{{1}}, 1, value),
		"other value":     EncodeBlock(nil, 1, append(value, 0)),
		"other network":   GenesisBlock(NetworkID{}, 0),
		"other epoch":     GenesisBlock(network, 1),
		"a block":         fixedBlock(),
		"with a tail":     append(bytes.Clone(good), 0),
		"priority padded": append(bytes.Clone(good[:len(good)-1]), 0x81, 0),
	} {
		_, err := ParseGenesisBlock(raw, network, 0)
		refused(t, name, err, "genesis")
	}
	if _, err := ParseBlock(good); err == nil {
		t.Error("the genesis block passes as a block from outside")
	}
}

func TestNetworkIDText(t *testing.T) {
	s := fixedNetwork().String()
	for _, bad := range []string{
		"", s[:51], s + "a", strings.ToUpper(s), s[:51] + "1", " " + s[1:], s[:26] + "\n" + s[26:], s[:51] + "=",
		s[:51] + "b", // bits past the end
	} {
		if n, err := ParseNetworkID(bad); err == nil {
			t.Errorf("%q reads as %s", bad, n)
		}
	}
}

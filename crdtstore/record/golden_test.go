package record

import (
	"bytes"
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden vectors anew: a change of a frozen format")

// vectors are all formats, made by our writers from fixed keys. The files under testdata/golden are what they gave when
// the formats were frozen; a difference means that two versions of syncagent could no longer talk to each other.
func vectors() map[string][]byte {
	genesis, network := fixedGenesis(), fixedNetwork()
	put, del, chunked := fixedEntry(1), fixedDelete(), fixedChunked()
	list, err := ParseChunkList(chunked.Value)
	if err != nil {
		panic(err)
	}
	own, relayed := fixedWrite(1, 1, 2), relayedWrite(2, 3)
	id := func(v [32]byte) []byte { return v[:] }
	var tags []byte
	for _, t := range network.Tags(put.Path) {
		tags = append(tags, t[:]...)
	}
	return map[string][]byte{
		"genesis":        genesis.Encode(),
		"genesis.id":     id(network),
		"genesis.block":  GenesisBlock(network, 0),
		"genesis.digest": id(genesisDigest()),
		"put.entry":      put.Encode(),
		"put.stub":       put.Stub(),
		"put.id":         id(put.ID()),
		"put.tags":       tags,
		"delete.entry":   del.Encode(),
		"delete.id":      id(del.ID()),
		"chunked.entry":  chunked.Encode(),
		"chunked.stub":   chunked.Stub(),
		"chunked.id":     id(chunked.ID()),
		"chunk.list":     list.Encode(),
		"own.write":      own.Append(nil),
		"own.id":         id(own.ID()),
		"relayed.write":  relayed.Append(nil),
		"relayed.id":     id(relayed.ID()),
		"version":        Version{fixedHLC, own.ID(), 1}.Append(nil),
		"first.bundle":   fixedBundle(1, Digest{}, own, relayed).Encode(),
		"first.block":    fixedBlock(),
		"first.digest":   id(DigestOf(fixedBlock())),
		"merge.block":    mergeBlock(),
		"merge.digest":   id(DigestOf(mergeBlock())),
	}
}

func goldenFile(name string) string { return filepath.Join("testdata", "golden", name+".hex") }

// golden reads a vector: hexadecimal digits, broken into lines.
func golden(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(goldenFile(name))
	if err != nil {
		t.Fatal(err)
	}
	b, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return b
}

func TestGoldenWriters(t *testing.T) {
	all := vectors()
	for name, b := range all {
		if *update {
			writeGolden(t, name, b)
		}
		if want := golden(t, name); !bytes.Equal(b, want) {
			t.Errorf("%s:\n got %x\nwant %x", name, b, want)
		}
	}
	files, err := filepath.Glob(goldenFile("*"))
	if err != nil || len(files) != len(all) {
		t.Errorf("%d golden files for %d vectors (%v)", len(files), len(all), err)
	}
}

func writeGolden(t *testing.T, name string, b []byte) {
	t.Helper()
	var text strings.Builder
	for digits := hex.EncodeToString(b); len(digits) > 0; {
		n := min(len(digits), 96)
		text.WriteString(digits[:n] + "\n")
		digits = digits[n:]
	}
	if err := os.MkdirAll(filepath.Dir(goldenFile(name)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(goldenFile(name), []byte(text.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestGoldenParsers reads the vectors back and checks what they say, independent of our writers.
func TestGoldenParsers(t *testing.T) {
	network := fixedNetwork()
	if g, err := ParseGenesis(golden(t, "genesis")); err != nil || g.ID() != network || len(g.Admins) != 2 {
		t.Errorf("genesis: %+v, %v", g, err)
	}
	if b, err := ParseGenesisBlock(golden(t, "genesis.block"), network, 0); err != nil || b.Priority != 1 || b.Header() != (Header{Priority: 1}) {
		t.Errorf("genesis block: %+v, %v", b, err)
	}
	e, err := ParseEntry(golden(t, "put.entry"))
	if err != nil || e.Kind != KindPut || e.Mode != 0o640 || e.Path != "/certs/web1/tls.key" || string(e.Value) != "value 1" || e.Expires != 0 {
		t.Errorf("put: %+v, %v", e, err)
	}
	if e, err = ParseEntry(golden(t, "delete.entry")); err != nil || e.Kind != KindDelete || e.Path != "/certs/web7/tls.key" {
		t.Errorf("delete: %+v, %v", e, err)
	}
	if e, err = ParseEntry(golden(t, "chunked.entry")); err != nil || e.Size() != ChunkSize+1 || e.Expires != 1_800_000_000_000 {
		t.Errorf("chunked: %+v, %v", e, err)
	}
	for _, name := range []string{"put", "chunked"} {
		e, size, id, err := ParseStub(golden(t, name+".stub"))
		if err != nil || !bytes.Equal(id[:], golden(t, name+".id")) || size == 0 || e.Value != nil {
			t.Errorf("%s stub: %+v, %d bytes, %s, %v", name, e, size, id, err)
		}
	}
	b, err := ParseBlock(golden(t, "first.block"))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Verify(network); err != nil {
		t.Error(err)
	}
	if b.Priority != 2 || b.Seq != 1 || b.Incarnation != 0x1122334455667788 || b.SlotCount() != 3 || len(b.Writes) != 2 {
		t.Errorf("block: %+v", b.Bundle)
	}
	if b.Writes[0].Author != b.Origin || b.Writes[1].Author == b.Origin {
		t.Error("authors are wrong")
	}
	entry := fixedEntry(3)
	if s := b.Writes[1].Slots[0]; s.Entry != entry.ID() || !s.Matches(network, entry.Path) || s.PathKey() != network.PathKey(entry.Path) {
		t.Errorf("slot: %+v", s)
	}
	if m, err := ParseBlock(golden(t, "merge.block")); err != nil || m.Seq != 2 || m.Prev != b.Digest || len(m.Links) != 2 || m.SlotCount() != 0 {
		t.Errorf("merge block: %+v, %v", m, err)
	}
}

// TestGoldenText holds the forms that people and scripts see.
func TestGoldenText(t *testing.T) {
	network := fixedNetwork()
	v := Version{fixedHLC, fixedWrite(1, 1, 2).ID(), 1}
	for what, text := range map[string][2]string{
		"network": {network.String(), "mhevsrjhzc"},
		"peer ID": {KeyOf(fixedKey(1)).String(), "12D3KooW"},
		"CID":     {genesisDigest().String(), "bafybei"},
		"version": {v.String(), "0199000000000003-"},
		"hlc":     {fixedHLC.String(), "0199000000000003"},
	} {
		if !strings.HasPrefix(text[0], text[1]) {
			t.Errorf("%s: %q, want %q...", what, text[0], text[1])
		}
	}
	if n, err := ParseNetworkID(network.String()); err != nil || n != network {
		t.Errorf("network ID does not come back: %v", err)
	}
	if k, err := ParsePublicKey(KeyOf(fixedKey(1)).String()); err != nil || k != KeyOf(fixedKey(1)) {
		t.Errorf("peer ID does not come back: %v", err)
	}
	if d, err := DigestFromCID(genesisDigest().CID()); err != nil || d != genesisDigest() {
		t.Errorf("CID does not come back: %v", err)
	}
}

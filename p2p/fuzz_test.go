package p2p

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"syncagent/crdtstore/record"
)

// TestEveryParserIsFuzzed holds that no message of a peer is read by a parser that nobody fuzzes.
func TestEveryParserIsFuzzed(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var product, targets strings.Builder
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(name, "_test.go") {
			product.Write(text)
			continue
		}
		for _, target := range regexp.MustCompile(`(?ms)^func Fuzz.*?^}`).FindAll(text, -1) {
			targets.Write(target)
		}
	}
	parsers := regexp.MustCompile(`(?m)^func (parse\w+)\(\w+ \[\]byte`).FindAllStringSubmatch(product.String(), -1)
	if len(parsers) < 15 {
		t.Errorf("only %d parsers are found", len(parsers))
	}
	for _, m := range parsers {
		if !regexp.MustCompile(`\b` + m[1] + `\b`).MatchString(targets.String()) {
			t.Errorf("no target fuzzes %s", m[1])
		}
	}
}

func FuzzFrame(f *testing.F) {
	f.Add([]byte{frameHello, 0, 0, 0, 1, 7})
	f.Add([]byte{frameHello, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := newFrames(pipe{bytes.NewReader(b), nil}, nil)
		var back bytes.Buffer
		w := newFrames(pipe{nil, &back}, nil)
		for {
			kind, payload, err := r.read(time.Second)
			if err != nil {
				break
			}
			if err := w.write(kind, payload); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.HasPrefix(b, back.Bytes()) {
			t.Fatal("frames do not write as they were read")
		}
	})
}

// fuzzParser: whatever is parsed encodes to the same bytes, and nothing crashes.
func fuzzParser[T any](f *testing.F, parse func([]byte) (T, error), encode func(T) []byte, seeds ...T) {
	f.Helper()
	for _, s := range seeds {
		b := encode(s)
		if _, err := parse(b); err != nil {
			f.Fatalf("seed %v: %v", s, err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := parse(b)
		if err != nil {
			if !errors.Is(err, errFrame) {
				t.Fatalf("error of a foreign kind: %v", err)
			}
			return
		}
		if back := encode(v); !bytes.Equal(back, b) {
			t.Fatalf("%x parses and encodes to %x", b, back)
		}
	})
}

func FuzzHello(f *testing.F) {
	fuzzParser(f, parseHello, (*hello).encode, &hello{}, &hello{Network: testNetwork, Format: 1, Milli: 5, Incarnation: 6, Version: "1.0", Name: "a", Record: []byte{1}})
}

func FuzzDigestNote(f *testing.F) {
	fuzzParser(f, parseDigestNote, digestNote.encode, digestNote{}, digestNote{Ask: true, Serial: 7, Digest: [32]byte{1}})
}

// FuzzVector fuzzes what is inside the compression; the decompressor has fuzz tests of its own.
func FuzzVector(f *testing.F) {
	plain := func(v []record.Position) []byte {
		var b []byte
		for _, p := range encodeVector(v) {
			raw, err := decompress(p)
			if err != nil {
				f.Fatal(err)
			}
			b = append(b, raw...)
		}
		return b
	}
	fuzzParser(f, parseVector, plain, nil, []record.Position{{Incarnation: 1, Seq: 2, Mark: [8]byte{3}}, {Seq: 1}})
}

// FuzzCompressed feeds raw bytes to the decompressor and every parser behind it.
func FuzzCompressed(f *testing.F) {
	f.Add(compress([]byte("x")))
	f.Add(compress(make([]byte, maxPolicyText+1)))
	f.Fuzz(func(t *testing.T, b []byte) {
		raw, err := decompress(b)
		if err != nil {
			return
		}
		if len(raw) > maxPolicyText {
			t.Fatalf("%d bytes came out", len(raw))
		}
		_, _ = parseVector(raw)
		_, _ = parseParcels(raw)
		_, _ = parseAnswers(raw)
	})
}

func FuzzViewNote(f *testing.F) {
	fuzzParser(f, parseViewNote, viewNote.encode, viewNote{}, viewNote{Settled: true, Blocks: [32]byte{1}, Policy: [32]byte{2}, View: [32]byte{3}})
}

// FuzzProgress fuzzes questions how far a write is, and the same bytes as the answer to one about two writes.
func FuzzProgress(f *testing.F) {
	f.Add(encodeQuestion(StageMirrored, []Placed{{"/a", record.Version{HLC: 1}}, {"/b/c", record.Version{Index: 2}}}))
	f.Add(encodeAnswer(Progress{Fault: "f", Of: []Reached{{Stage: StageStored, Unmirrored: true}, {Stage: StageTriggered, Shown: record.Version{HLC: 3}}}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if want, of, err := parseQuestion(b); err == nil && !bytes.Equal(encodeQuestion(want, of), b) {
			t.Fatalf("%x is read as a question for %d of %v", b, want, of)
		}
		if p, err := parseAnswer(b, 2); err == nil && (len(p.Of) != 2 || visible([]byte(p.Fault)) != p.Fault) {
			t.Fatalf("%x is read as the answer %+v", b, p)
		}
	})
}

// FuzzCompare fuzzes what is inside the compression of both steps of a comparison. Empty buckets follow the bytes, as 80 KB
// of others would slow the fuzzer down.
func FuzzCompare(f *testing.F) {
	f.Add(viewNote{Settled: true}.encode())
	f.Add(appendBlob(record.Version{HLC: 1, Index: 2}.Append(nil), []byte("/a")))
	f.Fuzz(func(t *testing.T, b []byte) {
		raw := slices.Concat(b, make([]byte, buckets*bucketSize))
		if sums, err := parseBuckets(compress(raw)); err == nil {
			if back, err := decompress(sums.encode()); err != nil || !bytes.Equal(back, raw) {
				t.Fatalf("%x is read as %+v", b, sums.note)
			}
		}
		if list, err := parseListed(compress(b)); err == nil {
			var back []byte
			for _, e := range list {
				back = appendBlob(e.Version.Append(back), []byte(e.Path))
			}
			if !bytes.Equal(back, b) {
				t.Fatalf("%x is read as %v", b, list)
			}
		}
	})
}

func FuzzDigests(f *testing.F) {
	fuzzParser(f, parseDigests, encodeDigests, nil, []record.Digest{{1}, {2}})
}

func FuzzParcels(f *testing.F) {
	encode := func(ps []record.Parcel) []byte {
		var b []byte
		for _, p := range ps {
			b = appendParcel(b, p)
		}
		return b
	}
	fuzzParser(f, parseParcels, encode, []record.Parcel{{Block: []byte{1}}, {Entries: [][]byte{{}, {2}}}})
}

func FuzzWants(f *testing.F) {
	fuzzParser(f, parseWants, encodeWants, []record.Want{{PathKey: record.Tag{1}, Version: record.Version{HLC: 5, Index: 3}}})
}

func FuzzAnswers(f *testing.F) {
	encode := func(as []record.Answer) []byte {
		var b []byte
		for _, a := range as {
			b = appendAnswer(b, a)
		}
		return b
	}
	fuzzParser(f, parseAnswers, encode, []record.Answer{{}, {Status: record.Here, Entry: []byte{1}}, {Status: record.Denied}})
}

func FuzzRecords(f *testing.F) {
	fuzzParser(f, parseRecords, encodeRecords, nil, [][]byte{{1}, {}})
}

func FuzzAddressRecord(f *testing.F) {
	f.Add([]byte("x"))
	f.Fuzz(func(t *testing.T, b []byte) { _, _, _ = openRecord(b) })
}

func FuzzPolicyHaves(f *testing.F) {
	f.Add(encodeHaves([][]byte{{1}, {2}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := parseHaves(b); err == nil && len(h) > maxHaves {
			t.Fatal("too many")
		}
	})
}

func FuzzGossip(f *testing.F) {
	// Seeds are the same in every process of the fuzzer.
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	r := newFake(key, nil)
	e := record.Entry{Kind: record.KindPut, Path: "/a", Value: []byte("v")}
	w := &record.Write{Author: r.self, HLC: 1, Slots: []record.Slot{{Entry: e.ID(), Tags: testNetwork.Tags("/a")}}}
	block := r.seal(&record.Bundle{Origin: r.self, Incarnation: 1, Seq: 1, Writes: []*record.Write{w}}, r.sortedHeads())
	f.Add(appendParcel(make([]byte, nonceSize), record.Parcel{Block: block.Raw}))
	f.Add(appendParcel(make([]byte, nonceSize), record.Parcel{Block: block.Raw, Entries: [][]byte{e.Encode()}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		g, err := parseGossip(b)
		if err == nil && (len(g.blocks) == 0 || len(g.blocks) != len(g.parcels)) {
			t.Fatal("a message without blocks is accepted")
		}
	})
}

func FuzzTarget(f *testing.F) {
	for _, s := range []string{"host:1", "/ip4/1.2.3.4/tcp/1", "/dns4/x/udp/1/quic-v1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if x, err := parseTarget(s); err == nil && x.id == "" {
			if _, err := hostPort(x.addr); err != nil {
				t.Fatalf("%q can be a target but not dialled: %v", s, err)
			}
		}
	})
}

package p2p

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"io"
	"reflect"
	"testing"
	"time"

	"syncagent/crdtstore/record"
)

// pipe is a stream whose bytes are all there already.
type pipe struct {
	io.Reader
	io.Writer
}

func (pipe) SetReadDeadline(time.Time) error  { return nil }
func (pipe) SetWriteDeadline(time.Time) error { return nil }

func TestFramesRoundTrip(t *testing.T) {
	var b bytes.Buffer
	f := newFrames(pipe{&b, &b}, nil)
	payloads := [][]byte{{}, {1}, make([]byte, 64<<10), make([]byte, 64<<10+1), make([]byte, maxFrame)}
	for i, p := range payloads {
		if err := f.write(byte(i), p); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.write(0, make([]byte, maxFrame+1)); err == nil {
		t.Error("a frame over the limit is written")
	}
	for i, p := range payloads {
		kind, got, err := f.read(time.Second)
		if err != nil || kind != byte(i) || len(got) != len(p) {
			t.Errorf("frame %d: kind %d, %d bytes, %v; want %d bytes", i, kind, len(got), err, len(p))
		}
	}
	if _, _, err := f.read(time.Second); err != io.EOF {
		t.Errorf("at the end: %v, want EOF", err)
	}
}

func TestBrokenFrames(t *testing.T) {
	for name, c := range map[string]struct {
		b    []byte
		want error
	}{
		"half header":  {[]byte{1, 0, 0}, io.ErrUnexpectedEOF},
		"half payload": {[]byte{1, 0, 0, 0, 2, 9}, io.ErrUnexpectedEOF},
		"half of much": {append([]byte{1, 0, 0x0f, 0, 0}, make([]byte, 100)...), io.ErrUnexpectedEOF},
		"too long":     {[]byte{1, 0, 0x10, 0, 1}, errFrame},
		"giant":        {[]byte{1, 0xff, 0xff, 0xff, 0xff}, errFrame},
	} {
		if _, _, err := newFrames(pipe{bytes.NewReader(c.b), nil}, nil).read(time.Second); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestWireLimits(t *testing.T) {
	long := make([]record.Digest, maxDigests+1)
	if got, err := parseDigests(encodeDigests(long)); err != nil || len(got) != maxDigests {
		t.Errorf("a long list is cut to %d, %v", len(got), err)
	}
	vector := make([]record.Position, 3*vectorFrame+1)
	for i := range vector {
		vector[i] = record.Position{Incarnation: uint64(i), Seq: 1, Mark: [8]byte{byte(i)}}
	}
	var back []record.Position
	parts := encodeVector(vector)
	for _, p := range parts {
		raw, err := decompress(p)
		if err != nil {
			t.Fatal(err)
		}
		v, err := parseVector(raw)
		if err != nil || len(p) > maxFrame {
			t.Fatalf("%d bytes, %v", len(p), err)
		}
		back = append(back, v...)
	}
	if !reflect.DeepEqual(vector, back) || len(parts) != 4 {
		t.Errorf("vector of %d positions came back as %d in %d frames", len(vector), len(back), len(parts))
	}
	if _, err := decompress(compress(make([]byte, maxPolicyText+1))); err == nil {
		t.Error("a payload that grows over the limit is taken")
	}
	if _, err := parseWants(make([]byte, (maxWants+1)*(16+record.VersionSize+32))); err == nil {
		t.Error("too many wants are taken")
	}
	if _, err := parseAnswers([]byte{byte(record.Here), 0}); err == nil {
		t.Error("an answer without its entry is taken")
	}
	if _, err := parseHello((&hello{Name: "a b"}).encode()); err == nil {
		t.Error("a name with a blank is taken")
	}
}

// TestParcelWriterSplits: the block and all entries arrive, the block first, in frames within the limit.
func TestParcelWriterSplits(t *testing.T) {
	var b bytes.Buffer
	w := parcelWriter{f: newFrames(pipe{&b, &b}, nil), spend: func(int) error { return nil }}
	big := record.Parcel{Block: bytes.Repeat([]byte{1}, record.MaxBlock)}
	for i := range 40 {
		big.Entries = append(big.Entries, bytes.Repeat([]byte{byte(i)}, record.MaxInlineValue+100))
	}
	small := record.Parcel{Block: []byte{2}, Entries: [][]byte{{3}, {4}}}
	for _, p := range []record.Parcel{small, big, small} {
		if err := w.add(p); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.flush(); err != nil {
		t.Fatal(err)
	}
	var blocks, entries int
	for {
		_, payload, err := w.f.read(time.Second)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		raw, err := decompress(payload)
		if err != nil {
			t.Fatal(err)
		}
		parcels, err := parseParcels(raw)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range parcels {
			if len(p.Block) > 0 {
				blocks++
			}
			entries += len(p.Entries)
			if entries > 2 && blocks < 2 {
				t.Error("entries come before their block")
			}
		}
	}
	if blocks != 3 || entries != 44 {
		t.Errorf("%d blocks and %d entries, want 3 and 44", blocks, entries)
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

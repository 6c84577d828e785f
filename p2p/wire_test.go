package p2p

import (
	"bytes"
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

package record

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
)

// change gives a copy of b with the bytes at offset i replaced.
func change(b []byte, i int, with ...byte) []byte {
	out := bytes.Clone(b)
	copy(out[i:], with)
	return out
}

// refused fails unless err says that the format is invalid, for this reason.
func refused(t *testing.T, name string, err error, reason string) {
	t.Helper()
	if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), reason) {
		t.Errorf("%s: got %v, want %q", name, err, reason)
	}
}

// Offsets in an entry.
const (
	atMagic   = 0
	atKind    = 20
	atFlags   = 21
	atMode    = 22
	atExpires = 24
	atPathLen = 32
	atPath    = 33
)

func TestEntryRefused(t *testing.T) {
	put, del, chunked := fixedEntry(1).Encode(), fixedDelete().Encode(), fixedChunked().Encode()
	withPath := func(path string) []byte { e := fixedEntry(1); e.Path = path; return e.Encode() }
	withValue := func(kind Kind, value []byte) []byte {
		e := fixedEntry(1)
		e.Kind, e.Value = kind, value
		return e.Encode()
	}
	for _, tc := range []struct {
		name   string
		b      []byte
		reason string
	}{
		{"empty", nil, "magic"},
		{"magic of a write", change(put, atMagic, []byte("SAW1")...), "magic"},
		{"version 2", change(put, 3, '2'), "magic"},
		{"kind 0", change(put, atKind, 0), "unknown kind 0"},
		{"kind 4", change(put, atKind, 4), "unknown kind 4"},
		{"a flag", change(put, atFlags, 1), "unknown flags"},
		{"the highest flag", change(put, atFlags, 0x80), "unknown flags"},
		{"mode 01000", change(put, atMode, 2, 0), "mode 01000"},
		{"mode 04755", change(put, atMode, 9, 0xed), "mode 04755"},
		{"path length in two bytes", append(change(put[:atPath], atPathLen, put[atPathLen]|0x80), append([]byte{0}, put[atPath:]...)...), "not minimal"},
		{"path length past the limit", withPath("/" + strings.Repeat("x/", 512)), "limit of 1024"},
		{"path length past the end", put[:atPath+3], "path"},
		{"no path", withPath(""), "bad path"},
		{"relative path", withPath("certs"), "bad path"},
		{"path with ..", withPath("/certs/../x"), "bad path"},
		{"path not UTF-8", withPath("/\xff"), "bad path"},
		{"value over the limit", withValue(KindPut, make([]byte, MaxInlineValue+1)), "limit of 262144"},
		{"value cut", put[:len(put)-1], "value"},
		{"byte after the value", append(bytes.Clone(put), 0), "trailing"},
		{"delete with a value", withValue(KindDelete, []byte("x")), "delete"},
		{"delete with a mode", change(del, atMode, 1, 0), "delete"},
		{"delete with an expiry", change(del, atExpires, 0, 0, 0, 0, 0, 0, 0, 1), "delete"},
		{"chunked without a list", withValue(KindChunked, nil), "size"},
		{"chunked list cut", withValue(KindChunked, fixedChunked().Value[:40]), "chunk"},
		{"chunked list too long", withValue(KindChunked, append(fixedChunked().Value, 0)), "trailing"},
		{"chunked as inline put is a value like any other", change(chunked, atKind, byte(KindPut)), ""},
	} {
		_, err := ParseEntry(tc.b)
		if tc.reason == "" {
			if err != nil {
				t.Errorf("%s: %v", tc.name, err)
			}
			continue
		}
		refused(t, tc.name, err, tc.reason)
	}
	for n := range put {
		_, err := ParseEntry(put[:n])
		refused(t, "cut entry", err, "")
	}
}

func TestEntryLimits(t *testing.T) {
	e := fixedEntry(1)
	e.Value, e.Mode, e.Expires = make([]byte, MaxInlineValue), MaxMode, ^uint64(0)
	e.Path = strings.Repeat("/"+strings.Repeat("s", 127), 8)
	got, err := ParseEntry(e.Encode())
	if err != nil || got.ID() != e.ID() || got.Expires != e.Expires {
		t.Fatalf("the largest entry: %v", err)
	}
	smallest := Entry{Kind: KindPut, Path: "/a"}
	if got, err := ParseEntry(smallest.Encode()); err != nil || len(got.Value) != 0 {
		t.Errorf("the smallest entry: %v", err)
	}
}

// TestEntryID holds that the ID covers every field, and that entry and stub share it.
func TestEntryID(t *testing.T) {
	seen := map[ID]string{}
	for name, edit := range map[string]func(*Entry){
		"same":    func(*Entry) {},
		"salt":    func(e *Entry) { e.Salt[15]++ },
		"mode":    func(e *Entry) { e.Mode = 0 },
		"expires": func(e *Entry) { e.Expires = 1 },
		"path":    func(e *Entry) { e.Path += "x" },
		"value":   func(e *Entry) { e.Value = []byte("value 2") },
		"length":  func(e *Entry) { e.Value = append(e.Value, 0) },
		"kind":    func(e *Entry) { e.Kind = KindChunked },
	} {
		e := fixedEntry(1)
		edit(e)
		if twin, twice := seen[e.ID()]; twice {
			t.Errorf("%s and %s have one ID", name, twin)
		}
		seen[e.ID()] = name
		if e.Kind == KindPut {
			if _, _, id, err := ParseStub(e.Stub()); err != nil || id != e.ID() {
				t.Errorf("%s: the stub has ID %s, %v", name, id, err)
			}
		}
	}
}

func TestStubRefused(t *testing.T) {
	put, empty := fixedEntry(1).Stub(), fixedEntry(1)
	empty.Value = nil
	if _, _, _, err := ParseStub(empty.Stub()); err != nil {
		t.Error(err)
	}
	del := fixedDelete().Stub()
	for _, tc := range []struct {
		name   string
		b      []byte
		reason string
	}{
		{"an entry", fixedEntry(1).Encode(), "value hash"},
		{"cut", put[:len(put)-1], "value hash"},
		{"longer", append(bytes.Clone(put), 0), "trailing"},
		{"kind 0", change(put, atKind, 0), "unknown kind"},
		{"flags", change(put, atFlags, 1), "flags"},
		{"empty value with another hash", change(empty.Stub(), len(put)-1, 0), "empty value"},
		{"delete with another hash", change(del, len(del)-1, 0), "empty value"},
		{"delete with a length", change(del, len(del)-33, 1), "delete"},
		{"delete with a mode", change(del, atMode, 1, 0), "delete"},
	} {
		_, _, _, err := ParseStub(tc.b)
		refused(t, tc.name, err, tc.reason)
	}
}

func TestChunkList(t *testing.T) {
	for _, tc := range []struct {
		size   uint64
		chunks int
		ok     bool
	}{
		{0, 0, false},
		{0, 1, false},
		{MaxInlineValue, 1, false}, // it would be inline
		{MaxInlineValue + 1, 1, false},
		{MaxInlineValue + 1, 2, true},
		{MaxInlineValue + 1, 3, false},
		{2 * ChunkSize, 2, true},
		{2*ChunkSize + 1, 2, false},
		{2*ChunkSize + 1, 3, true},
		{64 << 20, 256, true},
		{8191 * ChunkSize, 8191, true},
		{8192 * ChunkSize, 8192, true},
		{8193 * ChunkSize, 8193, false},
		{^uint64(0), 0, false}, // rounding up to chunks would overflow to 0
		{^uint64(0), 1, false},
		{^uint64(0) - ChunkSize, 8192, false},
	} {
		l := ChunkList{Size: tc.size, Chunks: make([]ID, tc.chunks)}
		if got, err := ParseChunkList(l.Encode()); (err == nil) != tc.ok || tc.ok && got.Size != tc.size {
			t.Errorf("%d bytes in %d chunks: %v", tc.size, tc.chunks, err)
		}
	}
	if ChunkID([]byte("a")) == ChunkID([]byte("b")) {
		t.Error("two chunks, one ID")
	}
}

func TestEntryTimes(t *testing.T) {
	for _, tc := range []struct {
		expires uint64
		ms      int64
		expired bool
		at      string
	}{
		{0, 1 << 60, false, "0001-01-01T00:00:00Z"},
		{1000, 999, false, "1970-01-01T00:00:01Z"},
		{1000, 1000, true, "1970-01-01T00:00:01Z"},
		{1000, -1, false, "1970-01-01T00:00:01Z"},
		{1 << 63, 1<<63 - 1, false, "9999-12-31T23:59:59.999Z"},
		{^uint64(0), 1<<63 - 1, false, "9999-12-31T23:59:59.999Z"},
	} {
		e := Entry{Expires: tc.expires}
		if e.Expired(tc.ms) != tc.expired {
			t.Errorf("expires %d: at %d it is %v", tc.expires, tc.ms, !tc.expired)
		}
		if at := e.ExpiresAt().Format(time.RFC3339Nano); at != tc.at {
			t.Errorf("expires %d: %s, want %s", tc.expires, at, tc.at)
		}
		if _, err := json.Marshal(e.ExpiresAt()); err != nil {
			t.Errorf("expires %d: %v", tc.expires, err)
		}
	}
	if size := fixedChunked().Size(); size != ChunkSize+1 {
		t.Errorf("chunked size %d", size)
	}
}

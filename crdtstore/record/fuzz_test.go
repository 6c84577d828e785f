package record

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"testing"
)

// Every target holds the same promise of a parser: what it accepts encodes to the same bytes, so that no value has two
// encodings, and no input makes it panic. Seeds are the golden vectors and what lies next to them.

func seed(f *testing.F, names ...string) {
	f.Helper()
	for _, name := range names {
		b := golden(f, name)
		f.Add(b)
		f.Add(b[:len(b)-1])
		f.Add(append(bytes.Clone(b), 0))
	}
	f.Add([]byte{})
}

func same(t *testing.T, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Errorf("encodes to\n%x, parsed from\n%x", got, want)
	}
}

func FuzzEntry(f *testing.F) {
	seed(f, "put.entry", "delete.entry", "chunked.entry", "put.stub")
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := ParseEntry(b)
		if err != nil {
			return
		}
		same(t, e.Encode(), b)
		if CheckPath(e.Path) != nil || e.Mode > MaxMode || e.Size() < 0 || len(e.Value) > MaxInlineValue {
			t.Errorf("accepted %+v", e)
		}
		if _, size, id, err := ParseStub(e.Stub()); err != nil || id != e.ID() || size != len(e.Value) {
			t.Errorf("stub of an accepted entry: %v, ID %s, want %s", err, id, e.ID())
		}
	})
}

func FuzzStub(f *testing.F) {
	seed(f, "put.stub", "chunked.stub", "put.entry")
	f.Fuzz(func(t *testing.T, b []byte) {
		e, size, id, err := ParseStub(b)
		if err != nil {
			return
		}
		same(t, append(e.appendHead(nil, size), b[len(b)-sha256.Size:]...), b)
		if id != stubID(b) || size > MaxInlineValue {
			t.Errorf("accepted %+v of %d bytes", e, size)
		}
	})
}

func FuzzChunkList(f *testing.F) {
	seed(f, "chunk.list")
	f.Add(binary.AppendUvarint(bytes.Repeat([]byte{0xff}, 8), 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := ParseChunkList(b)
		if err != nil {
			return
		}
		same(t, l.Encode(), b)
		if n := uint64(len(l.Chunks)); l.Size <= MaxInlineValue || l.Size > n*ChunkSize || l.Size <= (n-1)*ChunkSize {
			t.Errorf("%d chunks for %d bytes", n, l.Size)
		}
	})
}

func FuzzWrite(f *testing.F) {
	seed(f, "own.write", "relayed.write")
	origin := KeyOf(fixedKey(1))
	f.Fuzz(func(t *testing.T, b []byte) {
		w, err := ParseWrite(b, origin)
		if err != nil {
			return
		}
		same(t, w.Append(nil), b)
		checkWrite(t, w)
	})
}

func checkWrite(t *testing.T, w *Write) {
	t.Helper()
	keys := map[Tag]bool{}
	for i := range w.Slots {
		keys[w.Slots[i].PathKey()] = true
	}
	if len(w.Slots) == 0 || len(w.Slots) > MaxSlots || len(keys) != len(w.Slots) {
		t.Errorf("accepted %d slots with %d path keys", len(w.Slots), len(keys))
	}
}

func FuzzBundle(f *testing.F) {
	seed(f, "first.bundle")
	f.Fuzz(func(t *testing.T, b []byte) {
		u, err := ParseBundle(b)
		if err != nil {
			return
		}
		same(t, u.Encode(), b)
		for _, w := range u.Writes {
			checkWrite(t, w)
		}
		if u.SlotCount() > MaxSlots || len(u.Writes) > MaxBundleWrites || u.Seq == 0 || u.Epoch != 0 {
			t.Errorf("accepted %+v", u)
		}
	})
}

func FuzzBlock(f *testing.F) {
	seed(f, "first.block", "merge.block", "genesis.block")
	network := fixedNetwork()
	none := func(Digest) (Header, bool) { return Header{}, false }
	f.Fuzz(func(t *testing.T, raw []byte) {
		b, err := ParseBlock(raw)
		if err != nil {
			return
		}
		same(t, EncodeBlock(b.Links, b.Priority, b.Encode()), raw)
		if len(b.Links) == 0 || len(b.Links) > MaxLinks || b.Digest != DigestOf(raw) {
			t.Errorf("accepted %d links", len(b.Links))
		}
		if b.CheckLinks(none) == nil {
			t.Error("accepted links that nobody knows")
		}
		_ = b.Verify(network) // must not panic whatever the bytes are
	})
}

func FuzzGenesis(f *testing.F) {
	seed(f, "genesis")
	f.Fuzz(func(t *testing.T, b []byte) {
		g, err := ParseGenesis(b)
		if err != nil {
			return
		}
		same(t, g.Encode(), b)
		if len(g.Admins) == 0 || len(g.Admins) > MaxAdmins {
			t.Errorf("accepted %d admins", len(g.Admins))
		}
	})
}

func FuzzPath(f *testing.F) {
	for _, p := range append(goodPaths(), "", "a", "/", "//", "/a/", "/..", "/a/./b", "/\x00", "/\x7f", "/\xc2\x80", "/\xff") {
		f.Add(p)
	}
	network := fixedNetwork()
	f.Fuzz(func(t *testing.T, p string) {
		if CheckPath(p) != nil {
			return
		}
		tags := network.Tags(p)
		if len(tags) == 0 || len(tags) > MaxSegments || tags[len(tags)-1] != network.PathKey(p) {
			t.Errorf("%q has %d tags", p, len(tags))
		}
		e := Entry{Kind: KindPut, Path: p}
		if back, err := ParseEntry(e.Encode()); err != nil || back.Path != p {
			t.Errorf("%q does not come back from an entry: %v", p, err)
		}
		if clean, err := CleanPrefix(p + "/"); err != nil || clean != p || !Covers(clean, p) || !Covers("/", p) {
			t.Errorf("prefix %q/: %q, %v", p, clean, err)
		}
	})
}

func FuzzVersion(f *testing.F) {
	v := Version{fixedHLC, fixedHash("write", 0), 1}
	for _, s := range []string{"", "-", v.String(), v.WriteString(), v.String() + "-", Version{}.String(), v.String() + "0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		v, whole, err := ParseVersion(s)
		if err != nil {
			return
		}
		if back := v.String(); whole && v.WriteString() != s || !whole && back != s {
			t.Errorf("%q reads as %q", s, back)
		}
		if b, err := VersionFrom(v.Append(nil)); err != nil || b != v {
			t.Errorf("%q does not come back from its bytes: %v", s, err)
		}
	})
}

package record

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"time"
)

// Limits of an entry, protocol constants.
const (
	MaxInlineValue = 256 << 10                              // bytes of a value that travels inside its entry
	ChunkSize      = 256 << 10                              // bytes of every chunk of a larger value but the last
	MaxValue       = (MaxInlineValue - 10) / 32 * ChunkSize // bytes of the largest value whose chunk list fits
	MaxMode        = 0o777
)

// ID is a SHA-256 hash that names an entry, a write or a chunk by its content.
type ID [32]byte

// String gives 64 hexadecimal digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Kind says what an entry does to its path.
type Kind uint8

// The kinds of entries.
const (
	KindPut     Kind = 1 // the value is inline
	KindDelete  Kind = 2 // the path is gone; no value
	KindChunked Kind = 3 // a put whose value is a chunk list
)

// Entry is the content of one path at one version.
type Entry struct {
	Salt    [16]byte // random, so that the ID of a guessable value cannot be guessed
	Kind    Kind
	Mode    uint16 // permission bits of a mirrored file, at most 0777
	Expires uint64 // Unix milliseconds, 0 for never
	Path    string
	Value   []byte // for KindChunked the chunk list
}

// Expired tells whether the entry is over at time t in Unix milliseconds.
func (e *Entry) Expired(ms int64) bool { return e.Expires != 0 && ms >= 0 && e.Expires <= uint64(ms) }

// maxMilli is the end of the year 9999 in Unix milliseconds, the last time that RFC 3339 can write.
const maxMilli = 253402300799999

// ExpiresAt gives the expiry as a time, zero for never. Times past the year 9999 give its end.
func (e *Entry) ExpiresAt() time.Time {
	if e.Expires == 0 {
		return time.Time{}
	}
	return time.UnixMilli(int64(min(e.Expires, maxMilli))).UTC()
}

// Size is the length of the value in bytes, also when it is chunked.
func (e *Entry) Size() int64 {
	if l, ok := e.Chunks(); ok {
		return int64(l.Size)
	}
	return int64(len(e.Value))
}

// Chunks gives the chunk list of a chunked value. A stub has none.
func (e *Entry) Chunks() (ChunkList, bool) {
	if e.Kind != KindChunked {
		return ChunkList{}, false
	}
	l, err := ParseChunkList(e.Value)
	return l, err == nil
}

func (e *Entry) appendHead(b []byte, valueLen int) []byte {
	b = append(b, "SAE1"...)
	b = append(b, e.Salt[:]...)
	b = append(b, byte(e.Kind), 0)
	b = be.AppendUint16(b, e.Mode)
	b = be.AppendUint64(b, e.Expires)
	b = binary.AppendUvarint(b, uint64(len(e.Path)))
	b = append(b, e.Path...)
	return binary.AppendUvarint(b, uint64(valueLen))
}

// Encode gives the canonical bytes of the entry.
func (e *Entry) Encode() []byte {
	b := make([]byte, 0, 40+len(e.Path)+len(e.Value))
	return append(e.appendHead(b, len(e.Value)), e.Value...)
}

// ID names the entry by its content.
func (e *Entry) ID() ID {
	return stubID(e.appendStub(make([]byte, 0, 80+len(e.Path))))
}

func (e *Entry) appendStub(b []byte) []byte {
	sum := sha256.Sum256(e.Value)
	return append(e.appendHead(b, len(e.Value)), sum[:]...)
}

func stubID(stub []byte) (id ID) {
	h := sha256.New()
	h.Write([]byte("syncagent entry v1\n"))
	h.Write(stub)
	h.Sum(id[:0])
	return id
}

// Stub gives the entry's bytes with the hash of the value in place of the value. It has the same ID and is what
// remains of an entry that expired.
func (e *Entry) Stub() []byte { return e.appendStub(nil) }

// ParseEntry reads an entry strictly. The value shares memory with b.
func ParseEntry(b []byte) (*Entry, error) {
	d := decoder{b: b}
	e, n := parseEntryHead(&d)
	e.Value = d.bytes(n, "value")
	if err := d.end(); err != nil {
		return nil, err
	}
	if err := e.check(n); err != nil {
		return nil, err
	}
	return e, nil
}

// ParseStub reads a stub strictly: the entry without its value, the length of the value, and the ID.
func ParseStub(b []byte) (e *Entry, size int, id ID, err error) {
	d := decoder{b: b}
	e, size = parseEntryHead(&d)
	sum := id32(d.bytes(sha256.Size, "value hash"))
	if d.err == nil && size == 0 && sum != sha256.Sum256(nil) {
		d.fail("not the hash of an empty value")
	}
	if err := d.end(); err != nil {
		return nil, 0, ID{}, err
	}
	if e.Kind != KindChunked { // the chunk list is gone, nobody can check it any more
		if err := e.check(size); err != nil {
			return nil, 0, ID{}, err
		}
	}
	return e, size, stubID(b), nil
}

func parseEntryHead(d *decoder) (*Entry, int) {
	e := new(Entry)
	d.magic("SAE1")
	copy(e.Salt[:], d.bytes(16, "salt"))
	e.Kind = Kind(d.u8("kind"))
	if d.err == nil && (e.Kind < KindPut || e.Kind > KindChunked) {
		d.fail("unknown kind %d", e.Kind)
	}
	if f := d.u8("flags"); f != 0 {
		d.fail("unknown flags %#x", f)
	}
	if e.Mode = d.u16("mode"); e.Mode > MaxMode {
		d.fail("mode %#o is over 0777", e.Mode)
	}
	e.Expires = d.u64("expires")
	e.Path = string(d.bytes(int(d.uvarint(MaxPath, "path length")), "path"))
	if d.err == nil {
		if err := CheckPath(e.Path); err != nil {
			d.fail("%v", err)
		}
	}
	return e, int(d.uvarint(MaxInlineValue, "value length"))
}

// check holds what depends on the kind.
func (e *Entry) check(size int) error {
	switch e.Kind {
	case KindDelete:
		if size != 0 || e.Mode != 0 || e.Expires != 0 {
			return formatError("a delete has no value, mode or expiry")
		}
	case KindChunked:
		if _, err := ParseChunkList(e.Value); err != nil {
			return err
		}
	}
	return nil
}

// ChunkList is the value of a KindChunked entry: the size of the real value and the IDs of its chunks in order.
type ChunkList struct {
	Size   uint64
	Chunks []ID
}

// ChunkID names a chunk by its content.
func ChunkID(chunk []byte) ID {
	h := sha256.New()
	h.Write([]byte("syncagent chunk v1\n"))
	h.Write(chunk)
	return ID(h.Sum(nil))
}

// Encode gives the canonical bytes: size(u64) n(uvarint) id*n.
func (l ChunkList) Encode() []byte {
	b := be.AppendUint64(nil, l.Size)
	b = binary.AppendUvarint(b, uint64(len(l.Chunks)))
	for _, c := range l.Chunks {
		b = append(b, c[:]...)
	}
	return b
}

// ParseChunkList reads a chunk list strictly. The number of chunks must fit the size.
func ParseChunkList(b []byte) (l ChunkList, err error) {
	d := decoder{b: b}
	l.Size = d.u64("size")
	n := d.uvarint(MaxInlineValue/32, "chunks")
	// The largest n chunks can hold is far from overflow, unlike a size rounded up to chunks.
	if d.err == nil && (l.Size <= MaxInlineValue || l.Size > n*ChunkSize || l.Size <= (n-1)*ChunkSize) {
		d.fail("%d chunks for %d bytes", n, l.Size)
	}
	for i := uint64(0); i < n && d.err == nil; i++ {
		l.Chunks = append(l.Chunks, ID(id32(d.bytes(32, "chunk ID"))))
	}
	return l, d.end()
}

package p2p

import (
	"encoding/binary"
	"slices"
	"strings"
	"unicode"

	"github.com/klauspost/compress/zstd"

	"syncagent/crdtstore/record"
)

// Limits of what one frame may hold.
const (
	maxNameLen     = 63
	maxVersionLen  = 64
	maxAddrRecord  = 8 << 10
	maxPeerRecords = 64
	maxDigests     = 4096
	maxWants       = 256
	maxHaves       = 1024
	maxPolicyText  = 1<<20 + 64<<10 // the text and its signature lines

	vectorFrame    = 12000 // positions in one frame
	maxVector      = 16    // frames
	positionSize   = 32 + 8 + 8 + 8
	parcelsTarget  = 384 << 10 // bytes of parcels, before compression, after which a frame is sent
	parcelsFirst   = 24 << 10  // the same for the first of an answer; each that follows may be twice as long
	maxEntryInWire = record.MaxInlineValue + 4<<10
)

var be = binary.BigEndian

// Encoder and decoder are safe for concurrent use. Windows are small: an agent should be small, and a frame is.
var (
	zEncoder = newEncoder()
	zDecoder = must(zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(maxPolicyText)))
)

func newEncoder() *zstd.Encoder {
	e := must(zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(2),
		zstd.WithWindowSize(256<<10), zstd.WithLowerEncoderMem(true)))
	e.EncodeAll(nil, nil) // it makes its channel now, not at its first use, which may be in a bubble of virtual time
	return e
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err) // constant options, checked by every test
	}
	return v
}

func compress(b []byte) []byte { return zEncoder.EncodeAll(b, nil) }

// decompress gives at most maxPolicyText bytes, whatever the payload claims.
func decompress(b []byte) ([]byte, error) {
	v, err := zDecoder.DecodeAll(b, nil)
	if err != nil {
		return nil, frameError("compressed payload: %v", err)
	}
	return v, nil
}

// wireReader reads fields from the front of a payload. The first fault sticks; later reads give zero values.
type wireReader struct {
	b   []byte
	err error
}

func (r *wireReader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = frameError(format, args...)
	}
}

func (r *wireReader) bytes(n int) []byte {
	if r.err != nil {
		return nil
	}
	if n < 0 || n > len(r.b) {
		r.fail("want %d bytes, have %d", n, len(r.b))
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

func (r *wireReader) u8() byte {
	if b := r.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *wireReader) u16() uint16 {
	if b := r.bytes(2); b != nil {
		return be.Uint16(b)
	}
	return 0
}

func (r *wireReader) u64() uint64 {
	if b := r.bytes(8); b != nil {
		return be.Uint64(b)
	}
	return 0
}

func (r *wireReader) array() (v [32]byte) {
	copy(v[:], r.bytes(32))
	return v
}

func (r *wireReader) version() (v record.Version) {
	b := r.bytes(record.VersionSize)
	if r.err == nil {
		var err error
		if v, err = record.VersionFrom(b); err != nil {
			r.fail("version: %v", err)
		}
	}
	return v
}

// uvarint reads a minimal varint of at most limit.
func (r *wireReader) uvarint(limit int) int {
	if r.err != nil {
		return 0
	}
	v, n := binary.Uvarint(r.b)
	if n <= 0 || n > 1 && r.b[n-1] == 0 {
		r.fail("bad varint")
		return 0
	}
	if v > uint64(limit) {
		r.fail("%d is over the limit of %d", v, limit)
		return 0
	}
	r.b = r.b[n:]
	return int(v)
}

// blob reads a length of at most limit and that many bytes, which share memory with the payload.
func (r *wireReader) blob(limit int) []byte { return r.bytes(r.uvarint(limit)) }

func (r *wireReader) end() error {
	if r.err == nil && len(r.b) > 0 {
		r.fail("%d trailing bytes", len(r.b))
	}
	return r.err
}

func appendBlob(b, v []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(v))), v...)
}

// hello is the first frame of every stream in both directions.
type hello struct {
	Network     record.NetworkID
	Format      uint16 // highest record format known
	Milli       int64  // agent time
	Incarnation uint64
	Version     string
	Name        string
	Record      []byte // the sender's signed address record; empty except on control and policy streams
}

func (h *hello) encode() []byte {
	b := append([]byte(nil), h.Network[:]...)
	b = be.AppendUint16(b, h.Format)
	b = be.AppendUint64(b, uint64(h.Milli))
	b = be.AppendUint64(b, h.Incarnation)
	b = appendBlob(b, []byte(h.Version))
	b = appendBlob(b, []byte(h.Name))
	return appendBlob(b, h.Record)
}

func parseHello(b []byte) (*hello, error) {
	r := wireReader{b: b}
	h := &hello{Network: r.array(), Format: r.u16(), Milli: int64(r.u64()), Incarnation: r.u64()}
	if h.Milli < 0 {
		r.fail("agent time out of range")
	}
	h.Version = string(r.blob(maxVersionLen))
	h.Name = string(r.blob(maxNameLen))
	if r.err == nil && (!printable(h.Version) || !printable(h.Name)) {
		r.fail("name or version with other than visible ASCII")
	}
	h.Record = r.blob(maxAddrRecord)
	return h, r.end()
}

// printable tells whether s can go into logs and terminals as it is.
func printable(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// visible makes text of a peer fit for logs and terminals.
func visible(b []byte) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(string(b), "?"))
}

// digestNote says what the sender has. Ask wants the receiver's own in return.
type digestNote struct {
	Ask    bool
	Serial uint64 // of the policy in force
	Digest [32]byte
}

func (d digestNote) encode() []byte {
	b := []byte{0}
	if d.Ask {
		b[0] = 1
	}
	return append(be.AppendUint64(b, d.Serial), d.Digest[:]...)
}

func parseDigestNote(b []byte) (d digestNote, err error) {
	r := wireReader{b: b}
	flags := r.u8()
	if flags > 1 {
		r.fail("unknown flags %#x", flags)
	}
	d = digestNote{Ask: flags == 1, Serial: r.u64(), Digest: r.array()}
	return d, r.end()
}

// encodeVector gives one payload for each frame that the vector needs. A vector that does not fit is cut: the other
// side then sends more than is needed, never less.
func encodeVector(v []record.Position) [][]byte {
	var out [][]byte
	for chunk := range slices.Chunk(v[:min(len(v), vectorFrame*maxVector)], vectorFrame) {
		b := make([]byte, 0, len(chunk)*positionSize)
		for _, p := range chunk {
			b = append(b, p.Origin[:]...)
			b = be.AppendUint64(b, p.Incarnation)
			b = be.AppendUint64(b, p.Seq)
			b = append(b, p.Mark[:]...)
		}
		out = append(out, compress(b))
	}
	return out
}

// parseVector reads one of them, unpacked.
func parseVector(b []byte) ([]record.Position, error) {
	if len(b)%positionSize != 0 || len(b) > vectorFrame*positionSize {
		return nil, frameError("vector of %d bytes", len(b))
	}
	v := make([]record.Position, 0, len(b)/positionSize)
	for r := (wireReader{b: b}); len(r.b) > 0; {
		p := record.Position{Origin: r.array(), Incarnation: r.u64(), Seq: r.u64()}
		copy(p.Mark[:], r.bytes(8))
		v = append(v, p)
	}
	return v, nil
}

func encodeDigests(ds []record.Digest) []byte {
	b := make([]byte, 0, 32*len(ds))
	for _, d := range ds[:min(len(ds), maxDigests)] {
		b = append(b, d[:]...)
	}
	return b
}

func parseDigests(b []byte) ([]record.Digest, error) {
	if len(b)%32 != 0 || len(b) > 32*maxDigests {
		return nil, frameError("list of digests of %d bytes", len(b))
	}
	ds := make([]record.Digest, 0, len(b)/32)
	for r := (wireReader{b: b}); len(r.b) > 0; {
		ds = append(ds, r.array())
	}
	return ds, nil
}

// appendParcel adds a parcel; without a block it brings entries alone.
func appendParcel(b []byte, p record.Parcel) []byte {
	b = appendBlob(b, p.Block)
	b = binary.AppendUvarint(b, uint64(len(p.Entries)))
	for _, e := range p.Entries {
		b = appendBlob(b, e)
	}
	return b
}

// parseParcels reads parcels to the end of b. They share memory with it.
func parseParcels(b []byte) ([]record.Parcel, error) {
	var out []record.Parcel
	r := wireReader{b: b}
	for len(r.b) > 0 && r.err == nil {
		p := record.Parcel{Block: r.blob(record.MaxBlock)}
		n := r.uvarint(record.MaxSlots)
		if n > 0 {
			p.Entries = make([][]byte, 0, min(n, 16))
		}
		for ; n > 0 && r.err == nil; n-- {
			p.Entries = append(p.Entries, r.blob(maxEntryInWire))
		}
		if r.err == nil && len(p.Block) == 0 && len(p.Entries) == 0 {
			r.fail("empty parcel")
		}
		out = append(out, p)
	}
	if err := r.end(); err != nil {
		return nil, err
	}
	return out, nil
}

func encodeWants(ws []record.Want) []byte {
	b := make([]byte, 0, len(ws)*(16+record.VersionSize+32))
	for _, w := range ws {
		b = append(b, w.PathKey[:]...)
		b = w.Version.Append(b)
		b = append(b, w.Entry[:]...)
	}
	return b
}

func parseWants(b []byte) ([]record.Want, error) {
	const size = 16 + record.VersionSize + 32
	if len(b)%size != 0 || len(b) > size*maxWants || len(b) == 0 {
		return nil, frameError("list of wants of %d bytes", len(b))
	}
	ws := make([]record.Want, 0, len(b)/size)
	for r := (wireReader{b: b}); len(r.b) > 0; {
		var w record.Want
		copy(w.PathKey[:], r.bytes(16))
		w.Version, w.Entry = r.version(), r.array()
		if r.err != nil {
			return nil, r.err
		}
		ws = append(ws, w)
	}
	return ws, nil
}

func appendAnswer(b []byte, a record.Answer) []byte {
	return appendBlob(append(b, byte(a.Status)), a.Entry)
}

func parseAnswers(b []byte) ([]record.Answer, error) {
	var out []record.Answer
	r := wireReader{b: b}
	for len(r.b) > 0 && r.err == nil {
		a := record.Answer{Status: record.AnswerStatus(r.u8()), Entry: r.blob(maxEntryInWire)}
		if r.err == nil && (a.Status > record.Denied || (len(a.Entry) > 0) != (a.Status == record.Here || a.Status == record.HereStub)) {
			r.fail("answer with status %d and %d bytes", a.Status, len(a.Entry))
		}
		if out = append(out, a); len(out) > maxWants {
			r.fail("more than %d answers", maxWants)
		}
	}
	if err := r.end(); err != nil {
		return nil, err
	}
	return out, nil
}

// encodeRecords joins signed address records.
func encodeRecords(rs [][]byte) []byte {
	var b []byte
	for _, r := range rs[:min(len(rs), maxPeerRecords)] {
		b = appendBlob(b, r)
	}
	return b
}

func parseRecords(b []byte) ([][]byte, error) {
	var out [][]byte
	r := wireReader{b: b}
	for len(r.b) > 0 && r.err == nil {
		if out = append(out, r.blob(maxAddrRecord)); len(out) > maxPeerRecords {
			r.fail("more than %d address records", maxPeerRecords)
		}
	}
	if err := r.end(); err != nil {
		return nil, err
	}
	return out, nil
}

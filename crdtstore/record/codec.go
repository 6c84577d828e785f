package record

import (
	"encoding/binary"
	"errors"
	"fmt"
)

var be = binary.BigEndian

// ErrFormat is wrapped by every error of a parser: the bytes are not a valid value of the format.
var ErrFormat = errors.New("invalid format")

func formatError(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrFormat, fmt.Sprintf(format, args...))
}

// decoder reads fields from the front of a byte slice. The first fault sticks; later reads give zero values.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = formatError(format, args...)
	}
}

// bytes gives the next n bytes without copying.
func (d *decoder) bytes(n int, what string) []byte {
	if d.err != nil {
		return nil
	}
	if n < 0 || n > len(d.b) {
		d.fail("%s: want %d bytes, have %d", what, n, len(d.b))
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) u8(what string) byte {
	if b := d.bytes(1, what); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) u16(what string) uint16 {
	if b := d.bytes(2, what); b != nil {
		return be.Uint16(b)
	}
	return 0
}

func (d *decoder) u32(what string) uint32 {
	if b := d.bytes(4, what); b != nil {
		return be.Uint32(b)
	}
	return 0
}

func (d *decoder) u64(what string) uint64 {
	if b := d.bytes(8, what); b != nil {
		return be.Uint64(b)
	}
	return 0
}

// uvarint reads a minimal unsigned varint of at most limit.
func (d *decoder) uvarint(limit uint64, what string) uint64 {
	if d.err != nil {
		return 0
	}
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail("%s: bad varint", what)
		return 0
	}
	if n > 1 && d.b[n-1] == 0 {
		d.fail("%s: varint is not minimal", what)
		return 0
	}
	if v > limit {
		d.fail("%s: %d is over the limit of %d", what, v, limit)
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) magic(m string) {
	if b := d.bytes(len(m), "magic"); b != nil && string(b) != m {
		d.fail("magic %q, want %q", b, m)
	}
}

// end gives the first fault, or an error if bytes are left.
func (d *decoder) end() error {
	if d.err == nil && len(d.b) > 0 {
		d.fail("%d trailing bytes", len(d.b))
	}
	return d.err
}

func id32(b []byte) (v [32]byte) { copy(v[:], b); return v }

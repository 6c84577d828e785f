package record

import (
	"encoding/hex"
	"fmt"
	"time"
)

// HLC is a hybrid logical clock reading: 48 bits of Unix milliseconds, then a 16 bit counter.
// It orders writes of the same path across hosts (Kulkarni et al., "Logical Physical Clocks", 2014).
type HLC uint64

// NewHLC gives the reading for t with counter 0. Times before 1970 give 0, times past year 10889 the largest reading.
func NewHLC(t time.Time) HLC { return HLCFromMilli(t.UnixMilli()) }

// HLCFromMilli gives the reading for a Unix time in milliseconds with counter 0.
func HLCFromMilli(ms int64) HLC {
	return HLC(min(uint64(max(ms, 0)), 1<<48-1) << 16)
}

// Milli is the wall-clock part in Unix milliseconds.
func (h HLC) Milli() int64 { return int64(h >> 16) }

// Time is the wall-clock part.
func (h HLC) Time() time.Time { return time.UnixMilli(h.Milli()).UTC() }

// Next is the smallest reading above h. The largest reading stays as it is.
func (h HLC) Next() HLC {
	if h == ^HLC(0) {
		return h
	}
	return h + 1
}

// String gives 16 hexadecimal digits, which sort as the readings do.
func (h HLC) String() string { return fmt.Sprintf("%016x", uint64(h)) }

// ParseHLC reads what String wrote.
func ParseHLC(s string) (HLC, error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != 8 || hex.EncodeToString(b) != s {
		return 0, fmt.Errorf("hlc %q: want 16 lower-case hexadecimal digits", s)
	}
	return HLC(be.Uint64(b)), nil
}

package agent

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Duration is a time.Duration that is written as in Go ("1h30m") or in whole days ("7d").
type Duration time.Duration

// UnmarshalText reads "90s", "1h30m" or "7d".
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := ParseDuration(string(b))
	if err == nil {
		*d = Duration(v)
	}
	return err
}

// MarshalText writes the shortest form that UnmarshalText reads.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

func (d Duration) String() string {
	const day = 24 * time.Hour
	if v := time.Duration(d); v != 0 && v%day == 0 {
		return fmt.Sprintf("%dd", v/day)
	}
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// ParseDuration reads a duration as time.ParseDuration does, and whole days ("30d").
func ParseDuration(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseInt(days, 10, 64)
		if err == nil && n >= 0 && n <= math.MaxInt64/int64(24*time.Hour) {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	} else if v, err := time.ParseDuration(s); err == nil {
		return v, nil
	}
	return 0, fmt.Errorf("want a duration such as 500ms, 30s, 12h or 7d, not %q", s)
}

// Size is a number of bytes, written with a binary unit ("256MiB") or without one.
type Size uint64

var sizeUnits = []struct {
	name  string
	bytes uint64
}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

// UnmarshalText reads "256MiB", "10GiB" or a number of bytes.
func (z *Size) UnmarshalText(b []byte) error {
	digits, unit := string(b), uint64(1)
	for _, u := range sizeUnits {
		if d, ok := strings.CutSuffix(digits, u.name); ok {
			digits, unit = d, u.bytes
			break
		}
	}
	n, err := strconv.ParseUint(strings.TrimSpace(digits), 10, 64)
	if err != nil || n > math.MaxInt64/unit {
		return fmt.Errorf("want a size such as 4096, 64KiB, 256MiB or 2GiB, not %q", b)
	}
	*z = Size(n * unit)
	return nil
}

// MarshalText writes the size in the largest unit that divides it.
func (z Size) MarshalText() ([]byte, error) { return []byte(z.String()), nil }

func (z Size) String() string {
	for _, u := range sizeUnits {
		if z != 0 && uint64(z)%u.bytes == 0 && u.bytes > 1 {
			return fmt.Sprintf("%d%s", uint64(z)/u.bytes, u.name)
		}
	}
	return strconv.FormatUint(uint64(z), 10)
}

// FileMode holds permission bits, written in octal ("0640"). Zero means that none were given.
type FileMode uint32

// UnmarshalText reads three or four octal digits up to 0777, or nothing for none given.
func (m *FileMode) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*m = 0
		return nil
	}
	v, err := strconv.ParseUint(string(b), 8, 32)
	if err != nil || len(b) < 3 || len(b) > 4 || v == 0 || v > 0o777 {
		return fmt.Errorf("want permission bits such as 0640, not %q", b)
	}
	*m = FileMode(v)
	return nil
}

// MarshalText writes four octal digits, or nothing for none given.
func (m FileMode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

func (m FileMode) String() string {
	if m == 0 {
		return ""
	}
	return fmt.Sprintf("%04o", uint32(m))
}

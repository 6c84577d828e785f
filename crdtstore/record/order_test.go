package record

import (
	"bytes"
	"cmp"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// drawVersion prefers small values, so that equal clocks, equal writes and neighbours occur.
func drawVersion(t *rapid.T, label string) Version {
	v := Version{
		HLC: HLC(rapid.OneOf(
			rapid.Uint64Range(0, 3), rapid.Uint64Range(fixedMilli-1, fixedMilli+1), rapid.Uint64()).Draw(t, label+" hlc")),
		Index: uint16(rapid.Uint64Range(0, MaxSlots-1).Draw(t, label+" index")),
	}
	v.Write[0] = rapid.ByteRange(0, 1).Draw(t, label+" first byte")
	v.Write[31] = rapid.ByteRange(0, 2).Draw(t, label+" last byte")
	return v
}

const fixedMilli = uint64(fixedHLC)

func TestVersionOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := drawVersion(t, "a"), drawVersion(t, "b"), drawVersion(t, "c")
		ab := a.Compare(b)
		if (ab == 0) != (a == b) {
			t.Fatalf("%s and %s compare %d", a, b, ab)
		}
		if b.Compare(a) != -ab {
			t.Fatalf("not antisymmetric: %s, %s", a, b)
		}
		if ab <= 0 && b.Compare(c) <= 0 && a.Compare(c) > 0 {
			t.Fatalf("not transitive: %s, %s, %s", a, b, c)
		}
		if bytes.Compare(a.Append(nil), b.Append(nil)) != ab {
			t.Fatalf("bytes sort otherwise: %s, %s", a, b)
		}
		if strings.Compare(a.String(), b.String()) != ab {
			t.Fatalf("text sorts otherwise: %s, %s", a, b)
		}
		if c := cmp.Compare(a.HLC, b.HLC); c != 0 && c != ab {
			t.Fatalf("the clock does not decide: %s, %s", a, b)
		}
	})
}

// TestVersionWinnerIgnoresArrival takes the highest of some versions in every order of arrival.
func TestVersionWinnerIgnoresArrival(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		versions := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Version { return drawVersion(t, "v") }), 1, 8).Draw(t, "versions")
		want := slices.MaxFunc(versions, Version.Compare)
		seed := rapid.Uint64().Draw(t, "order")
		shuffled := slices.Clone(versions)
		rand.New(rand.NewPCG(seed, 0)).Shuffle(len(shuffled), func(i, j int) {
			shuffled[i], shuffled[j] = shuffled[j], shuffled[i]
		})
		var shown Version
		for _, v := range shuffled { // as replicas do: one after the other
			if v.Compare(shown) > 0 {
				shown = v
			}
		}
		if shown != want {
			t.Fatalf("got %s, want %s", shown, want)
		}
	})
}

func TestVersionText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := drawVersion(t, "v")
		if got, whole, err := ParseVersion(v.String()); got != v || whole || err != nil {
			t.Fatalf("%s: %v, %v, %v", v, got, whole, err)
		}
		got, whole, err := ParseVersion(v.WriteString())
		if v.Index = 0; got != v || !whole || err != nil {
			t.Fatalf("%s: %v, %v, %v", v, got, whole, err)
		}
		if got, err := VersionFrom(v.Append(nil)); got != v || err != nil {
			t.Fatalf("%s: %v, %v", v, got, err)
		}
	})
	good := Version{fixedHLC, fixedHash("write", 0), 0x3ff}.String()
	for _, s := range []string{
		"", "-", "--", good + "-", "-" + good, good + "0", good[1:], strings.ToUpper(good), good[:len(good)-3] + "400", good[:len(good)-3] + "+01",
		good[:len(good)-2], strings.Replace(good, "-", "--", 1), " " + good, good + "\n", strings.ReplaceAll(good, "-", "_"),
	} {
		if v, _, err := ParseVersion(s); err == nil {
			t.Errorf("%q reads as %s", s, v)
		}
	}
	for _, n := range []int{0, VersionSize - 1, VersionSize + 1} {
		if v, err := VersionFrom(make([]byte, n)); err == nil {
			t.Errorf("%d bytes read as %s", n, v)
		}
	}
	if !(Version{}).IsZero() || (Version{Index: 1}).IsZero() {
		t.Error("the zero version is not told from others")
	}
}

func TestHLC(t *testing.T) {
	for _, tc := range []struct {
		ms   int64
		want HLC
	}{
		{-1, 0},
		{-1 << 63, 0},
		{0, 0},
		{1, 1 << 16},
		{1<<48 - 1, 0xffff_ffff_ffff_0000},
		{1 << 48, 0xffff_ffff_ffff_0000},
		{1<<63 - 1, 0xffff_ffff_ffff_0000},
	} {
		if got := HLCFromMilli(tc.ms); got != tc.want {
			t.Errorf("%d ms: %s, want %s", tc.ms, got, tc.want)
		}
	}
	for h, want := range map[HLC]HLC{0: 1, 0xffff: 0x1_0000, ^HLC(0) - 1: ^HLC(0), ^HLC(0): ^HLC(0)} {
		if got := h.Next(); got != want {
			t.Errorf("after %s comes %s", h, got)
		}
	}
	now := time.Date(2026, 11, 21, 9, 0, 0, 123_456_789, time.FixedZone("", 3600))
	if got := NewHLC(now).Time(); !got.Equal(now.Truncate(time.Millisecond)) || got.Location() != time.UTC {
		t.Errorf("got %s, want %s", got, now)
	}
	rapid.Check(t, func(t *rapid.T) {
		a, b := HLC(rapid.Uint64().Draw(t, "a")), HLC(rapid.Uint64().Draw(t, "b"))
		if strings.Compare(a.String(), b.String()) != cmp.Compare(a, b) {
			t.Fatalf("%s and %s sort otherwise", a, b)
		}
		if got, err := ParseHLC(a.String()); got != a || err != nil {
			t.Fatalf("%s reads as %s, %v", a, got, err)
		}
	})
	for _, s := range []string{"", "0", "00000000000000000", "000000000000000g", "000000000000000A", "-000000000000001"} {
		if h, err := ParseHLC(s); err == nil {
			t.Errorf("%q reads as %s", s, h)
		}
	}
}

package record

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/bits"
	"strconv"
	"strings"
)

// Limits of a write, protocol constants.
const (
	MaxSlots      = 1024     // slots of a write, and of all writes of a block together
	MaxWriteBytes = 16 << 20 // bytes of all entries of a write together
)

const writeContext = "syncagent write v1\n"

// Slot is one place in a write: an entry and where it belongs. The tags stand for the prefixes of the entry's path, so
// that every agent can judge the slot without knowing the name.
type Slot struct {
	Entry ID
	Tags  []Tag // 1..MaxSegments; the last is the path key
}

// PathKey says which path the slot belongs to.
func (s *Slot) PathKey() Tag { return s.Tags[len(s.Tags)-1] }

// Matches tells whether an entry with this path belongs into the slot.
func (s *Slot) Matches(network NetworkID, path string) bool {
	tags := network.Tags(path)
	if len(tags) != len(s.Tags) {
		return false
	}
	for i := range tags {
		if tags[i] != s.Tags[i] {
			return false
		}
	}
	return true
}

// Write is the atomic unit: everything that one author said at one moment.
type Write struct {
	Author PublicKey
	HLC    HLC
	Slots  []Slot // 1..MaxSlots, path keys distinct
	Sig    []byte // the author's own signature; nil when the bundle's origin is the author and signs for it
}

// Size is the length of what Append adds.
func (w *Write) Size() int {
	n := 1 + len("SAW1") + 8 + uvarintLen(len(w.Slots))
	for i := range w.Slots {
		n += 32 + 1 + 16*len(w.Slots[i].Tags)
	}
	if w.Sig != nil {
		n += 32 + len(w.Sig)
	}
	return n
}

func uvarintLen(n int) int { return (bits.Len(uint(n)|1) + 6) / 7 }

func (w *Write) appendCore(b []byte, withAuthor bool) []byte {
	b = append(b, "SAW1"...)
	if withAuthor {
		b = append(b, w.Author[:]...)
	}
	b = be.AppendUint64(b, uint64(w.HLC))
	b = binary.AppendUvarint(b, uint64(len(w.Slots)))
	for i := range w.Slots {
		s := &w.Slots[i]
		b = append(b, s.Entry[:]...)
		b = append(b, byte(len(s.Tags)))
		for _, t := range s.Tags {
			b = append(b, t[:]...)
		}
	}
	return b
}

// ID names the write by its content. It does not depend on who relays it.
func (w *Write) ID() ID { return sha256.Sum256(w.appendCore(make([]byte, 0, w.Size()+32), true)) }

// Sign makes the author's own signature, for a write that another agent relays.
func (w *Write) Sign(priv ed25519.PrivateKey, network NetworkID) {
	w.Sig = Sign(priv, writeContext, network, w.ID())
}

// Verify checks the author's own signature.
func (w *Write) Verify(network NetworkID) bool {
	s := w.signature()
	return s.fits(network)
}

func (w *Write) signature() signature { return signature{w.Author, writeContext, w.ID(), w.Sig} }

// Append adds the canonical bytes of the write as they stand in a bundle.
func (w *Write) Append(b []byte) []byte {
	if w.Sig == nil {
		return w.appendCore(append(b, 0), false)
	}
	return append(w.appendCore(append(b, 1), true), w.Sig...)
}

// ParseWrite reads one write strictly, as it stands in a bundle of origin. It does not check signatures.
func ParseWrite(b []byte, origin PublicKey) (*Write, error) {
	d := decoder{b: b}
	w := parseWrite(&d, origin)
	return w, d.end()
}

func parseWrite(d *decoder, origin PublicKey) *Write {
	w := &Write{Author: origin}
	form := d.u8("write form")
	if form > 1 {
		d.fail("unknown write form %d", form)
	}
	d.magic("SAW1")
	if form == 1 {
		w.Author = PublicKey(id32(d.bytes(32, "author")))
	}
	w.HLC = HLC(d.u64("hlc"))
	n := d.uvarint(MaxSlots, "slots")
	if n == 0 {
		d.fail("write without slots")
	}
	seen := make(map[Tag]struct{}) // without a size it lies on the stack while it is small
	w.Slots = make([]Slot, 0, min(n, 64))
	for i := uint64(0); i < n && d.err == nil; i++ {
		s := Slot{Entry: ID(id32(d.bytes(32, "entry ID")))}
		depth := int(d.u8("depth"))
		if depth < 1 || depth > MaxSegments {
			d.fail("depth %d", depth)
		}
		raw := d.bytes(16*depth, "tags")
		if d.err != nil {
			break
		}
		s.Tags = make([]Tag, depth)
		for j := range s.Tags {
			copy(s.Tags[j][:], raw[16*j:])
		}
		if _, twice := seen[s.PathKey()]; twice {
			d.fail("path key named twice")
		}
		seen[s.PathKey()] = struct{}{}
		w.Slots = append(w.Slots, s)
	}
	if form == 1 {
		w.Sig = bytes.Clone(d.bytes(ed25519.SignatureSize, "signature"))
	}
	return w
}

// Version names one slot and orders all slots of a path: the highest wins.
type Version struct {
	HLC   HLC
	Write ID
	Index uint16 // place of the slot in its write
}

// VersionSize is the length of a version's bytes.
const VersionSize = 8 + 32 + 2

// Compare gives -1, 0 or 1: by HLC, then write ID, then index. It is a total order that depends on nothing but the two
// values, so all agents agree on it.
func (v Version) Compare(u Version) int {
	if c := cmp.Compare(v.HLC, u.HLC); c != 0 {
		return c
	}
	if c := bytes.Compare(v.Write[:], u.Write[:]); c != 0 {
		return c
	}
	return cmp.Compare(v.Index, u.Index)
}

// IsZero tells whether v is no version at all.
func (v Version) IsZero() bool { return v == Version{} }

// Append adds the 42 bytes of the version, which sort as versions do.
func (v Version) Append(b []byte) []byte {
	b = be.AppendUint64(b, uint64(v.HLC))
	b = append(b, v.Write[:]...)
	return be.AppendUint16(b, v.Index)
}

// VersionFrom reads the 42 bytes that Append wrote.
func VersionFrom(b []byte) (v Version, err error) {
	d := decoder{b: b}
	v.HLC = HLC(d.u64("hlc"))
	v.Write = ID(id32(d.bytes(32, "write ID")))
	v.Index = d.u16("index")
	return v, d.end()
}

// WriteString gives the version of a whole write as shown to users: HLC and write ID.
func (v Version) WriteString() string { return v.HLC.String() + "-" + v.Write.String() }

// String gives the version as shown to users: HLC, write ID and index, in hexadecimal; it sorts as versions do.
func (v Version) String() string { return fmt.Sprintf("%s-%03x", v.WriteString(), v.Index) }

// ParseVersion reads what String or WriteString wrote. Whole tells that the index was left out.
func ParseVersion(s string) (v Version, whole bool, err error) {
	bad := fmt.Errorf("version %q: want HLC-WRITE or HLC-WRITE-INDEX as shown by get, ls or put", s)
	parts := strings.Split(s, "-")
	if len(parts) != 2 && len(parts) != 3 {
		return v, false, bad
	}
	if v.HLC, err = ParseHLC(parts[0]); err != nil {
		return v, false, bad
	}
	b, err := hex.DecodeString(parts[1])
	if err != nil || len(b) != len(v.Write) || hex.EncodeToString(b) != parts[1] {
		return v, false, bad
	}
	copy(v.Write[:], b)
	if len(parts) == 2 {
		return v, true, nil
	}
	i, err := strconv.ParseUint(parts[2], 16, 16)
	if err != nil || len(parts[2]) != 3 || i >= MaxSlots || fmt.Sprintf("%03x", i) != parts[2] {
		return v, false, bad
	}
	v.Index = uint16(i)
	return v, false, nil
}

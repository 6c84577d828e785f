package record

import (
	"bytes"
	"slices"
	"testing"
)

// Offsets in a write of form 0.
const (
	atForm    = 0
	atSlots   = 13 // form, magic, hlc
	atDepth   = 46 // number of slots, entry ID
	firstTags = 47
)

func TestWriteRefused(t *testing.T) {
	origin := KeyOf(fixedKey(1))
	own, relayed := fixedWrite(1, 1, 2).Append(nil), relayedWrite(2, 3).Append(nil)
	twice := fixedWrite(1, 1, 1).Append(nil)
	// Depth 1 with the path key of the first slot: the whole list of tags differs, the path key does not.
	short := fixedWrite(1, 1, 2)
	short.Slots[1].Tags = short.Slots[0].Tags[2:]
	deep := fixedWrite(1, 1)
	deep.Slots[0].Tags = make([]Tag, MaxSegments+1)
	for _, tc := range []struct {
		name   string
		b      []byte
		reason string
	}{
		{"empty", nil, "write form"},
		{"form 2", change(own, atForm, 2), "write form 2"},
		{"magic", change(own, 1, 'X'), "magic"},
		{"no slots", change(own[:atSlots+1], atSlots, 0), "without slots"},
		{"number of slots in two bytes", slices.Concat(own[:atSlots], []byte{0x82, 0}, own[atSlots+1:]), "not minimal"},
		{"1025 slots", slices.Concat(own[:atSlots], []byte{0x81, 8}, own[atSlots+1:]), "limit of 1024"},
		{"2^64 slots", slices.Concat(own[:atSlots], bytes.Repeat([]byte{0xff}, 9), []byte{2}), "varint"},
		{"fewer slots than promised", change(own, atSlots, 3), "entry ID"},
		{"more slots than promised", change(own, atSlots, 1), "trailing"},
		{"depth 0", change(own, atDepth, 0), "depth 0"},
		{"depth 33", deep.Append(nil), "depth 33"},
		{"depth past the end", change(own[:firstTags+10], atDepth, 32), "tags"},
		{"path key twice", twice, "named twice"},
		{"path key twice at another depth", short.Append(nil), "named twice"},
		{"relayed without signature", relayed[:len(relayed)-64], "signature"},
		{"relayed with half a signature", relayed[:len(relayed)-32], "signature"},
		{"relayed in the form of an own one", change(relayed, atForm, 0), ""},
		{"own in the form of a relayed one", change(own, atForm, 1), ""},
		{"byte after the end", append(bytes.Clone(own), 0), "trailing"},
	} {
		_, err := ParseWrite(tc.b, origin)
		refused(t, tc.name, err, tc.reason)
	}
	for n := range relayed {
		_, err := ParseWrite(relayed[:n], origin)
		refused(t, "cut write", err, "")
	}
}

func TestWriteLimits(t *testing.T) {
	w := &Write{Author: KeyOf(fixedKey(1)), HLC: ^HLC(0)}
	for i := range MaxSlots {
		w.Slots = append(w.Slots, Slot{Tags: []Tag{{byte(i >> 8), byte(i)}}})
	}
	w.Slots[0].Tags = make([]Tag, MaxSegments)
	w.Slots[0].Tags[MaxSegments-1] = Tag{0xff}
	got, err := ParseWrite(w.Append(nil), w.Author)
	if err != nil || len(got.Slots) != MaxSlots || got.ID() != w.ID() {
		t.Errorf("the largest write: %v", err)
	}
}

// TestWriteID holds that the ID names the content: whoever relays it, in whichever form, and nothing but the content.
func TestWriteID(t *testing.T) {
	w := fixedWrite(2, 1, 2)
	relayed := relayedWrite(2, 1, 2)
	if w.ID() != relayed.ID() {
		t.Error("the signature changes the ID")
	}
	parsed, err := ParseWrite(relayed.Append(nil), KeyOf(fixedKey(9)))
	if err != nil || parsed.ID() != w.ID() || parsed.Author != w.Author {
		t.Errorf("relayed by another origin: %v", err)
	}
	own, err := ParseWrite(w.Append(nil), w.Author)
	if err != nil || own.ID() != w.ID() {
		t.Errorf("in the form of an own one: %v", err)
	}
	seen := map[ID]string{w.ID(): "same"}
	for name, edit := range map[string]func(*Write){
		"author":      func(w *Write) { w.Author = KeyOf(fixedKey(3)) },
		"hlc":         func(w *Write) { w.HLC++ },
		"order":       func(w *Write) { slices.Reverse(w.Slots) },
		"fewer slots": func(w *Write) { w.Slots = w.Slots[:1] },
		"entry":       func(w *Write) { w.Slots[0].Entry[0]++ },
		"tag":         func(w *Write) { w.Slots[1].Tags[0][0]++ },
		"depth":       func(w *Write) { w.Slots[1].Tags = w.Slots[1].Tags[1:] },
	} {
		v := fixedWrite(2, 1, 2)
		edit(v)
		if twin, twice := seen[v.ID()]; twice {
			t.Errorf("%s and %s have one ID", name, twin)
		}
		seen[v.ID()] = name
	}
}

func TestWriteSignature(t *testing.T) {
	t.Parallel()
	network := fixedNetwork()
	w := relayedWrite(2, 1, 2)
	if !w.Verify(network) {
		t.Fatal("a good signature is refused")
	}
	if w.Verify(NetworkID{}) {
		t.Error("the signature counts in another network")
	}
	b := w.Append(nil)
	for i := 8; i < len(b)*8; i++ { // the first byte is the form
		flipped := change(b, i/8, b[i/8]^1<<(i%8))
		if v, err := ParseWrite(flipped, KeyOf(fixedKey(1))); err == nil && v.Verify(network) {
			t.Errorf("accepted with bit %d flipped", i)
		}
	}
	w.Sign(fixedKey(3), network) // another key than the author's
	if w.Verify(network) {
		t.Error("somebody else's signature counts")
	}
}

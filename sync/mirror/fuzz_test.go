package mirror

import (
	"bytes"
	"reflect"
	"testing"
)

// FuzzJournal: whatever lies where the journal should, it is read up to a line, or found damaged. What was read comes
// back the same from a rewritten journal.
func FuzzJournal(f *testing.F) {
	var good []byte
	for _, n := range []line{
		{Mirror: &header{Format: journalFormat, ID: "id", Prefix: "/p", Dir: "/d"}},
		{Made: []string{"sub"}},
		{Staged: []stagedFile{stage("sub/file", "sub/.syncagent-1.tmp", base{})}},
		{Done: &outcome{Seq: 1, Due: []string{"trigger"}}},
		{Ran: &ran{Trigger: "trigger", Seq: 1}},
	} {
		b, err := encodeLine(n)
		if err != nil {
			f.Fatal(err)
		}
		good = append(good, b...)
		f.Add(bytes.Clone(good))
	}
	f.Add(good[:len(good)-3])
	f.Add([]byte("00000000 {}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		l := newLedger()
		size, err := readLines(bytes.NewReader(data), l)
		if size < 0 || size > int64(len(data)) {
			t.Fatalf("%d of %d bytes are valid", size, len(data))
		}
		if err != nil || l.header.ID == "" {
			return
		}
		var short bytes.Buffer
		if _, err := writeLines(&short, l); err != nil {
			t.Fatal(err)
		}
		again := newLedger()
		if n, err := readLines(&short, again); err != nil || n == 0 {
			t.Fatalf("rewritten: %d bytes, %v", n, err)
		}
		again.seq = l.seq // the next line is numbered above all that is due
		if !reflect.DeepEqual(l, again) {
			t.Fatalf("%+v was rewritten as %+v", l, again)
		}
	})
}

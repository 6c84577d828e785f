package crdtstore

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

// FuzzCursor: what a caller gives as a cursor is refused or names a place; one that this store gave out leads back.
func FuzzCursor(f *testing.F) {
	n := newTestNet(f, 1)
	a := n.start("a", nil)
	good := a.cursor(1, 2)
	f.Add(good)
	f.Add(good[:42] + string(good[42]+1)) // spare bits
	f.Add(good + "\n")
	f.Add("")
	f.Add("not a cursor")
	f.Fuzz(func(t *testing.T, text string) {
		number, run, mine, err := a.parseCursor(text)
		if err != nil {
			if !errors.Is(err, ErrBadCursor) {
				t.Fatal(err)
			}
			return
		}
		if again := a.cursor(number, run); mine && again != text {
			t.Fatalf("%q reads as %q", text, again)
		}
	})
}

// FuzzBackup: a file that is no backup is refused, whatever it holds.
func FuzzBackup(f *testing.F) {
	n := newTestNet(f, 1)
	a := n.start("a", nil)
	a.apply(n.openPolicy())
	a.put("/x", "value")
	var whole bytes.Buffer
	if _, err := a.Backup(f.Context(), a.self, BackupHead{}, &whole, nil); err != nil {
		f.Fatal(err)
	}
	f.Add(whole.Bytes())
	f.Add(whole.Bytes()[:whole.Len()-1])
	f.Add([]byte(backupMagic))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := ReadBackup(bytes.NewReader(data))
		if err == nil {
			_, _, err = b.Check(t.Context())
		}
		switch {
		case err == nil && !bytes.HasPrefix(data, []byte(backupMagic)):
			t.Fatal("taken for a backup")
		case err != nil && !errors.Is(err, ErrBackup) && !errors.Is(err, io.EOF):
			t.Fatalf("unexpected: %v", err)
		}
	})
}

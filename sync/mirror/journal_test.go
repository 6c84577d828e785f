package mirror

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

func openTestJournal(t *testing.T, path string) *journal {
	t.Helper()
	j, err := openJournal(osDisk{}, path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// randomLine gives a line that may follow in a journal.
func randomLine(r *rand.Rand, seq *uint64) line {
	path := func() string { return fmt.Sprintf("d%d/f%d", r.IntN(3), r.IntN(5)) }
	switch r.IntN(5) {
	case 0:
		return line{Made: []string{fmt.Sprintf("d%d", r.IntN(3))}}
	case 1:
		return line{Ran: &ran{fmt.Sprintf("t%d", r.IntN(2)), uint64(r.IntN(int(*seq) + 1))}}
	case 2:
		b := base{version(1 + r.IntN(200)), hash{byte(r.IntN(256))}, int64(r.IntN(100))}
		return line{Staged: []stagedFile{stage(path(), "temp", b), stage("z", "", b)}}
	default:
		*seq++
		return line{Done: &outcome{
			Seq: *seq, Failed: []string{path()}, Gone: []goneFile{{path(), "w"}}, Unmade: []string{fmt.Sprintf("d%d", r.IntN(3))},
			Due: []string{fmt.Sprintf("t%d", r.IntN(2))},
		}}
	}
}

func equalLedgers(a, b *ledger) bool {
	a, b = clone(a), clone(b)
	a.seq, b.seq = 0, 0 // counts on from the highest that is still due
	return reflect.DeepEqual(a, b)
}

func clone(l *ledger) *ledger {
	c := *l
	if len(c.staged) == 0 {
		c.staged = nil
	}
	return &c
}

func TestJournalKeepsTheLedgerOverReopeningAndRewriting(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	path := filepath.Join(t.TempDir(), "j")
	j := openTestJournal(t, path)
	if err := j.append(line{Mirror: &header{Format: journalFormat, ID: "id", Prefix: "/p", Dir: "/d"}}); err != nil {
		t.Fatal(err)
	}
	var seq uint64
	for n := range 600 {
		if err := j.append(randomLine(r, &seq)); err != nil {
			t.Fatal(err)
		}
		if n%20 != 19 {
			continue
		}
		before := j.ledger
		if r.IntN(2) == 0 {
			j.broken = true // the next line rewrites it
			if err := j.append(line{Made: []string{"d0"}}); err != nil {
				t.Fatal(err)
			}
		}
		if err := j.close(); err != nil {
			t.Fatal(err)
		}
		if j = openTestJournal(t, path); !equalLedgers(before, j.ledger) {
			t.Fatalf("seed %d: after %d lines:\n was %+v\n is  %+v", seed, n, before, j.ledger)
		}
	}
	if err := j.close(); err != nil {
		t.Fatal(err)
	}
}

func TestJournalStaysBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	j := openTestJournal(t, path)
	defer func() { _ = j.close() }()
	if err := j.append(line{Mirror: &header{Format: journalFormat, ID: "id"}}); err != nil {
		t.Fatal(err)
	}
	var files []stagedFile
	for n := range 500 {
		files = append(files, stage(fmt.Sprintf("some/directory/file-%d", n), "", base{version: version(1)}))
	}
	for n := range 50 {
		if err := j.append(line{Staged: files, Done: &outcome{Seq: uint64(n), Due: []string{"t"}}}); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Size() > 2<<20 || len(j.ledger.base) != 500 {
		t.Errorf("500 files written 50 times make a journal of %d bytes (%v)", info.Size(), err)
	}
}

func TestJournalCutsOffATornTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	j := openTestJournal(t, path)
	var whole []int64
	for n := range 5 {
		l := line{Made: []string{fmt.Sprintf("d%d", n)}}
		if n == 0 {
			l = line{Mirror: &header{Format: journalFormat, ID: "id"}}
		}
		if err := j.append(l); err != nil {
			t.Fatal(err)
		}
		whole = append(whole, j.size)
	}
	if err := j.close(); err != nil {
		t.Fatal(err)
	}
	full, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for cut := range len(full) {
		for _, zeros := range []int{0, 7} { // a torn page may hold zeros
			text := append(bytes.Clone(full[:cut]), make([]byte, zeros)...)
			if err := os.WriteFile(path, text, 0o600); err != nil {
				t.Fatal(err)
			}
			lines := 0
			for lines < len(whole) && whole[lines] <= int64(cut) {
				lines++
			}
			j := openTestJournal(t, path)
			if got := len(j.ledger.dirs); got != max(0, lines-1) {
				t.Fatalf("cut at %d: %d lines, want %d", cut, got+1, lines)
			}
			if err := errors.Join(j.append(line{Made: []string{"after"}}), j.close()); err != nil {
				t.Fatal(err)
			}
			j = openTestJournal(t, path)
			if !j.madeDir("after") {
				t.Fatalf("cut at %d: what was appended after the repair is lost", cut)
			}
			if err := j.close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestDamagedJournalIsSetAside(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	j := openTestJournal(t, path)
	err := errors.Join(j.append(line{Mirror: &header{Format: journalFormat, ID: "id"}}), j.append(line{Made: []string{"d"}}), j.close())
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text[20] ^= 1
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	j = openTestJournal(t, path)
	defer func() { _ = j.close() }()
	if j.head().ID != "" || len(j.ledger.dirs) != 0 {
		t.Error("something of a damaged journal is believed")
	}
	if aside, _ := filepath.Glob(path + ".damaged-*"); len(aside) != 1 {
		t.Errorf("set aside: %v", aside)
	}
}

func TestJournalOfANewerVersionIsRefused(t *testing.T) {
	for _, text := range []string{`{"mirror":{"format":2,"id":"x","prefix":"/","dir":"/d"}}`, `{"future":1}`} {
		path := filepath.Join(t.TempDir(), "j")
		raw := fmt.Appendf(nil, "%08x %s\n", checksum([]byte(text)), text)
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		if j, err := openJournal(osDisk{}, path, slog.New(slog.DiscardHandler)); err == nil {
			t.Errorf("%s was accepted", text)
			_ = j.close()
		}
		if left, _ := os.ReadFile(path); !bytes.Equal(left, raw) {
			t.Error("the file was changed")
		}
	}
}

func TestJournalHasOneOwner(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	j := openTestJournal(t, path)
	defer func() { _ = j.close() }()
	if _, err := openJournal(osDisk{}, path, slog.New(slog.DiscardHandler)); !errors.Is(err, ErrBusy) {
		t.Errorf("second open: %v, want ErrBusy", err)
	}
}

func TestOutcomeSettlesWhatWasStaged(t *testing.T) {
	l := newLedger()
	b := base{version: version(3), hash: hash{1}, size: 2}
	for _, n := range []line{
		{Staged: []stagedFile{stage("old", "", b)}, Done: &outcome{Seq: 1}},
		{Made: []string{"d", "e"}},
		{Staged: []stagedFile{stage("good", "t1", b), stage("bad", "t2", b)}},
		{Done: &outcome{Seq: 2, Failed: []string{"bad"}, Gone: []goneFile{{"old", "w"}}, Unmade: []string{"e"}, Due: []string{"t"}}},
	} {
		if err := l.apply(n); err != nil {
			t.Fatal(err)
		}
	}
	want := newLedger()
	want.seq = 2
	want.base["good"] = b
	want.dirs["d"] = struct{}{}
	want.due["t"] = map[string]mark{"good": {2, b.version.WriteString()}, "old": {2, "w"}}
	if !equalLedgers(l, want) {
		t.Errorf("ledger %+v\nwant   %+v", l, want)
	}
	l.seen("t", 1)
	if len(l.due["t"]) != 2 {
		t.Error("a run that saw less took a mark away")
	}
	if l.seen("t", 2); len(l.due) != 0 {
		t.Errorf("still due: %v", l.due)
	}
}

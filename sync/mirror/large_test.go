package mirror

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"syncagent/crdtstore/record"
)

// TestLargeFilesGoBothWays holds that files over 256 KiB are put and fetched like others, each in a write of its own.
func TestLargeFilesGoBothWays(t *testing.T) {
	b := pushBench(t, ModeBoth)
	ours, theirs := strings.Repeat("o", 2*record.MaxInlineValue), strings.Repeat("t", record.MaxInlineValue+1)
	b.src.write(put("/p/theirs", theirs), put("/p/same", theirs))
	b.write("ours", ours)
	b.write("same", theirs)
	b.write("small", "s")
	b.push()
	all := map[string]string{"theirs": theirs, "same": theirs, "ours": ours, "small": "s"}
	b.expect(all)
	b.expectSource(all)
	if n := len(b.src.history["/p/same"]); n != 1 {
		t.Error("an equal file was put")
	}
	// Two edits of a path: the earlier one stays in its history.
	b.write("ours", ours+"local")
	past := time.Now().Add(-time.Hour)
	if err := os.Chtimes(b.path("ours"), past, past); err != nil {
		t.Fatal(err)
	}
	b.src.write(put("/p/ours", ours+"by them"))
	b.push()
	b.expectSource(map[string]string{"theirs": theirs, "same": theirs, "ours": ours + "by them", "small": "s"})
	if !slices.Contains(b.src.history["/p/ours"], ours+"local") {
		t.Error("the earlier edit is not in the history")
	}
}

// TestLargeFileThatChangesIsNotPut holds that what is put is what a file held as a whole.
func TestLargeFileThatChangesIsNotPut(t *testing.T) {
	b := pushBench(t, ModePush)
	b.write("x", strings.Repeat("1", 4*record.MaxInlineValue))
	b.src.onContent = func() {
		b.src.onContent = nil
		f, err := os.OpenFile(b.path("x"), os.O_WRONLY, 0)
		if err == nil {
			_, err = f.WriteAt([]byte("2"), 3*record.MaxInlineValue)
		}
		if err != nil {
			t.Error(err)
		}
		_ = f.Close()
	}
	m := b.twoWay()
	if err := m.Once(context.Background()); err != nil {
		t.Fatal(err)
	}
	for _, value := range b.src.history["/p/x"] {
		if n := strings.Count(value, "2"); n != 1 || len(value) != 4*record.MaxInlineValue {
			t.Errorf("a file was put that never was: %d bytes, %d changed", len(value), n)
		}
	}
	if b.src.onContent != nil || len(b.src.history["/p/x"]) != 1 {
		t.Errorf("%d versions", len(b.src.history["/p/x"]))
	}
}

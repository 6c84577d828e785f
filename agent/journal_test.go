package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestLogToTheJournalHasPriorities(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "journal"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close() //nolint:errcheck // a test's
	info, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	stat := info.Sys().(*syscall.Stat_t)
	lines := func(stream string) []string {
		t.Helper()
		t.Setenv("JOURNAL_STREAM", stream)
		if err := file.Truncate(0); err != nil {
			t.Fatal(err)
		}
		if _, err := file.Seek(0, 0); err != nil {
			t.Fatal(err)
		}
		log, _, err := NewLogger(file, LogConfig{Level: "debug", Format: "auto"})
		if err != nil {
			t.Fatal(err)
		}
		log = log.With("part", "test")
		log.Debug("d")
		log.Info("i")
		log.WithGroup("g").Warn("w", "k", "v")
		log.Error("e")
		text, err := os.ReadFile(file.Name())
		if err != nil {
			t.Fatal(err)
		}
		return strings.Split(strings.TrimSpace(string(text)), "\n")
	}
	for i, l := range lines(fmt.Sprintf("%d:%d", stat.Dev, stat.Ino)) {
		if want := []string{"<7>{", "<6>{", "<4>{", "<3>{"}[i]; !strings.HasPrefix(l, want) {
			t.Errorf("line %d is %s, want %s", i, l, want)
		}
	}
	for _, l := range lines("1:2") { // another stream is the journal
		if !strings.HasPrefix(l, "{") {
			t.Errorf("not for the journal: %s", l)
		}
	}
}

package test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestTroubleshootingTextsAreProduced holds that each message in the table of docs/operations.md is demanded by a script:
// some command really says it.
func TestTroubleshootingTextsAreProduced(t *testing.T) {
	var demanded []string
	files, err := filepath.Glob("../cmd/syncagent/testdata/script/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^stderr '([^']*)'`).FindAllStringSubmatch(string(text), -1) {
			demanded = append(demanded, m[1])
		}
	}
	text, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "| the message has |")
	rows := regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(table, -1)
	if len(rows) < 20 {
		t.Fatalf("found %d rows", len(rows))
	}
	for _, row := range rows {
		produced := false
		for _, pattern := range demanded {
			produced = produced || strings.Contains(pattern, row[1])
		}
		if !produced {
			t.Errorf("no script demands %q of a command", row[1])
		}
	}
}

package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestAlarmsAreDocumented holds the table of docs/operations.md to AlarmKinds. It prints the rows that are missing.
func TestAlarmsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	var rows []string
	for _, k := range AlarmKinds {
		ends := "by itself"
		if k.Restart {
			ends = "restart"
		}
		rows = append(rows, fmt.Sprintf("| `%s` | %s | %s | %s |\n", k.Code, k.Means, k.Hint, ends))
	}
	if want := strings.Join(rows, ""); !strings.Contains(string(text), want) {
		t.Errorf("the table is not:\n%s", want)
	}
}

// TestAlarmsHaveAKind holds that every code that the program raises is in AlarmKinds, and that each of these is raised
// somewhere.
func TestAlarmsHaveAKind(t *testing.T) {
	raised := map[string]bool{}
	for _, bad := range alarmingStates {
		raised["mirror-"+string(bad)] = true
	}
	call := regexp.MustCompile(`(?:Raise|[sS]et|alarm|Alarm)\("([a-z-]+)",|(?m)^\s*(?:const )?[aA]larm[A-Z]\w+\s+= "([a-z-]+)"`)
	for _, pattern := range []string{"*.go", "../crdtstore/*.go", "../p2p/*.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v", pattern, err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range call.FindAllStringSubmatch(string(text), -1) {
				raised[m[1]+m[2]] = true
			}
		}
	}
	known := map[string]bool{}
	for _, k := range AlarmKinds {
		known[k.Code] = true
		if !raised[k.Code] {
			t.Errorf("nothing raises %s", k.Code)
		}
		if k.Hint == "" || k.Means == "" {
			t.Errorf("%s: no meaning or hint", k.Code)
		}
	}
	for code := range raised {
		if !known[code] {
			t.Errorf("%s is raised and not in AlarmKinds", code)
		}
	}
	if len(raised) < 15 || !slices.ContainsFunc(AlarmKinds, func(k AlarmKind) bool { return k.Code == "diverged" }) {
		t.Errorf("found %d codes only", len(raised))
	}
}

package trigger

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	for _, c := range []struct{ name, text, fault string }{
		{"least", `{"path":"/certs","command":"true"}`, ""},
		{"all", ` {"path":"/certs/","command":"true","null":true,"timeout":"90s"} ` + "\n", ""},
		{"everything", `{"path":"/","command":"true"}`, ""},
		{"empty", ``, "empty"},
		{"not json", `path=/certs`, "bad json"},
		{"cut off", `{"path":"/certs"`, "bad json"},
		{"two objects", `{"path":"/a","command":"x"}{}`, "after the object"},
		{"misspelt key", `{"path":"/a","command":"x","tiemout":"1s"}`, "tiemout"},
		{"no path", `{"command":"x"}`, "path is missing"},
		{"bad path", `{"path":"certs","command":"x"}`, "must begin with /"},
		{"path with dots", `{"path":"/a/../b","command":"x"}`, "not allowed"},
		{"no command", `{"path":"/a","command":" "}`, "command is missing"},
		{"NUL in the command", `{"path":"/a","command":"a\u0000b"}`, "NUL"},
		{"bad timeout", `{"path":"/a","command":"x","timeout":"soon"}`, "timeout"},
		{"no time", `{"path":"/a","command":"x","timeout":"0s"}`, "timeout"},
		{"too long", `{"path":"/a","command":"x","timeout":"25h"}`, "timeout"},
	} {
		s, err := Parse("n", []byte(c.text))
		if c.fault == "" && err != nil || c.fault != "" && (err == nil || !strings.Contains(err.Error(), c.fault)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.fault)
		}
		if c.name == "all" && !reflect.DeepEqual(s, Spec{Name: "n", Path: "/certs", Command: "true", Null: true, Timeout: 90 * time.Second}) {
			t.Errorf("%+v", s)
		}
		if c.name == "least" && !reflect.DeepEqual(s, Spec{Name: "n", Path: "/certs", Command: "true", Timeout: DefaultTimeout}) {
			t.Errorf("%+v", s)
		}
	}
}

func triggerDir(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestLoadReportsFaultsByFileAndGoesOn(t *testing.T) {
	good := `{"path":"/certs","command":"true"}`
	dir := triggerDir(t, map[string]string{
		"b": good, "a": good, "with.dot": "not json", ".hidden": "not json", "bad": "not json", "loose": good,
		"huge": `{"path":"/certs","command":"` + strings.Repeat("x", maxFileBytes) + `"}`,
	})
	err := errors.Join(os.Mkdir(filepath.Join(dir, "folder"), 0o755), os.Chmod(filepath.Join(dir, "loose"), 0o664),
		syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o644), os.Symlink("nowhere", filepath.Join(dir, "dangling")),
		os.Symlink("a", filepath.Join(dir, "link")))
	if err != nil {
		t.Fatal(err)
	}
	specs, err := Load(dir)
	var names []string
	for _, s := range specs {
		names = append(names, s.Name)
	}
	if got := strings.Join(names, " "); got != "a b link" {
		t.Errorf("loaded %q", got)
	}
	for _, want := range []string{"/bad: bad json", "loose is writable by others", "/huge: larger than", "/pipe: not a regular", "/dangling: no such file"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v lacks %q", err, want)
		}
	}
	if n := strings.Count(err.Error(), "\n"); n != 4 {
		t.Errorf("%d faults, want 5: %v", n+1, err)
	}
}

func TestLoadRefusesWhatOthersMayWrite(t *testing.T) {
	for _, mode := range []os.FileMode{0o775, 0o757, 0o777 | os.ModeSticky} {
		dir := triggerDir(t, map[string]string{"a": `{"path":"/a","command":"true"}`})
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		if specs, err := Load(dir); err == nil || !strings.Contains(err.Error(), "chmod go-w") || specs != nil {
			t.Errorf("directory of mode %v: %v, %v", mode, specs, err)
		}
	}
	if _, err := Load(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing directory: %v", err)
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	dir := triggerDir(t, map[string]string{"a": `{"path":"/a","command":"true"}`})
	if err := os.Chown(filepath.Join(dir, "a"), 12345, 0); err != nil {
		t.Fatal(err)
	}
	if specs, err := Load(dir); err == nil || !strings.Contains(err.Error(), "belongs to user 12345") || specs != nil {
		t.Errorf("file of somebody else: %v, %v", specs, err)
	}
}

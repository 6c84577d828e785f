package trigger

import (
	"strings"
	"testing"

	"syncagent/crdtstore/record"
)

// FuzzSpec: a trigger file is refused, or has a path and a command that can be run.
func FuzzSpec(f *testing.F) {
	f.Add([]byte(`{"path": "/certs", "command": "systemctl reload nginx"}`))
	f.Add([]byte(`{"path": "/", "command": "x", "null": true, "timeout": "1m"}`))
	f.Add([]byte(`{"path": "/a", "command": ""} {}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := Parse("name", data)
		if err != nil {
			return
		}
		if clean, err := record.CleanPrefix(s.Path); err != nil || clean != s.Path {
			t.Errorf("path %q: %v", s.Path, err)
		}
		if strings.TrimSpace(s.Command) == "" || strings.ContainsRune(s.Command, 0) || s.Timeout <= 0 {
			t.Errorf("%+v", s)
		}
	})
}

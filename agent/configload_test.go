package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A configuration is read up to its limit, also from what does not know its size.
func TestConfigFromAnEndlessFile(t *testing.T) {
	if _, err := LoadConfig("/dev/zero", nil); err == nil || !strings.Contains(err.Error(), "limit") {
		t.Errorf("%v", err)
	}
	large := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(large, make([]byte, maxConfigBytes+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadConfig(large, nil); err == nil || !strings.Contains(err.Error(), "limit") {
		t.Errorf("%v", err)
	}
}

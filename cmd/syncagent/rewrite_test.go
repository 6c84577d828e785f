package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"syncagent/agent"
)

// A configuration that only its owner could read stays so when a line of it is changed.
func TestRewrittenConfigKeepsItsMode(t *testing.T) {
	cfg := agent.DefaultConfig()
	cfg.File = filepath.Join(t.TempDir(), "syncagent.yaml")
	if err := agent.WriteConfig(cfg.File, cfg); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []fs.FileMode{0o600, 0o640} {
		if err := os.Chmod(cfg.File, mode); err != nil {
			t.Fatal(err)
		}
		cfg.Name = fmt.Sprintf("web%o", mode)
		if err := rewriteConfig(cfg, "name"); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(cfg.File)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != mode {
			t.Errorf("mode %v, was %v", info.Mode(), mode)
		}
	}
}

package crdtstore

import (
	"os"
	"path/filepath"
	"testing"
)

// TestRebuildGoesOnAfterACrash holds that a crash in the middle of a rebuild loses nothing of the damaged store.
func TestRebuildGoesOnAfterACrash(t *testing.T) {
	for name, left := range map[string]func(t *testing.T, n *testNet, dir string){
		"listed, not renamed": func(t *testing.T, _ *testNet, dir string) {
			if err := os.Rename(filepath.Join(dir, asideName+"1"), filepath.Join(dir, "store")); err != nil {
				t.Fatal(err)
			}
		},
		"renamed": func(*testing.T, *testNet, string) {},
		"new store made": func(_ *testing.T, n *testNet, dir string) {
			n.startOn("a", nil, dir).stop()
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newTestNet(t, 1)
			dir := t.TempDir()
			a := n.startOn("a", nil, dir)
			a.apply(n.openPolicy())
			a.put("/only", "here")
			a.stop()
			if err := os.WriteFile(filepath.Join(dir, "store", rebuildMark), []byte("for a test"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(filepath.Join(dir, "store"), filepath.Join(dir, asideName+"1")); err != nil {
				t.Fatal(err)
			}
			left(t, n, dir)
			if err := writeRebuildList(filepath.Join(dir, rebuildList), []string{asideName + "1"}); err != nil {
				t.Fatal(err)
			}
			a = n.startOn("a", nil, dir)
			if got := a.get("/only"); got != "here" || !a.alarmed("store-damaged") {
				t.Fatalf("it shows %q, alarms %v", got, a.alarms)
			}
			a.stop()
			if _, err := os.Stat(filepath.Join(dir, rebuildList)); err == nil {
				t.Error("the rebuild is not over")
			}
		})
	}
}

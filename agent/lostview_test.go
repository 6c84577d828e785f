package agent

import (
	"os"
	"path/filepath"
	"testing"

	"connectrpc.com/connect"

	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore/record"
)

// A store that was moved away is empty until other agents have filled it: nothing that it does not know of is taken for
// deleted.
func TestMirrorOfAnEmptiedStoreKeepsItsFiles(t *testing.T) {
	n := newTestNetwork(t)
	a := newTestAgent(t, n)
	m := defaultMirror()
	m.Prefix, m.Dir = "/p", filepath.Join(t.TempDir(), "out")
	a.config.Mirrors = []MirrorConfig{m}
	policy := n.policy(1, map[string]record.PublicKey{"a": a.key})
	apply := func() {
		t.Helper()
		if _, err := a.client.Policy.Apply(t.Context(), connect.NewRequest(&apiv1.ApplyRequest{Signed: policy})); err != nil {
			t.Fatal(err)
		}
	}
	a.start()
	apply()
	a.mustPut("/p/cert", "1")
	a.mustPut("/p/key", "2")
	there := func(name string) func() bool {
		return func() bool { _, err := os.Stat(filepath.Join(m.Dir, name)); return err == nil }
	}
	eventually(t, "the files", func() bool { return there("cert")() && there("key")() })
	a.stop()
	if err := os.RemoveAll(filepath.Join(a.config.DataDir, "store")); err != nil {
		t.Fatal(err)
	}
	a.start()
	apply()
	eventually(t, "a look at the mirror", func() bool { return a.status().GetMirrors()[0].GetState() == "incomplete" })
	if !there("cert")() || !there("key")() {
		t.Error("files are gone")
	}
	// What is known to be deleted goes.
	a.mustPut("/p/cert", "3")
	a.remove("/p/cert")
	eventually(t, "the removal", func() bool { return !there("cert")() })
	if !there("key")() {
		t.Error("the other file is gone")
	}
	a.stop()
}

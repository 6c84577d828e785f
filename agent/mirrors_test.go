package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"connectrpc.com/connect"

	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore/record"
)

// mirrorAgent starts an agent that is alone in its network with these mirrors and triggers.
func mirrorAgent(t *testing.T, change func(c *Config)) *testAgent {
	t.Helper()
	n := newTestNetwork(t)
	a := newTestAgent(t, n)
	if err := os.WriteFile(a.config.PolicyFile(), n.policy(1, map[string]record.PublicKey{"one": a.key}), 0o644); err != nil {
		t.Fatal(err)
	}
	change(&a.config)
	a.start()
	return a
}

func (a *testAgent) hasAlarm(code string) bool {
	for _, alarm := range a.status().GetAlarms() {
		if alarm.GetCode() == code {
			return true
		}
	}
	return false
}

func TestMirrorCommandsOfTheConfiguration(t *testing.T) {
	out := t.TempDir()
	dir := filepath.Join(out, "m")
	note := func(file string) []string { return []string{"/bin/sh", "-c", "cat >> " + filepath.Join(out, file)} }
	read := func(file string) string { b, _ := os.ReadFile(filepath.Join(out, file)); return string(b) }
	a := mirrorAgent(t, func(c *Config) {
		c.Mirrors = []MirrorConfig{
			{Name: "m", Prefix: "/m", Dir: dir, Mode: "pull", Exclude: []string{"*.bak"}, OnChange: note("changed"),
				Check: []string{"/bin/sh", "-c", `! grep -rq bad "$SYNCAGENT_STAGED"`}},
			{Name: "r", Prefix: "/r", Dir: filepath.Join(out, "r"), Mode: "pull", OnChange: []string{"/bin/sh", "-c", `! grep -rq wrong "$SYNCAGENT_DIR"`}, Rollback: true},
		}
		c.Triggers = []TriggerConfig{
			{Path: "/m/sub", Command: note("sub")},
			{Name: "fails", Path: "/", Command: []string{"false"}, Retries: 1},
		}
	})
	put := func(path, value string) {
		t.Helper()
		if err := a.put(path, value); err != nil {
			t.Fatal(err)
		}
	}
	put("/m/x.bak", "no")
	put("/m/sub/x", "1")
	waitUntil(t, "commands ran", func() bool { return read("sub") == "/m/sub/x\n" && read("changed") == "/m/sub/x\n" })
	if read("m/x.bak") != "" {
		t.Error("an excluded file was mirrored")
	}
	waitUntil(t, "an alarm tells of the trigger that failed", func() bool { return a.hasAlarm("trigger-failed") })
	put("/m/sub/x", "bad")
	waitUntil(t, "an alarm tells of the refused change", func() bool { return a.hasAlarm("mirror-incomplete") })
	if got := read("m/sub/x"); got != "1" {
		t.Errorf("the refused change is live: %q", got)
	}
	put("/m/sub/x", "good")
	waitUntil(t, "the next change is live", func() bool { return read("m/sub/x") == "good" && !a.hasAlarm("mirror-incomplete") })
	put("/r/y", "1")
	waitUntil(t, "first file", func() bool { return read("r/y") == "1" })
	put("/r/y", "wrong") // no hex: the mirror's marker has an ID
	waitUntil(t, "rolled back", func() bool { return a.hasAlarm("mirror-incomplete") })
	if got := read("r/y"); got != "1" {
		t.Errorf("the file is %q after the roll-back", got)
	}
}

func TestHeldRemovalsAreConfirmed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "m")
	a := mirrorAgent(t, func(c *Config) {
		c.Mirrors = []MirrorConfig{{Prefix: "/m", Dir: dir, Mode: "pull", MaxDelete: 0.1}}
	})
	count := func() int { all, _ := filepath.Glob(filepath.Join(dir, "f*")); return len(all) }
	batch := func(op func(path string) *apiv1.Op) {
		t.Helper()
		var ops []*apiv1.Op
		for i := range 30 {
			ops = append(ops, op(fmt.Sprintf("/m/f%d", i)))
		}
		if _, err := a.client.KV.Batch(t.Context(), connect.NewRequest(&apiv1.BatchRequest{Ops: ops})); err != nil {
			t.Fatal(err)
		}
	}
	confirm := func(name string) (int64, error) {
		r, err := a.client.Agent.ConfirmMirror(t.Context(), connect.NewRequest(&apiv1.ConfirmMirrorRequest{Name: name}))
		if err != nil {
			return 0, err
		}
		return r.Msg.GetRemovals(), nil
	}
	batch(func(p string) *apiv1.Op {
		return &apiv1.Op{Op: &apiv1.Op_Put{Put: &apiv1.PutRequest{Path: p, Value: []byte("x")}}}
	})
	waitUntil(t, "filled", func() bool { return count() == 30 })
	if _, err := confirm("/m"); ErrorOf(err) == nil || ErrorOf(err).Code != CodePrecondition {
		t.Errorf("confirmed what is not held: %v", err)
	}
	if _, err := confirm("nope"); ErrorOf(err) == nil || ErrorOf(err).Code != CodeNotFound || !strings.Contains(ErrorOf(err).Hint, "/m") {
		t.Errorf("confirmed a mirror that is not there: %v", err)
	}
	batch(func(p string) *apiv1.Op {
		return &apiv1.Op{Op: &apiv1.Op_Delete{Delete: &apiv1.DeleteRequest{Path: p}}}
	})
	waitUntil(t, "held", func() bool { return a.hasAlarm("mirror-held") })
	if n, err := confirm("/m"); n != 30 || err != nil {
		t.Errorf("confirmed %d, %v", n, err)
	}
	waitUntil(t, "removed", func() bool { return count() == 0 && !a.hasAlarm("mirror-held") })
}

// What is edited in one directory reaches the other one, through the store, with its mode; what the policy or a limit
// refuses is named and holds up nothing else.
func TestMirrorsPushAndGoBothWays(t *testing.T) {
	top := t.TempDir()
	left, right, pushed := filepath.Join(top, "left"), filepath.Join(top, "right"), filepath.Join(top, "pushed")
	a := mirrorAgent(t, func(c *Config) {
		c.Limits.Value = 4 << 20
		c.Mirrors = []MirrorConfig{
			{Name: "left", Prefix: "/shared", Dir: left, Mode: "both", PreserveMode: true, ConflictCopy: true},
			{Name: "right", Prefix: "/shared", Dir: right, Mode: "both", PreserveMode: true},
			{Name: "pushed", Prefix: "/pushed", Dir: pushed, Mode: "push"},
		}
	})
	write := func(file, text string, mode os.FileMode) {
		t.Helper()
		waitUntil(t, "the directory is there", func() bool { _, err := os.Stat(filepath.Dir(file)); return err == nil })
		if err := os.WriteFile(file, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	holds := func(file, text string, mode os.FileMode) func() bool {
		return func() bool {
			b, err := os.ReadFile(file)
			info, serr := os.Stat(file)
			return err == nil && serr == nil && string(b) == text && info.Mode().Perm() == mode
		}
	}
	write(filepath.Join(left, "a"), "from the left", 0o600)
	waitUntil(t, "right has it", holds(filepath.Join(right, "a"), "from the left", 0o600))
	write(filepath.Join(right, "a"), "from the right", 0o600)
	waitUntil(t, "left has it", holds(filepath.Join(left, "a"), "from the right", 0o600))
	if err := os.Remove(filepath.Join(left, "a")); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "it is gone", func() bool { _, err := os.Stat(filepath.Join(right, "a")); return os.IsNotExist(err) })

	large := strings.Repeat("x", 3*record.MaxInlineValue+1)
	write(filepath.Join(left, "large"), large, 0o600)
	waitUntil(t, "right has the large one", holds(filepath.Join(right, "large"), large, 0o600))
	write(filepath.Join(pushed, "large"), strings.Repeat(large, 6), 0o644) // over limits.value
	write(filepath.Join(pushed, "small"), "s", 0o644)
	waitUntil(t, "it was put", func() bool {
		r, err := a.client.KV.Get(t.Context(), connect.NewRequest(&apiv1.GetRequest{Path: "/pushed/small"}))
		return err == nil && string(r.Msg.GetEntry().GetValue()) == "s"
	})
	waitUntil(t, "the other is named", func() bool { return a.hasAlarm("mirror-incomplete") })
}

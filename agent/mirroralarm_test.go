package agent

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"syncagent/crdtstore/record"
	"syncagent/sync/trigger"
)

// Two triggers may run the same command: one that works does not hide that the other fails.
func TestAlarmOfTwoTriggersWithOneCommand(t *testing.T) {
	spec := func(name, env string) trigger.Spec {
		return trigger.Spec{Name: name, Path: "/p", Command: `test "$OK" = yes`, Env: []string{"OK=" + env}, Timeout: time.Minute}
	}
	var log strings.Builder
	alarms := NewAlarms(slog.New(slog.NewTextHandler(&log, nil)))
	one := &configMirror{title: "m", triggers: trigger.New(trigger.Options{Specs: []trigger.Spec{spec("a", "no"), spec("b", "yes")}})}
	one.triggers.Notify(1, []trigger.Change{{Path: "/p/x"}})
	if one.triggers.RunPending(context.Background(), nil) == nil {
		t.Fatal("none failed")
	}
	for range 3 {
		one.watchTriggers(alarms)
		if list := alarms.List(); len(list) != 1 || list[0].Code != "trigger-failed" {
			t.Fatalf("alarms %+v", list)
		}
	}
	if n := strings.Count(log.String(), "alarm raised"); n != 1 {
		t.Errorf("raised %d times", n)
	}
}

// A reload that fails leaves the alarms of the mirrors that go on.
func TestFailedReloadKeepsTheAlarmOfFaultyTriggerFiles(t *testing.T) {
	top := t.TempDir()
	c := DefaultConfig()
	c.DataDir, c.Network = filepath.Join(top, "data"), record.NetworkID{1}.String()
	m := defaultMirror()
	m.Prefix, m.Dir, m.TriggersDir = "/p", filepath.Join(top, "out"), filepath.Join(top, "triggers")
	c.Mirrors = []MirrorConfig{m}
	if err := errors.Join(os.Mkdir(m.TriggersDir, 0o755), os.WriteFile(filepath.Join(m.TriggersDir, "bad"), []byte("no json"), 0o644)); err != nil {
		t.Fatal(err)
	}
	alarms := NewAlarms(quiet())
	set, err := newMirrorSet(&c, alarms, func(c *Config) (*mirrors, error) { return newMirrors(c, newFakeStore(), alarms, nil, quiet()) })
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- set.run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	raised := func() bool {
		return slices.ContainsFunc(alarms.List(), func(a Alarm) bool { return a.Code == "trigger-files" && a.Subject == "/p" })
	}
	eventually(t, "the alarm", raised)
	next := c
	other := defaultMirror()
	other.Prefix, other.Dir, other.Owner = "/q", filepath.Join(top, "other"), "no-such-user"
	next.Mirrors = []MirrorConfig{other, m}
	if set.replace(&next) == nil {
		t.Fatal("a mirror without its owner was made")
	}
	if !raised() {
		t.Error("the alarm is gone")
	}
	if err := os.WriteFile(filepath.Join(m.TriggersDir, "bad"), []byte(`{"path":"/p","command":"true"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := set.replace(&c); err != nil {
		t.Fatal(err)
	}
	eventually(t, "its end", func() bool { return !raised() })
}

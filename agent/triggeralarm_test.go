package agent

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

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

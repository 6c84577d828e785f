package agent

import (
	"fmt"
	"testing"
	"time"
)

func TestAlarms(t *testing.T) {
	a := NewAlarms(quiet())
	now := time.Unix(100, 0)
	a.now = func() time.Time { return now }
	a.Set("disk-full", "3 MiB free")
	now = now.Add(time.Minute)
	a.Set("disk-full", "2 MiB free")
	a.Raise("mirror-halted", "certs", "root is gone")
	a.Raise("mirror-halted", "web", "root is gone")
	list := a.List()
	if len(list) != 3 || list[0].Code != "disk-full" || !list[0].Since.Equal(time.Unix(100, 0)) || list[0].Message != "2 MiB free" || list[0].Hint == "" {
		t.Errorf("%+v", list)
	}
	a.Set("disk-full", "")
	a.Clear("mirror-halted", "certs")
	if list := a.List(); len(list) != 1 || list[0].Subject != "web" {
		t.Errorf("%+v", list)
	}
	for i := range 2 * maxAlarms {
		a.Raise("mirror-halted", fmt.Sprint(i), "")
	}
	if n := len(a.List()); n != maxAlarms {
		t.Errorf("%d alarms", n)
	}
}

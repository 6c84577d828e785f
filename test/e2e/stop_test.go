package e2e

import (
	"fmt"
	"path/filepath"
	"syscall"
	"testing"
)

// SIGTERM comes while watches, mirrors, triggers and puts are under way. The time is printed: five seconds are promised.
func TestStopCleanlyUnderLoad(t *testing.T) {
	f := newFleet(t, "a", "b")
	a, b := f.hosts[0], f.hosts[1]
	a.mirror("/", a.trigger("/app", "sleep 60"))
	f.start()
	f.apply(everything)
	f.connect()
	var watchers []*watcher
	for range 5 {
		w := a.watch("/")
		w.until(t, func(e event) bool { return e.Type == "synced" })
		watchers = append(watchers, w)
	}
	mirror, _ := a.background("mirror", "/app", filepath.Join(a.dir, "more"))
	acked, stopped := map[string]string{}, make(chan struct{})
	enough := make(chan struct{})
	go func() {
		defer close(stopped)
		stream(a, 0, 0, func(path, value string) {
			if acked[path] = value; len(acked) == 50 {
				close(enough)
			}
		})
	}()
	b.mustBatch(fileGeneration("/app", 1)) // and a trigger runs
	<-enough
	eventually(t, func() error {
		if s := a.status(); len(s.Triggers) != 1 || !s.Triggers[0].Pending {
			return fmt.Errorf("triggers %v", s.Triggers)
		}
		return nil
	})
	t.Log("stopped after", a.stop())
	<-stopped
	for _, w := range watchers {
		w.until(t, func(event) bool { return false }) // their agent is gone: they end by themselves
	}
	_ = mirror.Process.Signal(syscall.SIGTERM)

	a.start()
	missing(t, 0, a, acked)
	f.converge()
	missing(t, 0, b, acked)
	for _, h := range f.hosts {
		t.Log(h.name, "stopped after", h.stop())
	}
}

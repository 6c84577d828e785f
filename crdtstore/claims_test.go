package crdtstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
)

// TestG12_TenThousandWatchersMissNothing has 10,000 watches on one store, of which each is told of every put, in order.
func TestG12_TenThousandWatchersMissNothing(t *testing.T) {
	watchers, puts := 10_000, 20
	if raceEnabled || testing.Short() {
		watchers = 500
	}
	n := newTestNet(t, 1)
	a := n.start("a", nil)
	a.apply(n.openPolicy())
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var ready, done sync.WaitGroup
	ready.Add(watchers)
	var gaps atomic.Int64
	for range watchers {
		done.Go(func() {
			next := 0
			err := a.Watch(ctx, WatchOptions{Prefixes: []string{"/w"}}, func(e Event) error {
				switch e.Type {
				case EventSynced:
					ready.Done()
				case EventPut:
					if e.Item.Path != fmt.Sprintf("/w/%03d", next) {
						gaps.Add(1)
					}
					if next++; next == puts {
						return errBreak
					}
				}
				return nil
			})
			if !errors.Is(err, errBreak) {
				t.Errorf("watch: %v", err)
			}
		})
	}
	ready.Wait()
	for i := range puts {
		a.put(fmt.Sprintf("/w/%03d", i), "v")
	}
	done.Wait()
	if gaps.Load() > 0 {
		t.Errorf("%d gaps", gaps.Load())
	}
}

// TestSlowWatcherDelaysNobody has one watch stand still in the middle of its work. Puts and the other watch go on, and
// when it goes on it is told what it missed: from the store, nothing was kept for it in memory.
func TestSlowWatcherDelaysNobody(t *testing.T) {
	const puts = 300
	n := newTestNet(t, 1)
	a := n.start("a", nil)
	a.apply(n.openPolicy())
	stuck, goOn := make(chan struct{}), make(chan struct{})
	watch := func(each func(seen int)) <-chan map[string]bool {
		ready, result := make(chan struct{}), make(chan map[string]bool, 1)
		go func() {
			seen := map[string]bool{}
			err := a.Watch(context.Background(), WatchOptions{Prefixes: []string{"/w"}}, func(e Event) error {
				switch e.Type {
				case EventSynced:
					close(ready)
				case EventPut:
					if seen[e.Item.Path] = true; len(seen) == puts {
						return errBreak
					}
					each(len(seen))
				}
				return nil
			})
			if !errors.Is(err, errBreak) {
				t.Errorf("watch: %v", err)
			}
			result <- seen
		}()
		<-ready
		return result
	}
	slow := watch(func(seen int) {
		if seen == 1 {
			close(stuck)
			<-goOn
		}
	})
	quick := watch(func(int) {})
	a.put("/w/first", "v")
	<-stuck
	for i := range puts - 1 {
		a.put(fmt.Sprintf("/w/%d", i), "v")
	}
	<-quick // it has seen all while the slow one stands
	close(goOn)
	<-slow
}

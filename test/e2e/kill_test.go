package e2e

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// stream puts without pause until the host fails. What was acknowledged is told by acked.
func stream(h *host, round, writer int, acked func(path, value string)) {
	for n := 0; ; n++ {
		path, value := fmt.Sprintf("/stream/%d/%d/%d", round, writer, n), fmt.Sprintf("%d.%d.%d", round, writer, n)
		if err := h.put(path, value); err != nil {
			return // it was killed
		}
		acked(path, value)
	}
}

func TestG1_Kill9DuringPuts(t *testing.T) {
	rounds := 20
	if testing.Short() {
		rounds = 10
	}
	const writers = 4
	f := startFleet(t, []string{everything}, "a", "b", "c")
	a := f.hosts[0]
	seed := rand.Uint64()
	t.Log("seed", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	var mu sync.Mutex
	acked := map[string]string{}
	for round := range rounds {
		var g errgroup.Group
		enough := make(chan struct{}) // closed when the round has acknowledged some puts: then the kill may come
		puts, killAfter := 0, 1+r.IntN(200)
		for w := range writers {
			g.Go(func() error {
				stream(a, round, w, func(path, value string) {
					mu.Lock()
					defer mu.Unlock()
					acked[path] = value
					if puts++; puts == killAfter {
						close(enough)
					}
				})
				return nil
			})
		}
		select {
		case <-enough:
		case <-time.After(patience):
			t.Fatal("no puts are acknowledged")
		}
		a.kill()
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		a.start()
		missing(t, round, a, acked)
		f.converge()
		for _, h := range f.hosts {
			missing(t, round, h, acked)
		}
		if t.Failed() {
			return
		}
	}
	t.Logf("%d acknowledged puts survived %d kills", len(acked), rounds)
}

// missing reports acknowledged puts that a host does not show. Puts that nobody acknowledged may be there or not.
func missing(t *testing.T, round int, h *host, acked map[string]string) {
	t.Helper()
	shown := h.mustList("/stream")
	lost := 0
	for path, value := range maps.All(acked) {
		if shown[path] != value {
			lost++
		}
	}
	if lost > 0 {
		t.Errorf("round %d: %s lost %d of %d acknowledged puts", round, h.name, lost, len(acked))
	}
}

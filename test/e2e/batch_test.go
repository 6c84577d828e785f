package e2e

import (
	"fmt"
	"testing"

	"golang.org/x/sync/errgroup"
)

const batchPaths = 100

// generation is a batch that puts the same value at all paths.
func generation(dir string, n int) map[string]string {
	values := map[string]string{}
	for i := range batchPaths {
		values[fmt.Sprintf("%s/%03d", dir, i)] = fmt.Sprint("generation ", n)
	}
	return values
}

// oneGeneration says whether a list shows none of a batch or all of it.
func oneGeneration(values map[string]string) error {
	seen := map[string]int{}
	for _, v := range values {
		seen[v]++
	}
	if len(values) != 0 && (len(values) != batchPaths || len(seen) != 1) {
		return fmt.Errorf("%d of %d paths, by value %v", len(values), batchPaths, seen)
	}
	return nil
}

// One host writes 100 paths at a time, new ones and old ones, and deletes them at a time; two others look at them as fast
// as they can.
func TestG5_BatchIsSeenWhole(t *testing.T) {
	tries := 1000
	if testing.Short() {
		tries = 300
	}
	f := startFleet(t, []string{everything}, "a", "b", "c")
	a := f.hosts[0]
	stop := make(chan struct{})
	var writer, readers errgroup.Group
	writer.Go(func() error {
		for n := 0; ; n++ {
			select {
			case <-stop:
				return nil
			default:
			}
			values := generation("/batch", n)
			if n%5 == 4 {
				for path := range values {
					values[path] = ""
				}
			}
			if err := a.batch(values); err != nil {
				return fmt.Errorf("batch %d: %w", n, err)
			}
		}
	})
	changes := make([]int, len(f.hosts))
	for i, h := range f.hosts {
		readers.Go(func() error {
			last := ""
			for range tries {
				values, err := h.list("/batch")
				if err == nil {
					err = oneGeneration(values)
				}
				if err != nil {
					return fmt.Errorf("list on %s: %w", h.name, err)
				}
				if v := values["/batch/000"]; v != last {
					changes[i]++
					last = v
				}
			}
			return nil
		})
	}
	err := readers.Wait()
	close(stop)
	if err != nil {
		t.Error(err)
	}
	if err := writer.Wait(); err != nil {
		t.Error(err)
	}
	t.Logf("%d lists on each host saw %v changes", tries, changes)
	f.converge()
	for i, n := range changes {
		if n < 2 {
			t.Errorf("%s saw %d changes: nothing was tried", f.hosts[i].name, n)
		}
	}
}

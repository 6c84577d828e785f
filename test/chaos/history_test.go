package chaos

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"connectrpc.com/connect"
)

// history is what clients were told, and what they were not told: a call that failed may have written or not.
type history struct {
	mu     sync.Mutex
	acked  map[string]shown           // by path the highest acknowledged version; an empty value is a delete
	maybe  map[string]map[string]bool // by path the values of unanswered writes
	counts map[string]int             // acknowledged, by host
	failed int
	tree   map[string]map[string]string // by host and path the highest version that was read there
	back   []string                     // reads that went back
}

func newHistory() *history {
	return &history{acked: map[string]shown{}, maybe: map[string]map[string]bool{}, counts: map[string]int{}, tree: map[string]map[string]string{}}
}

// wrote notes a write and its outcome.
func (y *history) wrote(host string, values map[string]string, version string, err error) {
	if connect.CodeOf(err) == connect.CodeNotFound {
		return // a delete of what is not there: it surely wrote nothing
	}
	y.mu.Lock()
	defer y.mu.Unlock()
	if err != nil {
		y.failed++
	} else {
		y.counts[host]++
	}
	for path, value := range values {
		switch {
		case err != nil:
			if y.maybe[path] == nil {
				y.maybe[path] = map[string]bool{}
			}
			y.maybe[path][value] = true
		case version > y.acked[path].version:
			y.acked[path] = shown{version, value}
		}
	}
}

// read notes what a host showed: versions never go back there.
func (y *history) read(host string, all map[string]shown) {
	y.mu.Lock()
	defer y.mu.Unlock()
	seen := y.tree[host]
	if seen == nil {
		seen = map[string]string{}
		y.tree[host] = seen
	}
	for path, s := range all {
		if s.version < seen[path] {
			y.back = append(y.back, fmt.Sprintf("%s showed %s of %s after %s", host, s.version, path, seen[path]))
		}
		seen[path] = s.version
	}
}

// forget lets versions go back once on a host: after a power cut what came from others may be missing for a while.
func (y *history) forget(host string) {
	y.mu.Lock()
	defer y.mu.Unlock()
	delete(y.tree, host)
}

// startCounts begins to count anew.
func (y *history) startCounts() {
	y.mu.Lock()
	defer y.mu.Unlock()
	clear(y.counts)
	y.failed = 0
}

// busy says whether a host has acknowledged too little for the round to count.
func (y *history) busy(hosts []*host) error {
	y.mu.Lock()
	defer y.mu.Unlock()
	for _, h := range hosts {
		if n := y.counts[h.name]; n < leastAcks {
			return fmt.Errorf("%s acknowledged %d writes", h.name, n)
		}
	}
	return nil
}

// traffic says how much was written since startCounts.
func (y *history) traffic() string {
	y.mu.Lock()
	defer y.mu.Unlock()
	acked := 0
	for _, n := range y.counts {
		acked += n
	}
	return fmt.Sprintf("%d writes acknowledged, %d unanswered or refused", acked, y.failed)
}

// check compares what a host shows, after all clients ended, with the history.
func (y *history) check(host string, all map[string]shown) error {
	y.mu.Lock()
	defer y.mu.Unlock()
	var wrong []error
	for path, want := range y.acked {
		got, ok := all[path]
		written := got.version[:max(0, len(got.version)-4)] // without the index
		switch {
		case ok && written == want.version && got.value == want.value:
		case ok && written > want.version && y.maybe[path][got.value]:
		case !ok && (want.value == "" || y.maybe[path][""]):
		default:
			wrong = append(wrong, fmt.Errorf("lost an acknowledged write: %s is %q %s, acknowledged %q %s", path, got.value, written, want.value, want.version))
		}
	}
	for path, got := range all {
		if _, ok := y.acked[path]; !ok && !y.maybe[path][got.value] {
			wrong = append(wrong, fmt.Errorf("shows %s = %q, which nobody wrote", path, got.value))
		}
	}
	for _, b := range y.back {
		wrong = append(wrong, errors.New(b))
	}
	if n := len(wrong); n > 0 {
		return fmt.Errorf("%s: %d faults, %w", host, n, errors.Join(wrong[:min(n, 5)]...))
	}
	return nil
}

// writer writes to one host until stop closes: to paths of its own and to shared ones, puts, deletes and batches. Only
// one writer of a host also reads: of two reads at once none is the later one.
func (y *history) writer(h *host, id, first int, r *rand.Rand, stop <-chan struct{}) {
	pause := time.NewTicker(10 * time.Millisecond)
	defer pause.Stop()
	for n := first; ; n++ {
		select {
		case <-stop:
			return
		case <-pause.C:
		}
		own := fmt.Sprintf("/own/%s/%d/%d", h.name, id, n)
		hot := fmt.Sprintf("/hot/%d", r.IntN(20))
		value := fmt.Sprintf("%s %d %d", h.name, id, n)
		values := map[string]string{}
		switch r.IntN(6) {
		case 0, 1:
			values[own] = value
		case 2:
			values[hot] = value
		case 3:
			values[own], values[own+"/b"], values[hot] = value, value, value
		case 4:
			values[hot] = ""
		case 5:
			if id > 0 {
				continue
			}
			if all, err := h.list(callLimit, "/hot"); err == nil {
				y.read(h.name, all)
			}
			continue
		}
		h.quiet.RLock()
		version, err := h.write(values)
		y.wrote(h.name, values, version, err)
		h.quiet.RUnlock()
	}
}

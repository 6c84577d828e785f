package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"

	apiv1 "syncagent/agent/api/v1"
)

// Everybody writes at once, to own and to shared paths, puts, deletes and batches.
func TestG2_ConcurrentWritersConverge(t *testing.T) {
	f := startFleet(t, []string{everything}, "a", "b", "c")
	seed := rand.Uint64()
	t.Log("seed", seed)
	var g errgroup.Group
	for i, h := range f.hosts {
		for w := range 3 {
			r := rand.New(rand.NewPCG(seed, uint64(3*i+w)))
			g.Go(func() error {
				for n := range 150 {
					shared := func() string { return fmt.Sprintf("/shared/%d", r.IntN(20)) }
					var err error
					switch r.IntN(4) {
					case 0:
						err = h.put(fmt.Sprintf("/own/%s/%d/%d", h.name, w, n), fmt.Sprint(n))
					case 1:
						err = h.put(shared(), fmt.Sprintf("%s %d %d", h.name, w, n))
					case 2:
						err = h.batch(map[string]string{shared(): fmt.Sprintf("batch %s %d", h.name, n), fmt.Sprintf("/b/%d", n): "x"})
					case 3:
						_ = h.batch(map[string]string{shared(): ""}) // refused if the path is not there
					}
					if err != nil {
						return fmt.Errorf("%s: %w", h.name, err)
					}
				}
				return nil
			})
		}
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	f.converge()
	want := f.hosts[0].mustList("/")
	if len(want) < 150 {
		t.Errorf("only %d entries", len(want))
	}
	for _, h := range f.hosts[1:] {
		sameValues(t, h, h.mustList("/"), want)
	}
}

func sameValues(t *testing.T, h *host, got, want map[string]string) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s shows %d paths, want %d", h.name, len(got), len(want))
	}
	for path, value := range want {
		if got[path] != value {
			t.Errorf("%s shows %q at %s, want %q", h.name, got[path], path, value)
			return
		}
	}
}

// Where the height of the DAG decided, the host with more blocks would win.
func TestG3_LastWriteWinsAfterPartition(t *testing.T) {
	f := startFleet(t, []string{everything}, "a", "b", "c")
	a, b, c := f.hosts[0], f.hosts[1], f.hosts[2]
	c.must("peers", "pause")
	eventually(t, func() error {
		if n, err := c.connected(); n > 0 || err != nil {
			return fmt.Errorf("c has %d peers: %w", n, err)
		}
		return nil
	})
	for i := range 20 {
		a.mustPut("/who", fmt.Sprintf("a %d", i))
		a.mustPut(fmt.Sprintf("/a/%d", i), "x")
	}
	eventually(t, func() error { return equal(a, b) })
	nextMillisecond(t)
	c.mustPut("/who", "c")
	if err := a.shows("/who", "a 19"); err != nil {
		t.Error("the partition leaks:", err)
	}
	c.must("peers", "resume")
	f.converge()
	for _, h := range f.hosts {
		if err := h.shows("/who", "c"); err != nil {
			t.Error(err)
		}
	}
	a.mustPut("/who", "a again")
	f.converge()
	if err := c.shows("/who", "a again"); err != nil {
		t.Error(err)
	}
}

// nextMillisecond waits until the clock of all hosts, which is one here, shows another millisecond: the last write is
// then the last for everybody.
func nextMillisecond(t *testing.T) {
	t.Helper()
	now := time.Now().UnixMilli()
	eventually(t, func() error {
		if time.Now().UnixMilli() < now+2 {
			return fmt.Errorf("the clock stands")
		}
		return nil
	})
}

// TestG11_CatchUp stops an agent, makes one block after the other, and starts it again.
func TestG11_CatchUp(t *testing.T) {
	puts := 10_000
	if testing.Short() {
		puts = 1000
	}
	f := startFleet(t, []string{everything}, "a", "b", "c")
	a, c := f.hosts[0], f.hosts[2]
	c.stop()
	before := a.status().Blocks
	began := time.Now()
	for i := range puts {
		a.mustPut(fmt.Sprintf("/many/%05d", i), fmt.Sprintf("value %d", i))
	}
	t.Logf("%d puts one by one: %s, %d blocks", puts, time.Since(began).Round(time.Millisecond), a.status().Blocks-before)
	began = time.Now()
	c.start()
	ready := time.Since(began)
	eventually(t, func() error { return equal(a, c) })
	t.Logf("caught up %s after its start (ready after %s)", time.Since(began).Round(time.Millisecond), ready.Round(time.Millisecond))
	f.converge()
	if n := len(c.mustList("/many")); n != puts {
		t.Errorf("c shows %d paths, want %d", n, puts)
	}
}

// A hundred clients of three hosts write one path as fast as they can. In the end all hosts show the same, and it is the
// highest version that anybody was told.
func TestG2_HundredWritersOnOnePath(t *testing.T) {
	const clients, writes = 100, 10
	f := startFleet(t, []string{everything}, "a", "b", "c")
	var g errgroup.Group
	var mu sync.Mutex
	best, want := "", ""
	for c := range clients {
		h := f.hosts[c%len(f.hosts)]
		g.Go(func() error {
			for n := range writes {
				value := fmt.Sprintf("client %d, write %d", c, n)
				ctx, cancel := within(context.Background())
				res, err := h.client.KV.Put(ctx, connect.NewRequest(&apiv1.PutRequest{Path: "/hot", Value: []byte(value)}))
				cancel()
				if err != nil {
					return err
				}
				mu.Lock()
				if v := res.Msg.GetVersion(); v > best {
					best, want = v, value
				}
				mu.Unlock()
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	f.converge()
	for _, h := range f.hosts {
		if err := h.shows("/hot", want); err != nil {
			t.Error(err)
		}
	}
}

package mirror

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

var (
	long   = flag.Duration("mirror.long", 2*time.Second, "how long certificates are rotated, and directories swapped for links")
	rounds = flag.Int("mirror.rounds", 1, "how many times as many random histories and kills")
)

// A certificate and its key are rotated together 100 times a second, and read all the time. Nobody who takes both from
// one version ever has a mismatch; with plain renames one is possible between the two.
func TestG8_CertificateAndKeyRotatedTogether(t *testing.T) {
	for _, swap := range []Swap{SwapFiles, SwapDirectory} {
		t.Run(string(swap), func(t *testing.T) {
			b := newBench(t)
			b.opt.Swap = swap
			b.src.write(pair(0)...)
			m := b.run()
			m.grace = time.Second
			eventually(t, "ok", func() bool { return m.Status().State == StateOK })
			var stop atomic.Bool
			ended := make(chan rotation, 1)
			go func() { ended <- watchPair(b.dir, swap, &stop) }()
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			last := 0
			for end := time.Now().Add(*long); time.Now().Before(end); <-tick.C {
				last++
				b.src.write(pair(last)...)
			}
			eventually(t, "the last pair", func() bool {
				got, _ := os.ReadFile(b.path("tls.key"))
				return string(got) == fmt.Sprint(last)
			})
			stop.Store(true)
			r := <-ended
			if r.err != nil || r.seen < 2 || swap == SwapDirectory && r.mismatches > 0 {
				t.Errorf("%d reads, %d mismatches, %d pairs: %v", r.reads, r.mismatches, r.seen, r.err)
			}
			t.Logf("%d rotations, %d reads of %d different pairs, %d mismatches", last, r.reads, r.seen, r.mismatches)
		})
	}
}

func pair(n int) []op {
	return []op{put("/p/tls.crt", fmt.Sprint(n)), putMode("/p/tls.key", fmt.Sprint(n), 0o600)}
}

type rotation struct {
	reads, mismatches, seen int
	err                     error
}

// watchPair reads both files until it is told to stop: from what one opening of the directory gives.
func watchPair(dir string, swap Swap, stop *atomic.Bool) (r rotation) {
	if swap == SwapDirectory {
		dir = filepath.Join(dir, liveLink)
	}
	var before []byte
	for !stop.Load() {
		open, err := os.OpenRoot(dir)
		if err != nil {
			r.err = err
			return r
		}
		cert, err1 := open.ReadFile("tls.crt")
		key, err2 := open.ReadFile("tls.key")
		if r.err = errors.Join(err1, err2, open.Close()); r.err != nil {
			return r
		}
		r.reads++
		if !bytes.Equal(cert, key) {
			r.mismatches++
		} else if !bytes.Equal(before, key) {
			before, r.seen = key, r.seen+1
		}
	}
	return r
}

package crdtstore

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"syncagent/crdtstore/record"
)

// BenchmarkPut is a durable put of 100 bytes to a new path: it returns after the fsync.
func BenchmarkPut(b *testing.B) {
	for _, clients := range []int{1, 64, 512} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			a := benchStore(b, newTestNet(b, 1), 0, 1)
			benchPuts(b, a, clients, func(i int64) string { return fmt.Sprintf("/bench/%d/%d", i%100, i) })
		})
	}
}

// BenchmarkPutAgain is the same to paths that are written over and over. What a put costs depends on their history.
func BenchmarkPutAgain(b *testing.B) {
	for _, c := range []struct {
		clients int
		paths   int64
	}{{1, 100}, {8, 100}, {8, 1000}} {
		b.Run(fmt.Sprintf("clients=%d/paths=%d", c.clients, c.paths), func(b *testing.B) {
			a := benchStore(b, newTestNet(b, 1), 0, 1)
			benchPuts(b, a, c.clients, func(i int64) string { return fmt.Sprintf("/bench/%d", i%c.paths) })
		})
	}
}

// benchPuts has clients make b.N puts of 100 bytes.
func benchPuts(b *testing.B, a *node, clients int, path func(i int64) string) {
	value := bytes.Repeat([]byte("v"), 100)
	var next atomic.Int64
	var wg sync.WaitGroup
	used := processorTime()
	b.ResetTimer()
	for range clients {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
				if _, err := a.Write(context.Background(), []Op{{Path: path(i), Value: value}}); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "puts/s")
	b.ReportMetric(float64((processorTime()-used).Microseconds())/float64(b.N), "cpu-us/put")
}

// processorTime is what this process used so far.
func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// benchStore gives a store with count puts of 100 bytes, per write batch of them.
func benchStore(b *testing.B, n *testNet, count, batch int) *node {
	a := n.startOn("a", nil, b.TempDir())
	a.apply(n.openPolicy())
	value := bytes.Repeat([]byte("v"), 100)
	for i := 0; i < count; i += batch {
		var ops []Op
		for j := range batch {
			ops = append(ops, Op{Path: fmt.Sprintf("/bench/%d/%d", (i+j)%100, i+j), Value: value})
		}
		if _, err := a.Write(context.Background(), ops); err != nil {
			b.Fatal(err)
		}
	}
	return a
}

// BenchmarkCatchUp is an empty store that takes everything another one has, without a wire.
func BenchmarkCatchUp(b *testing.B) {
	for _, c := range []struct{ count, batch int }{{10_000, 1}, {100_000, 100}} {
		b.Run(fmt.Sprintf("puts=%d/batch=%d", c.count, c.batch), func(b *testing.B) {
			n := newTestNet(b, 1)
			a := benchStore(b, n, c.count, c.batch)
			for b.Loop() {
				z := n.startOn("b", nil, b.TempDir())
				z.apply(n.openPolicy())
				var parcels []record.Parcel
				flush := func() {
					if r, err := z.Ingest(context.Background(), a.self, parcels); err != nil || r.Invalid != nil {
						b.Fatal(err, r.Invalid)
					}
					parcels = nil
				}
				size := 0
				err := a.Missing(context.Background(), z.Vector(), z.self, func(p record.Parcel) error {
					parcels = append(parcels, p)
					if size += len(p.Block); size > 512<<10 {
						flush()
						size = 0
					}
					return nil
				})
				if err != nil {
					b.Fatal(err)
				}
				flush()
				if z.Stats().ViewDigest != a.Stats().ViewDigest {
					b.Fatal("not equal")
				}
				z.stop()
			}
			b.ReportMetric(float64(c.count*b.N)/b.Elapsed().Seconds(), "puts/s")
		})
	}
}

// BenchmarkGet is a read of one value.
func BenchmarkGet(b *testing.B) {
	n := newTestNet(b, 1)
	a := benchStore(b, n, 100_000, 100)
	i := 0
	for b.Loop() {
		sn, err := a.Snapshot()
		if err != nil {
			b.Fatal(err)
		}
		if _, err := sn.Get(fmt.Sprintf("/bench/%d/%d", i%100, i%100_000), true); err != nil {
			b.Fatal(err)
		}
		sn.Close()
		i++
	}
}

// BenchmarkList is a list of 100,000 paths without values.
func BenchmarkList(b *testing.B) {
	n := newTestNet(b, 1)
	a := benchStore(b, n, 100_000, 100)
	for b.Loop() {
		sn, err := a.Snapshot()
		if err != nil {
			b.Fatal(err)
		}
		if err := sn.List("/", false, func(Item) error { return nil }); err != nil {
			b.Fatal(err)
		}
		sn.Close()
	}
}

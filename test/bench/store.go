package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// storeFigures are of one store without a network.
func storeFigures() []figure {
	fs := []figure{{name: "raw: write 4 KiB and fsync", unit: "/s", measure: rawSync}}
	for _, c := range []struct {
		clients int
		goal    string
	}{{1, "3.5k, stretch 4k"}, {64, "50k, stretch 60k"}, {512, "90k, stretch 110k"}} {
		fs = append(fs, figure{name: fmt.Sprintf("durable put in process, %d clients", c.clients), goal: c.goal, unit: "/s", measure: putRate(c.clients)})
	}
	return append(fs,
		figure{name: "import of 100k in batches of 100, one client", unit: "/s", measure: batchRate},
		figure{name: "reopen of 100k records after a clean stop", goal: "1 s", unit: "s", measure: reopen},
		figure{name: "disk per 100-byte record, 50k single puts", goal: "700, stretch 450", unit: "B", measure: diskPer(50_000, 1)},
		figure{name: "disk per 100-byte record, 100k in batches of 100", goal: "450, stretch 250", unit: "B", measure: diskPer(100_000, 100)},
	)
}

func rawSync(dir string) (float64, string, error) {
	f, err := os.Create(filepath.Join(dir, "raw"))
	if err != nil {
		return 0, "", err
	}
	defer f.Close() //nolint:errcheck // its content is of no use
	block := make([]byte, 4096)
	n, began := 0, time.Now()
	for ; time.Since(began) < time.Second; n++ {
		if _, err := f.Write(block); err != nil {
			return 0, "", err
		}
		if err := f.Sync(); err != nil {
			return 0, "", err
		}
	}
	return float64(n) / time.Since(began).Seconds(), "", nil
}

func putRate(clients int) func(string) (float64, string, error) {
	return func(dir string) (rate float64, note string, err error) {
		f := newFleet(dir, 1)
		if err := f.nodes[0].open(); err != nil {
			return 0, "", err
		}
		count := scaled(4000 * min(clients, 25))
		began := time.Now()
		if err := profiled(func() error { return f.nodes[0].fill("/put", count, 1, clients) }); err != nil {
			return 0, "", err
		}
		rate = float64(count) / time.Since(began).Seconds()
		return rate, fmt.Sprintf("%d blocks", f.nodes[0].Stats().Blocks), f.stop()
	}
}

func batchRate(dir string) (float64, string, error) {
	f := newFleet(dir, 1)
	if err := f.nodes[0].open(); err != nil {
		return 0, "", err
	}
	count := scaled(100_000)
	began := time.Now()
	if err := profiled(func() error { return f.nodes[0].fill("/put", count, 100, 1) }); err != nil {
		return 0, "", err
	}
	return float64(count) / time.Since(began).Seconds(), "records", f.stop()
}

func reopen(dir string) (float64, string, error) {
	f := newFleet(dir, 1)
	n := f.nodes[0]
	if err := n.open(); err != nil {
		return 0, "", err
	}
	if err := n.fill("/put", scaled(100_000), 100, 4); err != nil {
		return 0, "", err
	}
	if err := f.stop(); err != nil {
		return 0, "", err
	}
	began := time.Now()
	if err := n.open(); err != nil {
		return 0, "", err
	}
	return time.Since(began).Seconds(), "", f.stop()
}

// diskPer is what the disk lost for each record, as du counts it: badger makes a file of 1 MB that is one hole.
func diskPer(count, batch int) func(string) (float64, string, error) {
	return func(dir string) (float64, string, error) {
		f := newFleet(dir, 1)
		n := f.nodes[0]
		if err := n.open(); err != nil {
			return 0, "", err
		}
		count := scaled(count)
		if err := n.fill("/put", count, batch, 1); err != nil {
			return 0, "", err
		}
		if err := f.stop(); err != nil {
			return 0, "", err
		}
		var size int64
		err := filepath.WalkDir(n.dir, func(_ string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			i, err := d.Info()
			if err == nil {
				size += i.Sys().(*syscall.Stat_t).Blocks * 512
			}
			return err
		})
		return float64(size) / float64(count), "after a clean stop", err
	}
}

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/klauspost/compress/zstd"

	"syncagent/crdtstore"
	"syncagent/crdtstore/record"
)

// backupFigures are of copies for bad days.
func backupFigures() []figure {
	return []figure{
		{name: "backup of 100k keys while writes go on", goal: "2 s", unit: "s", measure: backupTime(100, 4)},
		{name: "backup of 100k keys of single puts, same", goal: "2 s", unit: "s", measure: backupTime(1, 512)},
		{name: "restore of 100k keys", unit: "s", measure: restoreTime},
	}
}

// writeBackup makes a backup as the agent does, compressed.
func (n *node) writeBackup(w io.Writer) error {
	z, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		return err
	}
	if _, err := n.Backup(context.Background(), record.KeyOf(n.key), crdtstore.BackupHead{}, z, nil); err != nil {
		return err
	}
	return z.Close()
}

func backupTime(batch, clients int) func(string) (float64, string, error) {
	return func(dir string) (float64, string, error) {
		f := newFleet(dir, 1)
		n := f.nodes[0]
		if err := n.open(); err != nil {
			return 0, "", err
		}
		if err := n.fill("/put", scaled(100_000), batch, clients); err != nil {
			return 0, "", err
		}
		var b bytes.Buffer
		done, writes := make(chan error, 1), 0
		began := time.Now()
		go func() { done <- profiled(func() error { return n.writeBackup(&b) }) }()
		for {
			select {
			case err := <-done:
				took := time.Since(began)
				if err != nil {
					return 0, "", err
				}
				return took.Seconds(), fmt.Sprintf("%.1f MB; %d puts meanwhile", float64(b.Len())/1e6, writes), f.stop()
			default:
				if err := n.fill("/meanwhile", 1, 1, 1); err != nil {
					return 0, "", err
				}
				writes++
			}
		}
	}
}

func restoreTime(dir string) (float64, string, error) {
	f := newFleet(dir, 2)
	n, to := f.nodes[0], f.nodes[1]
	if err := n.open(); err != nil {
		return 0, "", err
	}
	if err := n.fill("/put", scaled(100_000), 100, 4); err != nil {
		return 0, "", err
	}
	var b bytes.Buffer
	if err := n.writeBackup(&b); err != nil {
		return 0, "", err
	}
	want := n.Stats().ViewDigest
	if err := f.stop(); err != nil {
		return 0, "", err
	}
	var got crdtstore.Restored
	began := time.Now()
	err := profiled(func() error {
		z, err := zstd.NewReader(&b)
		if err != nil {
			return err
		}
		defer z.Close()
		r, err := crdtstore.ReadBackup(z)
		if err != nil {
			return err
		}
		got, err = crdtstore.Restore(context.Background(), crdtstore.Options{Dir: to.dir, Network: f.network, Key: to.key, Admins: f.admins}, r)
		return err
	})
	took := time.Since(began)
	if err == nil && got.Stats.ViewDigest != want {
		err = fmt.Errorf("restored %d entries, the view differs", got.Stats.Entries)
	}
	return took.Seconds(), "", err
}

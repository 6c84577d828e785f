package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	apiv1 "syncagent/agent/api/v1"
)

const (
	largeValues = 100
	largeBytes  = 10 << 20 // of each
)

// mirrorLarge is from the start of an agent that has none of them until all values are files of its mirror.
func mirrorLarge(dir string) (float64, string, error) {
	hosts, stop, err := processes(dir, 2)
	defer stop()
	if err != nil {
		return 0, "", err
	}
	from, to := hosts[0], hosts[1]
	to.kill()
	into := filepath.Join(to.dir, "mirrored")
	if err := to.mirrorAtStart("/big", into); err != nil {
		return 0, "", err
	}
	value := make([]byte, largeBytes)
	put := time.Now()
	for i := range largeValues {
		_, _ = rand.NewChaCha8([32]byte{byte(i)}).Read(value)
		if _, err := from.client.Upload(context.Background(), &apiv1.PutRequest{Path: "/big/" + strconv.Itoa(i)}, bytes.NewReader(value)); err != nil {
			return 0, "", err
		}
	}
	putting := time.Since(put)
	disk, err := sequentialWrite(filepath.Join(dir, "sequential"))
	if err != nil {
		return 0, "", err
	}
	began := time.Now()
	if err := to.start(); err != nil {
		return 0, "", err
	}
	if err := wait(func() error { return wholeFiles(into) }); err != nil {
		return 0, "", err
	}
	took := time.Since(began)
	fromMost, err := from.memory("VmHWM:")
	if err != nil {
		return 0, "", err
	}
	toMost, err := to.memory("VmHWM:")
	const megabytes = largeValues * largeBytes / 1e6
	return took.Seconds(), fmt.Sprintf("%.0f MB/s; plain sequential write %s, %.1f times that; put in %s; at most %.0f and %.0f MB of memory",
		megabytes/took.Seconds(), disk.Round(time.Millisecond), took.Seconds()/disk.Seconds(), putting.Round(time.Millisecond), fromMost, toMost), err
}

// mirrorAtStart has the host mirror a prefix from its next start on.
func (h *host) mirrorAtStart(prefix, dir string) error {
	file := filepath.Join(h.dir, "syncagent.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	text = bytes.Replace(text, []byte("\nmirrors: []\n"), fmt.Appendf(nil, "\nmirrors: [{prefix: %s, dir: %q}]\n", prefix, dir), 1)
	return os.WriteFile(file, text, 0o600)
}

// wholeFiles tells what lacks in the directory. A mirrored file is there as a whole or not at all.
func wholeFiles(dir string) error {
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	n := 0
	for _, f := range files {
		if !strings.HasPrefix(f.Name(), ".") {
			n++
		}
	}
	if n < largeValues {
		return fmt.Errorf("%d files of %d", n, largeValues)
	}
	return nil
}

// sequentialWrite is how long the disk takes for as many bytes in one file.
func sequentialWrite(name string) (time.Duration, error) {
	piece := make([]byte, largeBytes)
	_, _ = rand.NewChaCha8([32]byte{}).Read(piece)
	began := time.Now()
	f, err := os.Create(name)
	if err != nil {
		return 0, err
	}
	for range largeValues {
		if _, err := f.Write(piece); err != nil {
			return 0, errors.Join(err, f.Close())
		}
	}
	err = errors.Join(f.Sync(), f.Close())
	took := time.Since(began)
	return took, errors.Join(err, os.Remove(name))
}

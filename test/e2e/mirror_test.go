package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"connectrpc.com/connect"

	apiv1 "syncagent/agent/api/v1"
)

// mirror adds a mirror to the configuration of a host that does not run. It gives the directory.
func (h *host) mirror(prefix, triggers string) string {
	h.t.Helper()
	dir := filepath.Join(h.dir, "files")
	text := fmt.Sprintf("mirrors:\n  - prefix: %s\n    dir: %s\n", prefix, dir)
	if triggers != "" {
		text += fmt.Sprintf("    triggers_dir: %s\n", triggers)
	}
	h.configure(text)
	return dir
}

// configure puts a list of mirrors into the configuration of a host that does not run.
func (h *host) configure(mirrors string) {
	h.t.Helper()
	config, err := os.ReadFile(h.config())
	if err != nil {
		h.t.Fatal(err)
	}
	edited := bytes.Replace(config, []byte("mirrors: []\n"), []byte(mirrors), 1)
	if bytes.Equal(edited, config) {
		h.t.Fatal("the configuration has no line for mirrors")
	}
	if err := os.WriteFile(h.config(), edited, 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// trigger makes a directory with one trigger for prefix, whose output goes to the log that lines reads.
func (h *host) trigger(prefix, command string) (dir string) {
	h.t.Helper()
	dir = filepath.Join(h.dir, "triggers")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		h.t.Fatal(err)
	}
	spec, err := json.Marshal(map[string]string{"path": prefix, "command": "{ " + command + "; } >>" + h.triggerLog()})
	if err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "tell"), spec, 0o600); err != nil {
		h.t.Fatal(err)
	}
	return dir
}

func (h *host) triggerLog() string { return filepath.Join(h.dir, "triggered") }

// lines gives what the trigger has written.
func (h *host) lines() []string {
	b, err := os.ReadFile(h.triggerLog())
	if err != nil && !os.IsNotExist(err) {
		h.t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
}

// tellFiles is a command that tells how many files there are, and the distinct contents of all of them.
const tellFiles = `cd "$SYNCAGENT_DIR"; echo $(ls | wc -l) files: $(cat * | sort -u)`

// told is what tellFiles says of a whole batch.
func told(n int) string { return fmt.Sprintf("%d files: generation %d", batchPaths, n) }

// fileGeneration is generation for tellFiles.
func fileGeneration(dir string, n int) map[string]string {
	values := generation(dir, n)
	for path := range values {
		values[path] += "\n"
	}
	return values
}

// lastTold waits until the last thing that the trigger told is a generation.
func lastTold(t *testing.T, h *host, n int) {
	t.Helper()
	eventually(t, func() error {
		lines := h.lines()
		if last := lines[len(lines)-1]; last != told(n) {
			return fmt.Errorf("%s: the trigger told %q, want %q", h.name, last, told(n))
		}
		return nil
	})
}

// A mirror of the configuration and one of the command line: all files of a batch are there when the trigger runs, and it
// runs once.
func TestG9_TriggerRunsOnceWhenAllFilesAreInPlace(t *testing.T) {
	f := newFleet(t, "a", "b", "c")
	a, b, c := f.hosts[0], f.hosts[1], f.hosts[2]
	b.mirror("/app", b.trigger("/app", tellFiles))
	f.start()
	f.apply(everything)
	f.connect()
	c.background("mirror", "/app", filepath.Join(c.dir, "files"), "--triggers-dir", c.trigger("/app", tellFiles))
	const batches = 10
	for n := range batches {
		a.mustBatch(fileGeneration("/app", n))
		lastTold(t, b, n)
		lastTold(t, c, n)
	}
	for _, h := range []*host{b, c} {
		for n, line := range h.lines() {
			if line != told(n) {
				t.Errorf("%s: run %d of the trigger told %q, want %q", h.name, n, line, told(n))
			}
		}
	}
	for path := range generation("/app", 0) {
		a.must("rm", path)
	}
	eventually(t, func() error {
		for _, h := range []*host{b, c} {
			left, err := filepath.Glob(filepath.Join(h.dir, "files", "[^.]*"))
			if err != nil || len(left) > 0 {
				return fmt.Errorf("%s keeps %v: %w", h.name, left, err)
			}
		}
		return nil
	})
}

func TestG8_G9_MirrorAndTriggerSurviveKills(t *testing.T) {
	f := newFleet(t, "a", "b")
	a, b := f.hosts[0], f.hosts[1]
	dir := b.mirror("/app", b.trigger("/app", tellFiles))
	f.start()
	f.apply(everything)
	f.connect()
	n := 0
	for range 6 {
		// The kill meets the agent while it takes the batch, writes files, or runs the trigger.
		for range 1 + n%3 {
			n++
			a.mustBatch(fileGeneration("/app", n))
		}
		b.kill()
		b.start()
		lastTold(t, b, n)
	}
	for path, want := range fileGeneration("/app", n) {
		got, err := os.ReadFile(filepath.Join(dir, filepath.Base(path)))
		if err != nil || string(got) != want {
			t.Errorf("%s is %q, %v; want %q", path, got, err, want)
		}
	}
	strays, err := filepath.Glob(filepath.Join(dir, ".syncagent*tmp*"))
	if err != nil || len(strays) > 0 {
		t.Errorf("kills left %v, %v", strays, err)
	}
}

// A reader never meets half a file, or one with another mode than the entry's.
func TestG8_FilesAreWholeAndHaveTheirMode(t *testing.T) {
	f := newFleet(t, "a", "b")
	a, b := f.hosts[0], f.hosts[1]
	file := filepath.Join(b.mirror("/app", ""), "secret")
	f.start()
	f.apply(everything)
	f.connect()
	const size, versions = 200_000, 40
	value := func(n int) []byte { return bytes.Repeat([]byte{byte('A' + n%26)}, size+n) }
	mode := uint32(0o600)
	written := make(chan error, 1)
	go func() {
		for n := range versions {
			_, err := a.client.KV.Put(context.Background(),
				connect.NewRequest(&apiv1.PutRequest{Path: "/app/secret", Value: value(n), Mode: &mode}))
			if err != nil {
				written <- err
				return
			}
		}
		written <- nil
	}()
	reads := map[int]int{}
	eventually(t, func() error {
		got, perm, err := readOpen(file)
		if err != nil {
			return err // not there yet
		}
		n := len(got) - size
		if n < 0 || n >= versions || !bytes.Equal(got, value(n)) || perm != 0o600 {
			t.Errorf("the file has %d bytes and mode %o: no version", len(got), perm)
			return nil
		}
		if reads[n]++; n < versions-1 {
			return fmt.Errorf("the file is at version %d", n)
		}
		return nil
	})
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	t.Logf("reads by version: %v", reads)
}

// readOpen reads content and permissions of one and the same file.
func readOpen(name string) ([]byte, os.FileMode, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, 0, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, 0, err
	}
	b, err := io.ReadAll(file)
	return b, info.Mode().Perm(), err
}

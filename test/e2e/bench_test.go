package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// BenchmarkMemory reports the resident memory of an agent with one peer, once it has come to rest.
func BenchmarkMemory(b *testing.B) {
	for _, keys := range []int{0, 100_000} {
		b.Run(fmt.Sprintf("keys=%d", keys), func(b *testing.B) {
			for b.Loop() {
				f := startFleet(b, []string{everything}, "a", "b")
				value := strings.Repeat("v", 100)
				for n := 0; n < keys; n += 1000 {
					values := map[string]string{}
					for i := range 1000 {
						values[fmt.Sprintf("/keys/%06d", n+i)] = value
					}
					f.hosts[0].mustBatch(values)
				}
				f.converge()
				b.ReportMetric(f.hosts[0].restingMemory()/(1<<20), "origin-MiB")
				b.ReportMetric(f.hosts[1].restingMemory()/(1<<20), "replica-MiB")
				f.hosts[1].stop()
				f.hosts[1].start()
				f.converge()
				b.ReportMetric(f.hosts[1].restingMemory()/(1<<20), "restarted-MiB")
			}
		})
	}
}

// restingMemory waits until the agent's resident memory, in bytes, has not become less for longer than the agent waits before it gives memory back.
func (h *host) restingMemory() float64 {
	h.t.Helper()
	least, since := h.memory(), time.Now()
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for time.Since(since) < 25*time.Second {
		<-tick.C
		if now := h.memory(); now < least*0.99 {
			least, since = now, time.Now()
		}
	}
	return h.memory()
}

func (h *host) memory() float64 {
	h.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", h.process.Process.Pid))
	if err != nil {
		h.t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "VmRSS:" {
			kib, err := strconv.ParseFloat(fields[1], 64)
			if err != nil {
				h.t.Fatal(err)
			}
			return kib * 1024
		}
	}
	h.t.Fatal("no VmRSS")
	return 0
}

// mirroredFleet is three hosts of which two mirror /app.
func mirroredFleet(b *testing.B) (f *fleet, dirs []string) {
	b.Helper()
	f = newFleet(b, "a", "b", "c")
	for _, h := range f.hosts[1:] {
		dirs = append(dirs, h.mirror("/app", ""))
	}
	f.start()
	f.apply(everything)
	f.connect()
	return f, dirs
}

// holdsFile waits until a file has this content.
func holdsFile(b *testing.B, name, content string) {
	b.Helper()
	deadline := time.Now().Add(patience)
	for {
		got, err := os.ReadFile(name)
		if err == nil && string(got) == content {
			return
		}
		if time.Now().After(deadline) {
			b.Fatalf("%s is %q, %v", name, got, err)
		}
		time.Sleep(200 * time.Microsecond) // what is measured is short
	}
}

// BenchmarkPutToFiles measures from the call of a put on one host to the file on both others.
func BenchmarkPutToFiles(b *testing.B) {
	f, dirs := mirroredFleet(b)
	var took []time.Duration
	for n := 0; b.Loop(); n++ {
		began := time.Now()
		f.hosts[0].mustPut("/app/file", strconv.Itoa(n))
		for _, dir := range dirs {
			holdsFile(b, filepath.Join(dir, "file"), strconv.Itoa(n))
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
}

// BenchmarkImport measures an import of 1,000 files of 1 KiB, from the command to the last file on both other hosts.
func BenchmarkImport(b *testing.B) {
	f, dirs := mirroredFleet(b)
	tree := tempDir(b)
	for round := 0; b.Loop(); round++ {
		b.StopTimer()
		content := bytes.Repeat([]byte{byte('a' + round%26)}, 1024)
		for i := range 1000 {
			if err := os.WriteFile(filepath.Join(tree, fmt.Sprintf("%04d", i)), content, 0o600); err != nil {
				b.Fatal(err)
			}
		}
		b.StartTimer()
		f.hosts[0].must("import", tree, "/app/tree")
		for _, dir := range dirs {
			for i := range 1000 {
				holdsFile(b, filepath.Join(dir, "tree", fmt.Sprintf("%04d", i)), string(content))
			}
		}
	}
}

// BenchmarkCatchUp measures from the start of an agent to equal digests, after 10,000 single puts elsewhere.
func BenchmarkCatchUp(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		f := startFleet(b, []string{everything}, "a", "b")
		f.hosts[1].stop()
		for i := range 10_000 {
			f.hosts[0].mustPut(fmt.Sprintf("/many/%05d", i), fmt.Sprintf("value %d", i))
		}
		b.StartTimer()
		f.hosts[1].start()
		f.converge()
		b.StopTimer()
		for _, h := range f.hosts {
			h.stop()
		}
		b.StartTimer()
	}
}

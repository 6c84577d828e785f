package mirror

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func benchMirror(b *testing.B, files int) (*Mirror, *fakeSource, string) {
	b.Helper()
	top := b.TempDir()
	src := newFakeSource()
	text := strings.Repeat("x", 1024)
	for first := 0; first < files; first += 1000 { // as an import writes them
		var ops []op
		for i := first; i < min(first+1000, files); i++ {
			ops = append(ops, put(fmt.Sprintf("/p/d%d/f%d", i%100, i), text))
		}
		src.write(ops...)
	}
	dir := filepath.Join(top, "out")
	m, err := New(src, Options{Prefix: "/p", Dir: dir, StateDir: filepath.Join(top, "state"), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	return m, src, dir
}

func BenchmarkFill10000FilesOf1KiB(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		m, _, _ := benchMirror(b, 10_000)
		b.StartTimer()
		if err := m.Once(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCheck100000UnchangedFiles(b *testing.B) {
	m, _, _ := benchMirror(b, 100_000)
	for range 2 { // the second reads all files, since the first wrote them just now
		if err := m.Once(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if err := m.Once(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOnePutToFile(b *testing.B) {
	m, src, dir := benchMirror(b, 100)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			b.Error(err)
		}
	}()
	n := 0
	for b.Loop() {
		n++
		src.write(put("/p/d0/f0", fmt.Sprint(n)))
		for {
			if got, _ := os.ReadFile(filepath.Join(dir, "d0/f0")); string(got) == fmt.Sprint(n) {
				break
			}
		}
	}
}

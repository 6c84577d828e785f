package agent

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"syscall"
)

// The journal of systemd takes "<N>" before a line for its priority (sd-daemon(3)). So `journalctl -p warning` finds
// what is one, whatever the format.

// toJournal tells whether a file is what systemd gave this process for its journal, as systemd.exec(5) says under
// JOURNAL_STREAM.
func toJournal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	if err != nil {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && os.Getenv("JOURNAL_STREAM") == fmt.Sprintf("%d:%d", stat.Dev, stat.Ino)
}

// journal puts priorities before the lines that another handler writes to it.
type journal struct {
	slog.Handler
	out *journalWriter
}

type journalWriter struct {
	mu       sync.Mutex
	w        io.Writer
	priority int
}

// Write gets one whole line: handlers of slog promise that.
func (w *journalWriter) Write(line []byte) (int, error) {
	if _, err := w.w.Write(append(fmt.Appendf(nil, "<%d>", w.priority), line...)); err != nil {
		return 0, err
	}
	return len(line), nil
}

func priorityOf(l slog.Level) int {
	switch {
	case l < slog.LevelInfo:
		return 7
	case l < slog.LevelWarn:
		return 6
	case l < slog.LevelError:
		return 4
	}
	return 3
}

// Handle is that of slog.Handler.
func (h journal) Handle(ctx context.Context, r slog.Record) error {
	h.out.mu.Lock()
	defer h.out.mu.Unlock()
	h.out.priority = priorityOf(r.Level)
	return h.Handler.Handle(ctx, r)
}

// WithAttrs is that of slog.Handler.
func (h journal) WithAttrs(attrs []slog.Attr) slog.Handler {
	return journal{h.Handler.WithAttrs(attrs), h.out}
}

// WithGroup is that of slog.Handler.
func (h journal) WithGroup(name string) slog.Handler {
	return journal{h.Handler.WithGroup(name), h.out}
}

package agent

import (
	"log/slog"
	"strings"
	"testing"
)

// TestLibrariesSayLittle holds that a library's loggers, which add attributes of their own, log no more than they may.
func TestLibrariesSayLittle(t *testing.T) {
	var out strings.Builder
	root := slog.New(libraryLog{slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}), slog.LevelWarn})
	for _, l := range []*slog.Logger{root, root.With("logger", "swarm2"), root.WithGroup("g").With("a", "b"), root.With("logger", "net/identify")} {
		l.Debug("debug")
		l.Info("info")
		l.Warn("warn")
		l.Error("error")
	}
	if got := strings.Count(out.String(), "msg=warn"); got != 3 {
		t.Errorf("%d warnings, want 3", got)
	}
	if got := strings.Count(out.String(), "msg=error"); got != 4 {
		t.Errorf("%d errors, want 4", got)
	}
	if strings.Contains(out.String(), "msg=info") || strings.Contains(out.String(), "msg=debug") {
		t.Error(out.String())
	}
}

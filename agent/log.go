package agent

import (
	"context"
	"io"
	"log/slog"
	"os"
	"sync"

	golog "github.com/ipfs/go-log/v2"
	"go.uber.org/zap/zapcore"
	"golang.org/x/term"
)

// NewLogger makes the agent's logger on w: text when w is a terminal, else JSON, unless the format is given. Lines to the
// journal of systemd begin with their priority. The levels can be changed while it is in use.
func NewLogger(w io.Writer, c LogConfig) (*slog.Logger, *Levels, error) {
	levels := new(Levels)
	if err := levels.Set(c); err != nil {
		return nil, nil, err
	}
	options := &slog.HandlerOptions{Level: slog.LevelDebug} // levelled chooses
	text := c.Format == "text"
	if f, ok := w.(*os.File); ok && c.Format == "auto" {
		text = term.IsTerminal(int(f.Fd()))
	}
	var prefixed *journalWriter
	if toJournal(w) {
		prefixed = &journalWriter{w: w}
		w = prefixed
	}
	var h slog.Handler = slog.NewJSONHandler(w, options)
	if text {
		h = slog.NewTextHandler(w, options)
	}
	if prefixed != nil {
		h = journal{h, prefixed}
	}
	return slog.New(levelled{Handler: h, levels: levels}), levels, nil
}

var bridge sync.Once

// bridgeLibraries sends what libraries log through go-log (boxo and what it uses) to the agent's handler. go-log is
// global to the process, so the first agent of a process gets its lines.
func bridgeLibraries(h slog.Handler) {
	bridge.Do(func() {
		golog.SetupLogging(golog.Config{Level: golog.LevelWarn})
		golog.SetPrimaryCore(slogCore{h})
	})
}

// slogCore is a zapcore.Core that writes to a slog.Handler.
type slogCore struct{ h slog.Handler }

// Enabled says yes to all: go-log filters by subsystem before, slog by level after. A core that says no makes zap
// print a complaint for every logger.
func (slogCore) Enabled(zapcore.Level) bool { return true }

func (c slogCore) With(fields []zapcore.Field) zapcore.Core {
	return slogCore{c.h.WithAttrs(attrsOf(fields))}
}

func (c slogCore) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.h.Enabled(context.Background(), slogLevel(e.Level)) {
		return checked.AddCore(e, c)
	}
	return checked
}

func (c slogCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	r := slog.NewRecord(e.Time, slogLevel(e.Level), e.Message, e.Caller.PC)
	r.AddAttrs(slog.String("logger", e.LoggerName))
	r.AddAttrs(attrsOf(fields)...)
	return c.h.Handle(context.Background(), r)
}

func (slogCore) Sync() error { return nil }

func slogLevel(l zapcore.Level) slog.Level {
	switch {
	case l < zapcore.InfoLevel:
		return slog.LevelDebug
	case l == zapcore.InfoLevel:
		return slog.LevelInfo
	case l == zapcore.WarnLevel:
		return slog.LevelWarn
	}
	return slog.LevelError
}

func attrsOf(fields []zapcore.Field) []slog.Attr {
	encoder := zapcore.NewMapObjectEncoder()
	for _, f := range fields {
		f.AddTo(encoder)
	}
	attrs := make([]slog.Attr, 0, len(encoder.Fields))
	for key, value := range encoder.Fields {
		attrs = append(attrs, slog.Any(key, value))
	}
	return attrs
}

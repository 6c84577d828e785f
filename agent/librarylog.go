package agent

import (
	"context"
	"log/slog"
)

// libraryLog lets only what is as grave as least through: libraries talk a lot.
type libraryLog struct {
	slog.Handler
	least slog.Level
}

func (h libraryLog) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= h.least && h.Handler.Enabled(ctx, l)
}

// WithAttrs learns which part of the library speaks. Identify warns of each peer that closes a connection at once, as
// every agent does with one that is not admitted yet, or that dialled it at the same moment: that is no warning.
func (h libraryLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	for _, a := range attrs {
		if a.Key == "logger" && a.Value.String() == "net/identify" {
			h.least = slog.LevelError
		}
	}
	h.Handler = h.Handler.WithAttrs(attrs)
	return h
}

func (h libraryLog) WithGroup(name string) slog.Handler {
	h.Handler = h.Handler.WithGroup(name)
	return h
}

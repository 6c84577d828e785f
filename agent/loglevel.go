package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"sync/atomic"
)

// Levels says how much is logged by each part of the agent. What belongs to which part, a logger carries as the
// attribute "part". They can be changed while they are in use.
type Levels struct {
	now atomic.Pointer[map[string]slog.Level] // "": parts that have none of their own
}

// Set puts the levels of c in force. On an error nothing has changed.
func (l *Levels) Set(c LogConfig) error {
	next := map[string]slog.Level{}
	var errs []error
	set := func(part, name string) {
		var level slog.Level
		if err := level.UnmarshalText([]byte(name)); err != nil {
			errs = append(errs, fmt.Errorf("log level: want debug, info, warn or error, not %q", name))
		}
		next[part] = level
	}
	set("", c.Level)
	c.Levels.each(set)
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	l.now.Store(&next)
	return nil
}

// each visits the parts that have a level of their own.
func (c LevelsConfig) each(visit func(part, level string)) {
	eachSetting(reflect.ValueOf(c), "", func(part string, v reflect.Value) {
		if level := v.String(); level != "" {
			visit(part, level)
		}
	})
}

// of gives the least level that part logs.
func (l *Levels) of(part string) slog.Level {
	levels := *l.now.Load()
	if level, ok := levels[part]; ok {
		return level
	}
	return levels[""]
}

// levelled is a handler that leaves out what is below the level of its part.
type levelled struct {
	slog.Handler
	levels *Levels
	part   string
}

func (h levelled) Enabled(_ context.Context, level slog.Level) bool {
	return level >= h.levels.of(h.part)
}

func (h levelled) WithAttrs(attrs []slog.Attr) slog.Handler {
	for _, a := range attrs {
		if a.Key == "part" {
			h.part = a.Value.String()
		}
	}
	h.Handler = h.Handler.WithAttrs(attrs)
	return h
}

func (h levelled) WithGroup(name string) slog.Handler {
	h.Handler = h.Handler.WithGroup(name)
	return h
}

package agent

import (
	"bytes"
	"strings"
	"testing"
)

// TestPartsHaveLevels holds that a part is logged by its own level, others by the common one, and a wrong level changes
// nothing.
func TestPartsHaveLevels(t *testing.T) {
	var out bytes.Buffer
	log, levels, err := NewLogger(&out, LogConfig{Level: "info", Format: "text", Levels: LevelsConfig{Network: "debug", Libp2p: "error"}})
	if err != nil {
		t.Fatal(err)
	}
	network := log.With("part", "network").With("peer", "x")
	say := func() string {
		out.Reset()
		network.Debug("1")
		log.With("part", "libp2p").Warn("2")
		log.With("part", "libp2p").Error("3")
		log.With("part", "store").Debug("4")
		log.Debug("5")
		log.Info("6")
		var said strings.Builder
		for line := range strings.Lines(out.String()) {
			_, number, _ := strings.Cut(line, "msg=")
			said.WriteString(number[:1])
		}
		return said.String()
	}
	if got := say(); got != "136" {
		t.Errorf("%q was said, want 1, 3 and 6", got)
	}
	if err := levels.Set(LogConfig{Level: "warn", Levels: LevelsConfig{Store: "loud"}}); err == nil || say() != "136" {
		t.Errorf("a wrong level: %v, %q", err, say())
	}
	if err := levels.Set(LogConfig{Level: "debug"}); err != nil || say() != "123456" {
		t.Errorf("all: %v, %q", err, say())
	}
}

package crdtstore

import (
	"math"
	"testing"
	"time"

	"syncagent/crdtstore/record"
)

// TestIdleWhateverFallsDueNext: an expiry in centuries, or a write dated so, is no reason to make turns without a pause.
func TestIdleWhateverFallsDueNext(t *testing.T) {
	clock := &offsetClock{testClock: &testClock{wall: 1_790_000_000_000}}
	for wake, want := range map[int64]time.Duration{
		0:                              time.Minute, // nothing
		clock.wall - 1:                 0,
		clock.wall + 20:                20 * time.Millisecond,
		clock.wall + 9_300_000_000_000: time.Minute, // more than a time.Duration holds
		253_402_300_799_999:            time.Minute, // the end of the year 9999
		(^record.HLC(0)).Milli():       time.Minute,
		math.MaxInt64:                  time.Minute,
	} {
		if got := (&Store{clock: clock, wake: wake}).idle(); got != want {
			t.Errorf("with something due at %d the owner sleeps for %s, want %s", wake, got, want)
		}
	}
}

//go:build !faults

package fault

import "time"

// Point marks a step at which a test lets the process die.
func Point(string) {}

// Planted tells whether this fault was planted.
func Planted(string) bool { return false }

// ClockOffset is by how much the wall clock is off.
func ClockOffset() time.Duration { return 0 }

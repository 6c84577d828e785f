// Package fault is the seam by which tests break the product: they let the process die at a named step, plant a fault
// that other tests must find, or shift the clock. All of it exists only in builds with the tag "faults"; in any other
// the calls are empty and compile to nothing.
//
// The steps and faults are named where they stand, by a string that says package and place. `make faults` finds the
// names in the source, so that none is forgotten: every step must be survived, every fault must be found.
//
// In a build with the tag, the environment says what happens in a process:
//
//	SYNCAGENT_FAILPOINT=NAME or NAME:N   it dies, as by kill -9, when it comes to that step for the Nth time
//	SYNCAGENT_FAULT=NAME                 this fault is planted
//	SYNCAGENT_CLOCK=DURATION             the wall clock is off by so much, e.g. -3m
package fault

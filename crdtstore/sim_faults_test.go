//go:build faults

package crdtstore

import (
	"fmt"
	"testing"

	"syncagent/crdtstore/fault"
)

// plantable lists the faults that the simulation must find, and within how many seeds it has to.
var plantable = map[string]uint64{
	"acknowledge-unsynced": 100, // success before the fsync
	"agent-time-back":      300, // a restart forgets the clock
	"anybody-writes":       100, // the policy is not asked who may write
	"digest-drift":         100, // the view's digest is not kept
	"drop-own":             500, // an origin drops what it may not read
	"feed-overflow":        100, // a busy turn loses watch events
	"forget-revocations":   500, // only the text in force revokes
	"forget-unready":       300, // a restart takes every write for whole
	"forget-wants":         300, // what is lacking is never asked for
	"half-commit":          300, // rows of one turn in two commits
	"heads-apart":          300, // rows of heads before their blocks
	"hlc-only":             500, // equal clocks: the first to come stays
	"keep-chunks":          300, // chunks that nobody needs stay
	"keep-unreadable":      300, // a withdrawn read right deletes nothing
	"serve-anybody":        100, // entries go to who may not read them
	"show-lacking":         100, // a value shows before its chunks came
	"show-early":           300, // future writes show at once
	"show-unready":         100, // a batch shows entry by entry
	"skip-rejudge":         100, // a new policy changes no rows
	"trust-cursor":         500, // a cursor of a lost row is believed
	"winner-by-author":     100, // last write does not win
	"write-below":          300, // a put is not above what it saw
}

// TestPlantedFaults holds that the simulation finds each of the planted faults.
func TestPlantedFaults(t *testing.T) {
	defer fault.Plant("")
	for name, bound := range plantable {
		t.Run(name, func(t *testing.T) {
			fault.Plant(name)
			for seed := uint64(1); seed <= bound; seed++ {
				if failure := runBroken(seed); failure != "" {
					t.Logf("seed %d: %.200s", seed, failure)
					return
				}
			}
			t.Errorf("not found in %d seeds", bound)
		})
	}
}

// runBroken runs a seed. A store with a fault in it may also panic.
func runBroken(seed uint64) (failure string) {
	defer func() {
		if r := recover(); r != nil {
			failure = fmt.Sprint(r)
		}
	}()
	failure, _ = runSim(configOf(seed))
	return failure
}

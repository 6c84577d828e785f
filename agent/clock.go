package agent

import (
	"context"
	"fmt"
	"slices"
	"time"

	apiv1 "syncagent/agent/api/v1"
)

const (
	// clockLimit is how far agent time may be from that of the others. Writes from further ahead than twice as much are
	// not shown by others until they are due.
	clockLimit    = 5 * time.Minute
	clockPeers    = 3 // so few clocks prove nothing about ours
	guardInterval = 5 * time.Second
)

const alarmClock = "clock-off"

// clockOff decides whether this agent's clock is to be blamed: it is far from that of most of at least three connected
// peers. Skews are theirs minus ours. What was found stays as long as nobody is there who tells otherwise.
func clockOff(was bool, skews []time.Duration) bool {
	far := 0
	for _, s := range skews {
		if s.Abs() > clockLimit {
			far++
		}
	}
	most := 2*far > len(skews)
	switch {
	case len(skews) == 0:
		return was
	case len(skews) < clockPeers:
		return was && most
	}
	return most
}

// clockMessage says how far off the clock is, by the middle one of the others.
func clockMessage(skews []time.Duration) string {
	if len(skews) == 0 {
		return "agent time was far from that of most peers, and no peer is connected that could tell that this is over"
	}
	sorted := slices.Sorted(slices.Values(skews))
	middle := sorted[len(sorted)/2]
	way := "behind"
	if middle < 0 {
		way = "ahead of"
	}
	return fmt.Sprintf("agent time is %s %s the middle one of %d connected peers", middle.Abs().Round(time.Second), way, len(skews))
}

// skewsOf lists the skews that are known.
func skewsOf(peers []*apiv1.Peer) (skews []time.Duration) {
	for _, p := range peers {
		if p.GetConnected() && p.ClockSkewMs != nil {
			skews = append(skews, time.Duration(p.GetClockSkewMs()*float64(time.Millisecond)))
		}
	}
	return skews
}

// clockGuard makes the store refuse writes while the clock is off, and raises an alarm for it.
type clockGuard struct {
	peers  func() []*apiv1.Peer
	alarms *Alarms
	refuse func(reason string) // empty: accept again
	off    bool
}

func (g *clockGuard) look(time.Time) {
	skews := skewsOf(g.peers())
	g.off = clockOff(g.off, skews)
	if !g.off {
		g.refuse("")
		g.alarms.Clear(alarmClock, "")
		return
	}
	reason := clockMessage(skews)
	g.refuse(reason)
	g.alarms.Raise(alarmClock, "", reason+"; writes are refused")
}

// repeat looks until ctx ends.
func repeat(ctx context.Context, interval time.Duration, look func(now time.Time)) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-ticker.C:
			look(now)
		}
	}
}

package agent

import (
	"strings"
	"testing"
	"time"

	apiv1 "syncagent/agent/api/v1"
)

// TestClockOff holds when an agent distrusts its own clock, and when it trusts it again.
func TestClockOff(t *testing.T) {
	const m = time.Minute
	for _, tc := range []struct {
		name  string
		was   bool
		skews []time.Duration
		want  bool
	}{
		{"nobody there", false, nil, false},
		{"nobody there who could say that it is over", true, nil, true},
		{"all near", false, []time.Duration{0, m, -m}, false},
		{"exactly at the limit", false, []time.Duration{5 * m, 5 * m, 5 * m}, false},
		{"behind all", false, []time.Duration{6 * m, 6 * m, 7 * m}, true},
		{"ahead of all", false, []time.Duration{-6 * m, -6 * m, -7 * m}, true},
		{"two of three", false, []time.Duration{6 * m, 0, 6 * m}, true},
		{"one of three is wrong itself", false, []time.Duration{6 * m, 0, 0}, false},
		{"half is not most", false, []time.Duration{6 * m, 6 * m, 0, 0}, false},
		{"two are too few", false, []time.Duration{6 * m, 6 * m}, false},
		{"two are enough to go on", true, []time.Duration{6 * m, 6 * m}, true},
		{"one near is enough to end it", true, []time.Duration{m}, false},
		{"over", true, []time.Duration{0, 0, 0}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := clockOff(tc.was, tc.skews); got != tc.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

// TestClockGuard holds that writes are refused exactly as long as the alarm is raised.
func TestClockGuard(t *testing.T) {
	skew, refused := 0.0, "?"
	g := clockGuard{
		peers: func() []*apiv1.Peer {
			ms := skew
			p := &apiv1.Peer{Connected: true, ClockSkewMs: &ms}
			return []*apiv1.Peer{p, p, p, {Connected: true}, {ClockSkewMs: &ms}}
		},
		alarms: NewAlarms(quiet()), refuse: func(reason string) { refused = reason },
	}
	for _, step := range []struct {
		skew float64
		want string
	}{{0, ""}, {-400_000, "6m40s ahead of the middle one of 3"}, {3_600_000, "1h0m0s behind"}, {1000, ""}} {
		skew = step.skew
		g.look(time.Time{})
		list := g.alarms.List()
		if (step.want == "") != (refused == "") || !strings.Contains(refused, step.want) || (len(list) == 1) != (step.want != "") {
			t.Errorf("skew %v: refused %q, alarms %v", skew, refused, list)
		}
		if len(list) == 1 && (list[0].Code != alarmClock || list[0].Hint == "") {
			t.Errorf("alarm %+v", list[0])
		}
	}
}

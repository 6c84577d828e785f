package agent

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	apiv1 "syncagent/agent/api/v1"
	"syncagent/agent/page"
)

// pageView puts a status into the words of the status page. Without full it names no path: messages of alarms and
// errors of mirrors can, so they are left out.
func pageView(s *apiv1.StatusResponse, full bool) page.View {
	v := page.View{
		Full: full, Name: s.GetName(), PeerID: s.GetPeerId(), Network: s.GetNetwork(), Version: s.GetVersion(),
		Entries: s.GetEntries(), Missing: s.GetMissingEntries(), Withheld: s.GetWithheldEntries(), Serial: s.GetPolicySerial(),
		Blocks: s.GetBlocks(), Heads: s.GetHeads(), Pending: s.GetPending(), Digest: s.GetViewDigest(),
		DiskFree: byteCount(s.GetDiskFree() >> 20 << 20),
	}
	v.State, v.Level, v.Explanation = stateOf(s)
	for _, a := range s.GetAlarms() {
		alarm := page.Alarm{Code: a.GetCode(), Since: clockTime(a.GetSince().AsTime()), Hint: a.GetHint()}
		if full {
			alarm.Message = strings.TrimPrefix(a.GetSubject()+": "+a.GetMessage(), ": ")
		}
		v.Alarms = append(v.Alarms, alarm)
	}
	for _, p := range s.GetPeers() {
		if p.GetConnected() {
			v.Connected++
		}
		v.Peers = append(v.Peers, peerView(p))
	}
	for i, m := range s.GetMirrors() {
		v.Mirrors = append(v.Mirrors, mirrorView(i, m, full))
	}
	for i, t := range s.GetTriggers() {
		v.Triggers = append(v.Triggers, triggerView(i, t, full))
	}
	return v
}

// stateOf says in one word how an agent is, whether that is good, and what the word means.
func stateOf(s *apiv1.StatusResponse) (word, level, explanation string) {
	connected, equal := 0, 0
	for _, p := range s.GetPeers() {
		if p.GetConnected() {
			connected++
			if p.GetEqual() {
				equal++
			}
		}
	}
	level = "warn"
	switch {
	case !s.GetReady():
		word, explanation = "starting", "It does not serve yet, or no longer."
	case s.GetPolicySerial() == 0:
		word, explanation = "unadmitted", "It has no policy yet: nothing can be read or written."
	case s.GetPaused():
		word, explanation = "paused", "All connections are closed until syncagent peers resume."
	case len(s.GetPeers()) == 0:
		word, explanation = "single", "It knows no other agent."
	case connected == 0:
		word, explanation = "alone", "None of its peers is connected: it works with what it has."
	case equal < connected || s.GetMissingEntries() > 0 || s.GetPending() > 0:
		word, explanation = "syncing", "Some peers have something else, for now."
	default:
		word, level, explanation = "synced", "ok", "All connected peers have the same blocks."
	}
	return word, level, explanation
}

func peerView(p *apiv1.Peer) page.Peer {
	v := page.Peer{Name: nameOf(p), ID: p.GetPeerId(), Version: p.GetVersion(), Addr: p.GetAddr(), State: "away", Level: "warn"}
	if !p.GetConnected() {
		return v
	}
	v.State, v.Level = "differs", "warn"
	if p.GetEqual() {
		v.State, v.Level = "equal", "ok"
	}
	v.Lag, v.Serial = strconv.FormatInt(p.GetLagBlocks(), 10), strconv.FormatUint(p.GetPolicySerial(), 10)
	if p.RttMs != nil {
		v.RTT = fmt.Sprintf("%.1f ms", p.GetRttMs())
	}
	if p.ClockSkewMs != nil {
		skew := time.Duration(p.GetClockSkewMs() * float64(time.Millisecond))
		v.Skew = fmt.Sprintf("%+.0f ms", p.GetClockSkewMs())
		if skew.Abs() > 10*time.Second {
			v.Skew = fmt.Sprintf("%+.0f s", skew.Seconds())
		}
	}
	return v
}

func mirrorView(i int, m *apiv1.Mirror, full bool) page.Mirror {
	v := page.Mirror{Name: m.GetName(), State: m.GetState(), Level: "ok", Files: m.GetFiles(), Pending: m.GetPending()}
	switch {
	case m.GetState() == string(statePaused):
		v.Level = "warn"
	case m.GetLastError() != "":
		v.Level = "bad"
	}
	if full {
		v.Dir, v.Error, v.Output = m.GetDir(), m.GetLastError(), pruned(m.GetLastOutput())
	} else {
		v.Name = publicName(m, i)
	}
	return v
}

func triggerView(i int, t *apiv1.Trigger, full bool) page.Trigger {
	v := page.Trigger{Name: fmt.Sprintf("trigger %d", i+1), State: "idle", Level: "ok", Runs: t.GetRuns()}
	if full {
		v.Name, v.Output = t.GetPath(), pruned(t.GetLastOutput())
	}
	if t.LastExit != nil {
		v.Exit = strconv.Itoa(int(t.GetLastExit()))
		if t.GetLastExit() != 0 {
			v.State, v.Level = "failing", "bad"
		}
	}
	if t.GetPending() {
		v.State = "pending"
	}
	return v
}

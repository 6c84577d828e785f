package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	"syncagent/acl"
	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore/record"
)

// slightSkew is a difference of clocks that a working time service does not leave.
const slightSkew = time.Second

// askAgent checks what the running agent tells; false if there is none.
func (d *diagnosis) askAgent(ctx context.Context, client *Client) bool {
	status, err := client.Agent.Status(ctx, connect.NewRequest(&apiv1.StatusRequest{}))
	if err != nil {
		e := ErrorOf(err)
		if e.Code == CodeUnreachable && d.config.File != SystemConfig && !errors.Is(err, fs.ErrPermission) {
			e.Hint = "start it with syncagent agent --config " + d.config.File
		}
		d.fail("agent", e.Hint, "%s", e.Message)
		return false
	}
	s := status.Msg
	d.state(s)
	d.disk(s.GetDiskFree(), true)
	d.alarms(s)
	d.peers(s)
	d.clocks(s.GetPeers())
	d.mirrors(s)
	if s.GetPolicySerial() == 0 {
		return true // there is an alarm
	}
	shown, err := client.Policy.Show(ctx, connect.NewRequest(&apiv1.ShowRequest{}))
	if err != nil {
		d.fail("policy", "", "%s", ErrorOf(err).Message)
		return true
	}
	signed, err := acl.ParseSigned(shown.Msg.GetSigned())
	if err != nil {
		d.fail("policy", "", "%v", err)
		return true
	}
	network, _ := record.ParseNetworkID(s.GetNetwork()) // the agent's own; zero would only deny all
	d.policy(s, acl.Compile(network, signed, []*acl.Signed{signed}))
	return true
}

func (d *diagnosis) state(s *apiv1.StatusResponse) {
	switch {
	case !s.GetReady():
		d.fail("agent", "its log says what it waits for", "%s does not serve yet, or no longer", s.GetName())
	case s.GetVersion() != d.version:
		d.warn("agent", "restart the agent to run the installed version", "%s runs version %s, this program is %s", s.GetName(), s.GetVersion(), d.version)
	default:
		d.ok("agent", "%s runs, version %s", s.GetName(), s.GetVersion())
	}
}

func (d *diagnosis) alarms(s *apiv1.StatusResponse) {
	for _, a := range s.GetAlarms() {
		what := strings.TrimPrefix(a.GetSubject()+": "+a.GetMessage(), ": ")
		d.fail("alarm", sandboxHint(a, s.GetMirrors()), "%s since %s: %s", a.GetCode(), a.GetSince().AsTime().Format(time.RFC3339), what)
	}
	if len(s.GetAlarms()) == 0 {
		d.ok("alarms", "none")
	}
}

// sandboxHint is what to do about an alarm: systemd keeps an agent from directories that its unit does not name.
func sandboxHint(a *apiv1.Alarm, mirrors []*apiv1.Mirror) string {
	for _, m := range mirrors {
		if a.GetCode() == "mirror-failing" && a.GetSubject() == m.GetName() && strings.Contains(a.GetMessage(), unix.EROFS.Error()) {
			return "systemctl edit syncagent, and put in: [Service] and below it ReadWritePaths=" + m.GetDir() + "; then systemctl restart syncagent"
		}
	}
	return a.GetHint()
}

// nameOf is how people know a peer.
func nameOf(p *apiv1.Peer) string {
	for _, name := range []string{p.GetAlias(), p.GetName()} {
		if name != "" {
			return name
		}
	}
	return p.GetPeerId()
}

func (d *diagnosis) peers(s *apiv1.StatusResponse) {
	peers := s.GetPeers()
	var away []string
	equal := 0
	for _, p := range peers {
		switch {
		case !p.GetConnected():
			away = append(away, nameOf(p))
		case p.GetEqual():
			equal++
		}
	}
	connected := len(peers) - len(away)
	switch {
	case len(peers) == 0:
		d.warn("peers", "syncagent join on another host, then syncagent acl admit here", "this agent is alone: nobody else has its data")
	case connected == 0:
		d.fail("peers", "see bootstrap below, and syncagent peers", "none of %d peers is connected", len(peers))
	case len(away) > 0:
		d.warn("peers", "are they running? syncagent peers shows their addresses", "%d of %d connected, away: %s", connected, len(peers), strings.Join(away, ", "))
	default:
		d.ok("peers", "%d connected, %d of them with the same blocks", connected, equal)
	}
	if n := s.GetMissingEntries(); n > 0 {
		d.warn("entries", "they come when a member that has them is connected", "%d entries are known and not here yet", n)
	}
}

// clocks looks at the differences of clocks. One that is far off is an alarm of its own once most peers say so.
func (d *diagnosis) clocks(peers []*apiv1.Peer) {
	worst, name := time.Duration(-1), ""
	for _, p := range peers {
		if p.ClockSkewMs == nil {
			continue
		}
		skew := time.Duration(p.GetClockSkewMs() * float64(time.Millisecond)).Abs()
		if skew > worst {
			worst, name = skew, nameOf(p)
		}
	}
	text := fmt.Sprintf("largest difference %s (%s)", worst.Round(time.Millisecond), name)
	switch hint := "check the time services of both hosts"; {
	case worst < 0:
	case worst > clockLimit:
		d.fail("clock", hint, "%s", text)
	case worst > slightSkew:
		d.warn("clock", hint, "%s", text)
	default:
		d.ok("clock", "%s", text)
	}
}

// mirrors reports what no alarm does: there is one for each mirror that is not well, and none for triggers.
func (d *diagnosis) mirrors(s *apiv1.StatusResponse) {
	for _, m := range s.GetMirrors() {
		if m.GetLastError() == "" {
			d.ok("mirror", "%s -> %s: %s, %d files", m.GetPrefix(), m.GetDir(), m.GetState(), m.GetFiles())
		}
	}
	for _, t := range s.GetTriggers() {
		if t.LastExit != nil && t.GetLastExit() != 0 {
			d.fail("trigger", "syncagent status -o json has its last output", "%s %q ended with exit code %d", t.GetPath(), t.GetCommand(), t.GetLastExit())
		}
	}
}

// policy looks for rights that make the network fragile.
func (d *diagnosis) policy(s *apiv1.StatusResponse, p *acl.Policy) {
	self, err := record.ParsePublicKey(s.GetPeerId())
	if err != nil || !p.Member(self) {
		d.fail("policy", "syncagent acl admit, with the line that syncagent join printed here", "%s is no member by the policy with serial %d", s.GetName(), p.Serial())
		return
	}
	readers := 0
	for _, m := range p.Members() {
		if p.MayReadPath(m, "/") {
			readers++
		}
	}
	if len(p.Members()) > 1 && readers < 2 {
		d.warn("policy", "give at least two hosts read on / (syncagent acl show, acl apply)",
			"%d of %d members may read everything: if hosts are lost, so may be what only they could read", readers, len(p.Members()))
		return
	}
	d.ok("policy", "serial %d, %d members, %d may read everything", p.Serial(), len(p.Members()), readers)
}

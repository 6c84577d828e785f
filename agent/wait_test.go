package agent

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore/record"
	"syncagent/p2p"
)

// TestWait holds what is refused, and what is said when not all have a write in time.
func TestWait(t *testing.T) {
	s := startServer(t, func(s *server) { s.kv.peers = &sampleNetwork{} })
	version := record.Version{HLC: 1}.String()
	wait := func(r *apiv1.WaitRequest) (*apiv1.WaitResponse, error) {
		answer, err := s.client.KV.Wait(t.Context(), connect.NewRequest(r))
		if err != nil {
			return nil, err
		}
		return answer.Msg, nil
	}
	for want, r := range map[Code][]*apiv1.WaitRequest{
		CodeBadPath:      {{Path: "x", Version: version}},
		CodeDenied:       {{Path: "/.sys/x", Version: version}},
		CodePrecondition: {{Path: "/p", Version: version, Agents: 5}},
		CodeBadRequest: {
			{Path: "/p"}, {Path: "/p", Version: "1"}, {Path: "/p", Version: version, Agents: -1},
			{Path: "/p", Version: version, Timeout: durationpb.New(time.Hour)}, {Path: "/p", Version: version, Timeout: durationpb.New(-1)},
		},
	} {
		for _, r := range r {
			if _, err := wait(r); err == nil || ErrorOf(err).Code != want {
				t.Errorf("%v: %v, want %s", r, err, want)
			}
		}
	}
	if got, err := wait(&apiv1.WaitRequest{Path: "/p", Version: version, Agents: 1}); err != nil || !got.GetDone() || !slices.Equal(got.GetStored(), []string{"test"}) {
		t.Errorf("this agent alone: %v, %v", got, err)
	}
	got, err := wait(&apiv1.WaitRequest{Path: "/p", Version: version, Timeout: durationpb.New(50 * time.Millisecond)})
	if err != nil || got.GetDone() || strings.Join(got.GetLacking(), " ") != "db1 db2 web2" {
		t.Errorf("all: %v, %v", got, err)
	}
}

// tellingNetwork has members that show a version, and a fault that names a path of their own.
type tellingNetwork struct {
	sampleNetwork
	shown record.Version
}

func (n *tellingNetwork) Follow(_ context.Context, _ record.PublicKey, placed []p2p.Placed, _ p2p.Stage) (p2p.Progress, error) {
	p := p2p.Progress{Of: make([]p2p.Reached, len(placed)), Fault: "mirror hush: /srv/hush/key is no file"}
	for i := range p.Of {
		p.Of[i] = p2p.Reached{Stage: p2p.StageStored, Shown: n.shown}
	}
	return p, nil
}

// Who waits for what it wrote and may not read learns no version that is shown there, and no caller that is narrowed
// learns of paths of other hosts' mirrors.
func TestG7_WaitAndRolloutTellACallerNoMoreThanItMayRead(t *testing.T) {
	shown := record.Version{HLC: 77}
	s := startServer(t, func(s *server) { s.kv.peers = &tellingNetwork{shown: shown} })
	for _, path := range []string{"/drop/box", "/certs/key"} {
		if _, err := s.client.KV.Put(t.Context(), put(path, "v")); err != nil {
			t.Fatal(err)
		}
	}
	narrow := s.clientOf(t, &caller{name: "narrow", mark: "m", rights: onlyBelow{read: []string{"/certs"}, write: []string{"/drop"}}})
	wait := func(c *Client, path string) *apiv1.HostProgress {
		r, err := c.KV.Wait(t.Context(), connect.NewRequest(&apiv1.WaitRequest{Path: path, Version: record.Version{HLC: 1}.String(), Stage: apiv1.Stage_STAGE_MIRRORED}))
		if err != nil || len(r.Msg.GetHosts()) < 2 {
			t.Fatal(r, err)
		}
		return r.Msg.GetHosts()[1]
	}
	rollout := func(c *Client, path string) *apiv1.HostProgress {
		r, err := c.KV.Rollout(t.Context(), connect.NewRequest(&apiv1.RolloutRequest{Path: path}))
		if err != nil || len(r.Msg.GetHosts()) < 2 {
			t.Fatal(r, err)
		}
		return r.Msg.GetHosts()[1]
	}
	for name, test := range map[string]struct {
		got           *apiv1.HostProgress
		version, full bool
	}{
		"wait, written only":      {wait(narrow, "/drop/box"), false, false},
		"wait, read":              {wait(s.client, "/drop/box"), true, true},
		"rollout, read":           {rollout(narrow, "/certs"), true, false},
		"rollout, of who may all": {rollout(s.client, "/certs"), true, true},
	} {
		if (test.got.GetVersion() == shown.String()) != test.version || test.got.GetVersion() != "" != test.version {
			t.Errorf("%s: version %q", name, test.got.GetVersion())
		}
		if test.got.GetError() == "" || strings.Contains(test.got.GetError(), "hush") != test.full {
			t.Errorf("%s: fault %q", name, test.got.GetError())
		}
	}
}

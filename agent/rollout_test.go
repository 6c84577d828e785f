package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore/record"
)

// newFleet starts agents web0, web1, ... that know each other; change may set them up before.
func newFleet(t *testing.T, count int, lines []string, change func(i int, c *Config)) []*testAgent {
	t.Helper()
	n := newTestNetwork(t)
	agents, identities := make([]*testAgent, count), map[string]record.PublicKey{}
	for i := range agents {
		agents[i] = newTestAgent(t, n)
		agents[i].config.Name = fmt.Sprintf("web%d", i)
		identities[agents[i].config.Name] = agents[i].key
	}
	policy := n.policy(1, identities, lines...)
	for i, a := range agents {
		if change != nil {
			change(i, &a.config)
		}
		if err := os.WriteFile(a.config.PolicyFile(), policy, 0o644); err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			id, err := agents[0].client.Agent.ID(t.Context(), connect.NewRequest(&apiv1.IDRequest{}))
			if err != nil {
				t.Fatal(err)
			}
			a.config.Bootstrap = id.Msg.GetAddrs()
		}
		a.start()
	}
	for _, a := range agents {
		waitUntil(t, "all are connected", func() bool {
			connected := 0
			for _, p := range a.status().GetPeers() {
				if p.GetConnected() {
					connected++
				}
			}
			return connected == count-1
		})
	}
	return agents
}

// mirrorTo adds a mirror of /certs with a command after changes.
func mirrorTo(c *Config, command string) {
	m := defaultMirror()
	m.Name, m.Prefix, m.Dir = "certs", "/certs", filepath.Join(filepath.Dir(c.File), "certs")
	m.OnChange = []string{"/bin/sh", "-c", command}
	c.Mirrors = append(c.Mirrors, m)
}

// TestWaitNamesWhoseTriggerFails holds what a wait for mirrors and triggers tells: all well, one whose command fails, and
// hosts that have no mirror; and that rollout tells the same.
func TestWaitNamesWhoseTriggerFails(t *testing.T) {
	broken := filepath.Join(t.TempDir(), "broken")
	agents := newFleet(t, 4, nil, func(i int, c *Config) {
		switch i {
		case 1, 2:
			mirrorTo(c, "cat >/dev/null")
		case 3:
			mirrorTo(c, "cat >/dev/null; ! test -e "+broken)
		}
	})
	one := agents[0]
	write := func(value string) string {
		t.Helper()
		r, err := one.client.KV.Batch(t.Context(), connect.NewRequest(&apiv1.BatchRequest{Ops: []*apiv1.Op{
			{Op: &apiv1.Op_Put{Put: &apiv1.PutRequest{Path: "/certs/a", Value: []byte(value)}}},
			{Op: &apiv1.Op_Put{Put: &apiv1.PutRequest{Path: "/certs/b", Value: []byte(value)}}},
		}}))
		if err != nil {
			t.Fatal(err)
		}
		return r.Msg.GetVersion()
	}
	ask := func(r *apiv1.WaitRequest) *apiv1.WaitResponse {
		t.Helper()
		if r.Timeout == nil {
			r.Timeout = durationpb.New(30 * time.Second)
		}
		answer, err := one.client.KV.Wait(t.Context(), connect.NewRequest(r))
		if err != nil {
			t.Fatal(err)
		}
		return answer.Msg
	}
	paths, all := []string{"/certs/a", "/certs/b"}, "web0 web1 web2 web3"
	version := write("1")
	got := ask(&apiv1.WaitRequest{Paths: paths, Version: version, Stage: apiv1.Stage_STAGE_TRIGGERED})
	if !got.GetDone() || strings.Join(got.GetStored(), " ") != "web1 web2 web3" || !got.GetHosts()[0].GetUnmirrored() {
		t.Errorf("all is well: %v", got)
	}
	if got := ask(&apiv1.WaitRequest{Paths: paths, Version: version}); !got.GetDone() || strings.Join(got.GetStored(), " ") != all {
		t.Errorf("stored: %v", got)
	}
	if got := ask(&apiv1.WaitRequest{Paths: paths, Version: version, Hosts: []string{"web0"}, Stage: apiv1.Stage_STAGE_MIRRORED}); got.GetDone() {
		t.Errorf("a host without a mirror: %v", got)
	}

	if err := os.WriteFile(broken, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	version = write("2")
	got = ask(&apiv1.WaitRequest{Paths: paths, Version: version, Stage: apiv1.Stage_STAGE_TRIGGERED})
	last := got.GetHosts()[3]
	if got.GetDone() || strings.Join(got.GetStored(), " ") != "web1 web2" || last.GetStage() != apiv1.Stage_STAGE_MIRRORED || !strings.Contains(last.GetError(), "exit status 1") {
		t.Errorf("one fails: %v", got)
	}
	if got := ask(&apiv1.WaitRequest{Paths: paths, Version: version, Stage: apiv1.Stage_STAGE_TRIGGERED, Agents: 2}); !got.GetDone() {
		t.Errorf("two of them: %v", got)
	}
	r, err := agents[1].client.KV.Rollout(t.Context(), connect.NewRequest(&apiv1.RolloutRequest{Path: "/certs"}))
	if err != nil || len(r.Msg.GetHosts()) != 4 || r.Msg.GetPaths() != 2 {
		t.Fatalf("rollout: %v, %v", r, err)
	}
	if h := r.Msg.GetHosts()[3]; h.GetName() != "web3" || h.GetMirrored() != 2 || h.GetTriggered() != 0 || !strings.Contains(h.GetError(), "exit status 1") || !strings.HasPrefix(h.GetVersion(), version) {
		t.Errorf("rollout of the host that fails: %v", h)
	}

	// The command works again, and what was deleted counts like what was put.
	if err := os.Remove(broken); err != nil {
		t.Fatal(err)
	}
	d, err := one.client.KV.Delete(t.Context(), connect.NewRequest(&apiv1.DeleteRequest{Path: "/certs/a"}))
	if err != nil {
		t.Fatal(err)
	}
	if got := ask(&apiv1.WaitRequest{Path: "/certs/a", Version: d.Msg.GetVersion(), Stage: apiv1.Stage_STAGE_TRIGGERED}); !got.GetDone() {
		t.Errorf("a delete: %v", got)
	}
	if _, err := os.Stat(filepath.Join(agents[3].config.Mirrors[0].Dir, "a")); !os.IsNotExist(err) {
		t.Errorf("the deleted file: %v", err)
	}
	// One is away: its lack is told, and it is known what the others have.
	agents[2].stop()
	version = write("3")
	got = ask(&apiv1.WaitRequest{Paths: paths, Version: version, Stage: apiv1.Stage_STAGE_MIRRORED, Timeout: durationpb.New(time.Second)})
	if got.GetDone() || strings.Join(got.GetStored(), " ") != "web1 web3" || got.GetHosts()[2].GetError() == "" {
		t.Errorf("one is away: %v", got)
	}
}

// TestG7_ProgressTellsNothingOfWhatOneMayNotRead holds that who may not read a path learns neither that it is there nor
// how far anybody is with it, and is not waited for.
func TestG7_ProgressTellsNothingOfWhatOneMayNotRead(t *testing.T) {
	agents := newFleet(t, 1, nil, func(_ int, c *Config) { mirrorTo(c, "cat") })
	if err := agents[0].put("/certs/a", "1"); err != nil {
		t.Fatal(err)
	}
	placed, err := agents[0].agent.running.server.kv.place([]string{"/certs/a"}, version(t, agents[0], "/certs/a"))
	if err != nil {
		t.Fatal(err)
	}
	p := agents[0].agent.running.progress()
	if got := p.of(agents[0].key, placed, 0); got.Of[0].Stage == 0 {
		t.Errorf("to itself: %v", got)
	}
	stranger := record.PublicKey{1}
	if got := p.of(stranger, placed, 3); got.Of[0].Stage != 0 || !got.Of[0].Shown.IsZero() || got.Of[0].Unmirrored || got.Fault != "" {
		t.Errorf("to a stranger: %v", got)
	}
}

func version(t *testing.T, a *testAgent, path string) string {
	t.Helper()
	r, err := a.client.KV.Get(t.Context(), connect.NewRequest(&apiv1.GetRequest{Path: path}))
	if err != nil {
		t.Fatal(err)
	}
	return r.Msg.GetEntry().GetVersion()
}

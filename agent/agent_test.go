package agent

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore/record"
)

// testNetwork is a network with its admin key.

// policy signs a text that lets the named identities do everything, and adds lines.

// testAgent is a whole agent in a folder of its own.

// start runs the agent until stop, or until the test ends.

// fails starts an agent that must not start.

// testLog writes what the agent logs into the test's own log.

func TestAgentKeepsWhatItAcknowledged(t *testing.T) {
	n := newTestNetwork(t)
	a := newTestAgent(t, n)
	if err := os.WriteFile(a.config.PolicyFile(), n.policy(1, map[string]record.PublicKey{"one": a.key}), 0o644); err != nil {
		t.Fatal(err)
	}
	a.start()
	if err := a.put("/a/b", "value"); err != nil {
		t.Fatal(err)
	}
	before := a.status()
	if !before.GetReady() || before.GetEntries() != 1 || before.GetPolicySerial() != 1 || before.GetPeerId() != a.key.String() || len(before.GetAlarms()) != 0 {
		t.Errorf("%v", before)
	}
	a.stop()
	if _, err := os.Lstat(a.config.API.Socket); !os.IsNotExist(err) {
		t.Errorf("the socket is still there: %v", err)
	}
	a.start()
	if v, err := a.get("/a/b"); err != nil || v != "value" {
		t.Errorf("after a restart: %q, %v", v, err)
	}
	after := a.status()
	if after.GetViewDigest() != before.GetViewDigest() || after.GetBlockDigest() != before.GetBlockDigest() {
		t.Error("the digests changed over a restart")
	}
}

func TestAgentWithoutPolicy(t *testing.T) {
	n := newTestNetwork(t)
	a := newTestAgent(t, n)
	a.start()
	if e := ErrorOf(a.put("/a", "1")); e.Code != CodeNoPolicy || e.Hint == "" {
		t.Errorf("put: %+v", e)
	}
	if _, err := a.get("/a"); ErrorOf(err).Code != CodeNoPolicy {
		t.Errorf("get: %v", err)
	}
	if s := a.status(); len(s.GetAlarms()) != 1 || s.GetAlarms()[0].GetCode() != alarmNoPolicy {
		t.Errorf("alarms: %v", s.GetAlarms())
	}
	apply := func(text []byte) error {
		_, err := a.client.Policy.Apply(t.Context(), connect.NewRequest(&apiv1.ApplyRequest{Signed: text}))
		return err
	}
	identities := map[string]record.PublicKey{"one": a.key}
	if e := ErrorOf(apply(newTestNetwork(t).policy(1, identities))); e == nil || e.Code != CodeBadPolicy {
		t.Errorf("a policy of another network: %+v", e)
	}
	if e := ErrorOf(apply(testNetwork{n.id, newTestNetwork(t).admin}.policy(1, identities))); e == nil || e.Code != CodeBadPolicy {
		t.Errorf("a policy by another admin: %+v", e)
	}
	if err := apply(n.policy(5, identities)); err != nil {
		t.Fatal(err)
	}
	if err := a.put("/a", "1"); err != nil {
		t.Errorf("put after the policy came: %v", err)
	}
	if s := a.status(); len(s.GetAlarms()) != 0 {
		t.Errorf("alarms: %v", s.GetAlarms())
	}
	if e := ErrorOf(apply(n.policy(4, identities))); e == nil || e.Code != CodePrecondition {
		t.Errorf("a lower serial: %+v", e)
	}
	if e := ErrorOf(a.put("/.sys/x", "1")); e == nil || e.Code != CodeDenied {
		t.Errorf("/.sys: %+v", e)
	}
}

// A policy file that is no good is an alarm, not the end.

func TestAgentBadPolicyFile(t *testing.T) {
	n := newTestNetwork(t)
	a := newTestAgent(t, n)
	if err := os.WriteFile(a.config.PolicyFile(), []byte("nonsense"), 0o644); err != nil {
		t.Fatal(err)
	}
	a.start()
	codes := ""
	for _, alarm := range a.status().GetAlarms() {
		codes += alarm.GetCode() + " "
	}
	if codes != "bad-policy no-policy " {
		t.Errorf("alarms: %s", codes)
	}
	if err := applyPolicy(t.Context(), a.client, n.policy(1, map[string]record.PublicKey{"one": a.key})); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "no alarm is left", func() bool { return len(a.status().GetAlarms()) == 0 })
}

func TestAgentStopsInTimeWithOpenWatches(t *testing.T) {
	n := newTestNetwork(t)
	a := newTestAgent(t, n)
	if err := os.WriteFile(a.config.PolicyFile(), n.policy(1, map[string]record.PublicKey{"one": a.key}), 0o644); err != nil {
		t.Fatal(err)
	}
	a.start()
	for range 10 {
		stream, err := a.client.KV.Watch(context.Background(), connect.NewRequest(&apiv1.WatchRequest{Prefixes: []string{"/"}}))
		if err != nil {
			t.Fatal(err)
		}
		events(t, stream, 1)
	}
	if took := a.stop(); took > 30*time.Second {
		t.Errorf("stopping took %v", took)
	} else {
		t.Logf("stopping took %v", took)
	}
}

// What keeps an agent from starting is said with its code and a hint, and the agent that has it goes on.

func TestAgentRefusesToStart(t *testing.T) {
	n := newTestNetwork(t)
	first := newTestAgent(t, n)
	first.start()
	id, err := first.client.Agent.ID(t.Context(), connect.NewRequest(&apiv1.IDRequest{}))
	if err != nil || len(id.Msg.GetAddrs()) == 0 {
		t.Fatalf("%v %v", id, err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close() //nolint:errcheck // only its port matters
	for name, test := range map[string]struct {
		change func(a *testAgent)
		code   Code
	}{
		"same data dir":  {func(a *testAgent) { a.config.DataDir = first.config.DataDir }, CodeInUse},
		"same socket":    {func(a *testAgent) { a.config.API.Socket = first.config.API.Socket }, CodeInUse},
		"p2p port":       {func(a *testAgent) { a.config.Listen = []string{strings.Split(id.Msg.GetAddrs()[0], "/p2p/")[0]} }, CodeInUse},
		"http port":      {func(a *testAgent) { a.config.API.HTTP = taken.Addr().String() }, CodeInUse},
		"no network":     {func(a *testAgent) { a.config.Network = "" }, CodeBadConfig},
		"bad config":     {func(a *testAgent) { a.config.Log.Level = "loud" }, CodeBadConfig},
		"no identity":    {func(a *testAgent) { _ = os.Remove(a.config.IdentityFile()) }, CodeNoKeyFile},
		"loose identity": {func(a *testAgent) { _ = os.Chmod(a.config.IdentityFile(), 0o644) }, CodeBadKeyFile},
		"mirror dir": {func(a *testAgent) {
			a.config.Mirrors = []MirrorConfig{{Prefix: "/a", Dir: filepath.Dir(a.config.File), Mode: "pull"}}
		}, CodeBadConfig},
	} {
		t.Run(name, func(t *testing.T) {
			a := newTestAgent(t, n)
			test.change(a)
			err := a.fails()
			if codeOf(err) != test.code {
				t.Fatalf("%v", err)
			}
			if e := ErrorOf(err); e.Hint == "" {
				t.Errorf("no hint: %+v", e)
			}
			if _, err := os.Lstat(a.config.API.Socket); a.config.API.Socket != first.config.API.Socket && !os.IsNotExist(err) {
				t.Errorf("a socket was left: %v", err)
			}
		})
	}
	if !first.status().GetReady() {
		t.Error("the first agent was disturbed")
	}
}

// A data directory belongs to one network.

func TestAgentWrongNetwork(t *testing.T) {
	a := newTestAgent(t, newTestNetwork(t))
	a.start()
	a.stop()
	other := newTestNetwork(t)
	a.config.Network, a.config.Admins = other.id.String(), []string{record.KeyOf(other.admin).String()}
	if err := a.fails(); err == nil || ErrorOf(err).Hint == "" {
		t.Errorf("%v", err)
	}
}

func TestAgentReload(t *testing.T) {
	a := newTestAgent(t, newTestNetwork(t))
	a.start()
	levels := new(Levels)
	a.agent.options.Levels = levels
	c := a.config
	c.Log.Level, c.Bootstrap, c.API.HTTP = "debug", []string{"127.0.0.1:9"}, ""
	applied, waiting, err := a.agent.Reload(c)
	if err != nil || strings.Join(applied, " ") != "bootstrap log.level" || strings.Join(waiting, " ") != "api.http" || levels.of("api") != slog.LevelDebug {
		t.Errorf("%v %v %v %v", applied, waiting, levels.of("api"), err)
	}
	applied, waiting, err = a.agent.Reload(c)
	if err != nil || len(applied) != 0 || len(waiting) != 1 {
		t.Errorf("again: %v %v %v", applied, waiting, err)
	}
	a.agent.options.Load = func() (Config, error) { return c, nil }
	c.Log.Level = "loud"
	if _, err := a.client.Agent.Reload(t.Context(), connect.NewRequest(&apiv1.ReloadRequest{})); ErrorOf(err).Code != CodeBadConfig {
		t.Errorf("a bad file by the API: %v", err)
	}
	a.agent.ReloadFile()
	if list := a.agent.Alarms().List(); len(list) != 2 || list[1].Code != "bad-reload" || levels.of("api") != slog.LevelDebug {
		t.Errorf("a bad file: %v", list)
	}
	c.Log.Level = "info"
	a.agent.ReloadFile()
	if list := a.agent.Alarms().List(); len(list) != 1 || levels.of("api") != slog.LevelInfo {
		t.Errorf("a good file: %v", list)
	}
}

// TestAgentReloadsMirrorsAndLimits holds that both change while the agent runs, and that a mirror that cannot be leaves

// the old ones at work.

func TestAgentReloadsMirrorsAndLimits(t *testing.T) {
	n := newTestNetwork(t)
	a := newTestAgent(t, n)
	if err := os.WriteFile(a.config.PolicyFile(), n.policy(1, map[string]record.PublicKey{"one": a.key}), 0o644); err != nil {
		t.Fatal(err)
	}
	base := t.TempDir()
	mirrorsTo := func(names ...string) (list []MirrorConfig) {
		for _, name := range names {
			m := defaultMirror()
			m.Name, m.Prefix, m.Dir = name, "/p", filepath.Join(base, name)
			list = append(list, m)
		}
		return list
	}
	has := func(name, file string) func() bool {
		return func() bool { _, err := os.Stat(filepath.Join(base, name, file)); return err == nil }
	}
	a.start()
	c := a.config
	reload := func(want ...string) {
		t.Helper()
		applied, waiting, err := a.agent.Reload(c)
		if err != nil || strings.Join(applied, " ") != strings.Join(want, " ") || len(waiting) > 0 {
			t.Fatalf("%v %v %v", applied, waiting, err)
		}
	}
	c.Mirrors = mirrorsTo("first")
	reload("mirrors")
	if err := a.put("/p/1", "x"); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "a mirror that came by a reload works", has("first", "1"))
	c.Mirrors = mirrorsTo("second", "third")
	reload("mirrors")
	waitUntil(t, "both mirrors work", func() bool { return has("second", "1")() && has("third", "1")() })

	bad := c
	bad.Mirrors = mirrorsTo("second", "second/below")
	if _, _, err := a.agent.Reload(bad); err == nil {
		t.Error("mirrors in each other are taken")
	}
	c.Mirrors = nil
	if err := a.put("/p/2", "x"); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "the old mirrors go on", func() bool { return has("second", "2")() && has("third", "2")() && !has("first", "2")() })
	reload("mirrors")
	waitUntil(t, "no mirror is left", func() bool { return len(a.status().GetMirrors()) == 0 })

	c.Limits.Watches = 1
	reload("limits.watches")
	for i, want := range []Code{"", CodeBusy} {
		stream, err := a.client.KV.Watch(context.Background(), connect.NewRequest(&apiv1.WatchRequest{Prefixes: []string{"/"}}))
		if err != nil {
			t.Fatal(err)
		}
		defer stream.Close() //nolint:errcheck // it is only there
		if ok := stream.Receive(); ok != (want == "") || !ok && ErrorOf(stream.Err()).Code != want {
			t.Errorf("watch %d: %v", i, stream.Err())
		}
	}
}

// Two agents with a mirror each: what is put on one becomes a file on the other, and its trigger runs.

func TestAgentsReplicateAndMirror(t *testing.T) {
	n := newTestNetwork(t)
	one, two := newTestAgent(t, n), newTestAgent(t, n)
	policy := n.policy(1, map[string]record.PublicKey{"one": one.key, "two": two.key})
	if err := os.WriteFile(one.config.PolicyFile(), policy, 0o644); err != nil {
		t.Fatal(err)
	}
	one.start()
	id, err := one.client.Agent.ID(t.Context(), connect.NewRequest(&apiv1.IDRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	two.config.Bootstrap = id.Msg.GetAddrs()
	dir, triggers := filepath.Join(t.TempDir(), "out"), t.TempDir()
	two.config.Mirrors = []MirrorConfig{{Name: "m", Prefix: "/certs", Dir: dir, Mode: "pull", TriggersDir: triggers}}
	if err := os.Chmod(triggers, 0o755); err != nil {
		t.Fatal(err)
	}
	seen := filepath.Join(t.TempDir(), "seen")
	trigger := fmt.Sprintf(`{"path": "/certs", "command": "cat >> %s"}`, seen)
	if err := os.WriteFile(filepath.Join(triggers, "note"), []byte(trigger), 0o644); err != nil {
		t.Fatal(err)
	}
	two.start() // without a policy: it comes from one
	waitUntil(t, "the policy is on the second agent", func() bool { return two.status().GetPolicySerial() == 1 })
	if err := one.put("/certs/a.pem", "certificate"); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "the file is there", func() bool {
		b, err := os.ReadFile(filepath.Join(dir, "a.pem"))
		return err == nil && string(b) == "certificate"
	})
	waitUntil(t, "the trigger ran", func() bool {
		b, _ := os.ReadFile(seen)
		return bytes.Contains(b, []byte("/certs/a.pem"))
	})
	waitUntil(t, "the digests are equal", func() bool { return one.status().GetViewDigest() == two.status().GetViewDigest() })
	waitUntil(t, "status tells of peer, mirror and trigger", func() bool {
		s := two.status()
		return len(s.GetPeers()) == 1 && s.GetPeers()[0].GetConnected() && len(s.GetMirrors()) == 1 && s.GetMirrors()[0].GetFiles() == 1 &&
			s.GetMirrors()[0].GetState() == "ok" && len(s.GetTriggers()) == 1 && s.GetTriggers()[0].GetRuns() >= 1 && s.GetTriggers()[0].GetLastExit() == 0
	})
}

// systemd hears when the agent is ready, that it lives, and when it stops.

func TestAgentNotifiesSystemd(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "n")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // the test is over then
	t.Setenv("NOTIFY_SOCKET", socket)
	t.Setenv("WATCHDOG_USEC", "300000")
	a := newTestAgent(t, newTestNetwork(t))
	a.start()
	receive := func(want string) {
		t.Helper()
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		buffer := make([]byte, 100)
		for {
			n, err := conn.Read(buffer)
			if err != nil {
				t.Fatalf("no %s: %v", want, err)
			}
			if string(buffer[:n]) == want {
				return
			}
		}
	}
	receive("READY=1")
	receive("WATCHDOG=1")
	receive("WATCHDOG=1")
	go a.stop()
	receive("STOPPING=1")
	a.stop()
}

// The metrics of all parts fit into one registry, and can be gathered.

func TestAgentMetrics(t *testing.T) {
	a := newTestAgent(t, newTestNetwork(t))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a.config.API.HTTP = l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	a.start()
	response, err := http.Get("http://" + a.config.API.HTTP + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close() //nolint:errcheck // read only
	var text bytes.Buffer
	if _, err := text.ReadFrom(response.Body); err != nil || response.StatusCode != 200 {
		t.Fatalf("%v %v %.500s", response.Status, err, text.String())
	}
	for _, want := range []string{"syncagent_peers_connected 0", "syncagent_blocks 1", `syncagent_alarm{code="no-policy"} 1`, "libp2p_"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("metrics lack %s", want)
		}
	}
}

package agent

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/timestamppb"

	"syncagent/acl"
	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore/record"
)

// find gives the findings of a check as text.
func (d *diagnosis) text(check string) string {
	var lines []string
	for _, f := range d.findings {
		if f.Check == check {
			lines = append(lines, string(f.Severity)+" "+f.Message)
		}
		if (f.Severity == SeverityOK) != (f.Hint == "") {
			lines = append(lines, "hint "+f.Hint)
		}
	}
	return strings.Join(lines, "\n")
}

// TestDoctorFiles holds what doctor says of the files of a host.
func TestDoctorFiles(t *testing.T) {
	dir := t.TempDir()
	c := DefaultConfig()
	c.File, c.DataDir = filepath.Join(dir, "syncagent.yaml"), filepath.Join(dir, "data")
	d := diagnosis{config: c}
	d.files()
	for check, want := range map[string]string{"config": "names no network", "identity": "fail no key file"} {
		if got := d.text(check); !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", check, got, want)
		}
	}
	for _, file := range []string{c.IdentityFile(), c.AdminKeyFile()} {
		if _, err := CreateKey(file); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(c.DataDir, 0o755); err != nil {
		t.Fatal(err)
	}
	c.Network = record.NetworkID{1}.String()
	d = diagnosis{config: c}
	d.files()
	for check, want := range map[string]string{
		"config": "ok ", "identity": "ok ", "admin-key": "warn ", "data-dir": "(mode 0755)",
	} {
		if got := d.text(check); !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", check, got, want)
		}
	}
	if err := os.Chmod(c.IdentityFile(), 0o644); err != nil {
		t.Fatal(err)
	}
	d = diagnosis{config: c}
	d.files()
	if got := d.text("identity"); !strings.Contains(got, "fail key file") {
		t.Errorf("identity: %q", got)
	}
}

// TestDoctorAgent holds what doctor says of an agent that answers.
func TestDoctorAgent(t *testing.T) {
	ms := func(v float64) *float64 { return &v }
	exit := int32(3)
	for _, tc := range []struct {
		name   string
		status *apiv1.StatusResponse
		checks map[string]string
	}{
		{"alone", &apiv1.StatusResponse{Ready: true, Version: "v", Name: "web1"}, map[string]string{
			"agent": "ok web1 runs, version v", "alarms": "ok none", "peers": "warn this agent is alone", "clock": "",
		}},
		{"well", &apiv1.StatusResponse{Ready: true, Version: "v", PolicySerial: 2, Peers: []*apiv1.Peer{
			{Alias: "a", Connected: true, Equal: true, PolicySerial: 2, ClockSkewMs: ms(-20)},
			{Alias: "b", Connected: true, PolicySerial: 2, ClockSkewMs: ms(10)},
		}, Mirrors: []*apiv1.Mirror{{Prefix: "/p", Dir: "/d", State: "ok", Files: 2}}}, map[string]string{
			"peers": "ok 2 connected, 1 of them with the same blocks", "clock": "ok largest difference 20ms (a)",
			"mirror": "ok /p -> /d: ok, 2 files", "policy": "", "trigger": "", "entries": "",
		}},
		{"ill", &apiv1.StatusResponse{Version: "old", Ready: true, PolicySerial: 2, MissingEntries: 4, Alarms: []*apiv1.Alarm{
			{Code: "disk-full", Since: timestamppb.Now(), Message: "m", Hint: "h"},
		}, Peers: []*apiv1.Peer{
			{Alias: "a", Connected: true, PolicySerial: 1, ClockSkewMs: ms(-360_000)}, {PeerId: "12D3"},
		}, Triggers: []*apiv1.Trigger{{Path: "/p", Command: "reload", LastExit: &exit}}}, map[string]string{
			"agent": "warn  runs version old, this program is v", "alarm": "fail disk-full since", "peers": "warn 1 of 2 connected, away: 12D3",
			"clock": "fail largest difference 6m0s (a)", "policy": "", "entries": "warn 4 entries",
			"trigger": "fail /p \"reload\" ended with exit code 3",
		}},
		{"in a sandbox", &apiv1.StatusResponse{Alarms: []*apiv1.Alarm{
			{Code: "mirror-failing", Subject: "nginx", Since: timestamppb.Now(), Message: "mkdir /etc/nginx/x: read-only file system", Hint: "h"},
		}, Mirrors: []*apiv1.Mirror{{Name: "nginx", Dir: "/etc/nginx", LastError: "e"}}}, map[string]string{
			"alarm": "fail mirror-failing since", "mirror": "",
		}},
		{"cut off", &apiv1.StatusResponse{Peers: []*apiv1.Peer{{Alias: "a"}}}, map[string]string{
			"agent": "fail  does not serve", "peers": "fail none of 1 peers",
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := diagnosis{version: "v"}
			d.state(tc.status)
			d.alarms(tc.status)
			d.peers(tc.status)
			d.clocks(tc.status.GetPeers())
			d.mirrors(tc.status)
			if hint := d.findings[1].Hint; tc.name == "in a sandbox" && !strings.Contains(hint, "ReadWritePaths=/etc/nginx") {
				t.Errorf("hint %q", hint)
			}
			for check, want := range tc.checks {
				if got := d.text(check); !strings.HasPrefix(got, want) || want == "" && got != "" {
					t.Errorf("%s: %q, want %q", check, got, want)
				}
			}
		})
	}
}

// TestDoctorPolicy holds that a network whose data hangs on one host is pointed out.
func TestDoctorPolicy(t *testing.T) {
	n := newTestNetwork(t)
	a, b := record.PublicKey{}, record.PublicKey{}
	for _, k := range []*record.PublicKey{&a, &b} {
		key, err := CreateKey(filepath.Join(t.TempDir(), "k"))
		if err != nil {
			t.Fatal(err)
		}
		*k = record.KeyOf(key)
	}
	const both = "a peer\nb peer\n"
	for _, tc := range []struct{ rules, self, want string }{
		{both + "a / rw\nb / rw\n", a.String(), "ok serial 3, 2 members, 2 may read everything"},
		{both + "a / rw\nb /x rw\n", a.String(), "warn 1 of 2 members may read everything"},
		{"a peer\na / rw\n", a.String(), "ok serial 3, 1 members"},
		{"a peer\n", b.String(), "fail web1 is no member"},
	} {
		signed, err := acl.ParseSigned(acl.Sign([]byte("syncagent-policy 1\nnetwork "+n.id.String()+"\nserial 3\nidentity a "+a.String()+
			"\nidentity b "+b.String()+"\n"+tc.rules), n.id, n.admin))
		if err != nil {
			t.Fatal(err)
		}
		d := diagnosis{}
		d.policy(&apiv1.StatusResponse{Name: "web1", PeerId: tc.self}, acl.Compile(n.id, signed, []*acl.Signed{signed}))
		if got := d.text("policy"); !strings.HasPrefix(got, tc.want) {
			t.Errorf("%q: %q, want %q", tc.rules, got, tc.want)
		}
	}
}

// TestDoctorBootstrap holds how bootstrap addresses are read, and that each is tried.
func TestDoctorBootstrap(t *testing.T) {
	c := DefaultConfig()
	c.Bootstrap = []string{"db1:7424", "/dns4/db2/tcp/7424", "/ip6/::1/udp/7424/quic-v1/p2p/12D3", "[::1]:7424"}
	d := diagnosis{config: c}
	d.bootstrap(t.Context(), func(_ context.Context, network, address string) error {
		if address == "db1:7424" && network == "tcp" {
			return nil
		}
		return errors.New(network + " " + address)
	})
	want := []string{
		"warn db1:7424 answers by TCP only (UDP: udp db1:7424)", "fail /dns4/db2/tcp/7424 does not answer (TCP: tcp db2:7424)",
		"fail /ip6/::1/udp/7424/quic-v1/p2p/12D3 does not answer (UDP: udp [::1]:7424)",
		"fail [::1]:7424 does not answer (TCP: tcp [::1]:7424; UDP: udp [::1]:7424)",
	}
	if got := d.text("bootstrap"); got != strings.Join(want, "\n") {
		t.Errorf("%s", got)
	}
	d = diagnosis{config: c}
	d.bootstrap(t.Context(), func(_ context.Context, network, _ string) error {
		if network == "tcp" {
			return errors.New("timeout")
		}
		return nil
	})
	if got := d.text("bootstrap"); !strings.Contains(got, "fail db1:7424 answers by UDP only (TCP: timeout)") || !strings.Contains(got, "answers by UDP\n") {
		t.Errorf("%s", got)
	}
}

// TestDoctorPermissions holds that files that steer the agent and that others can write are found.
func TestDoctorPermissions(t *testing.T) {
	dir := t.TempDir()
	c := DefaultConfig()
	c.File, c.API.Socket = filepath.Join(dir, "c.yaml"), filepath.Join(dir, "s")
	c.Mirrors = []MirrorConfig{{TriggersDir: filepath.Join(dir, "triggers")}}
	if err := errors.Join(os.WriteFile(c.File, nil, 0o600), os.WriteFile(c.API.Socket, nil, 0o600), os.Mkdir(c.Mirrors[0].TriggersDir, 0o755)); err != nil {
		t.Fatal(err)
	}
	d := diagnosis{config: c}
	if d.permissions(); len(d.findings) > 0 {
		t.Errorf("all is well: %v", d.findings)
	}
	if err := errors.Join(os.Chmod(c.File, 0o664), os.Chmod(c.API.Socket, 0o666), os.Chmod(c.Mirrors[0].TriggersDir, 0o777)); err != nil {
		t.Fatal(err)
	}
	d.permissions()
	if got := d.text("permissions"); strings.Count(got, "fail others") != 2 || !strings.Contains(got, "warn every user") {
		t.Errorf("%s", got)
	}
}

// TestDoctorReachesAgent asks a whole agent at its TCP and its QUIC port, and places where nobody is.
func TestDoctorReachesAgent(t *testing.T) {
	n := newTestNetwork(t)
	a := newTestAgent(t, n)
	a.config.Listen = append(a.config.Listen, "/ip4/127.0.0.1/udp/0/quic-v1")
	a.start()
	asked := map[string]bool{}
	for _, address := range a.agent.running.node.Addrs() {
		networks, to := dialTarget(address)
		if err := reach(t.Context(), networks[0], to); err != nil {
			t.Errorf("%s: %v", address, err)
		}
		asked[networks[0]] = true
	}
	if !asked["tcp"] || !asked["udp"] {
		t.Errorf("asked %v", asked)
	}
	mute, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := reach(t.Context(), "udp", mute.LocalAddr().String()); err == nil {
		t.Error("a port that never answers is reached")
	}
	_ = mute.Close()
	for _, network := range []string{"udp", "tcp"} {
		if err := reach(t.Context(), network, mute.LocalAddr().String()); err == nil {
			t.Errorf("a closed %s port is reached", network)
		}
	}

	for _, f := range Diagnose(t.Context(), a.config, a.client, "test") {
		t.Logf("%+v", f)
		if f.Severity == SeverityFail && f.Check != "alarm" { // it has no policy
			t.Errorf("%+v", f)
		}
	}
}

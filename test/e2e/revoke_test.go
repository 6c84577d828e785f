package e2e

import (
	"crypto/ed25519"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"syncagent/agent"
	"syncagent/crdtstore/record"
)

// revokedWithin is for how long a revoked host may stay connected. A second is the promise; the rest is for machines
// that run all tests at once.
const revokedWithin = 3 * time.Second

// One command takes a host out: its connections close, what it wrote is void on every other host, files and watches
// follow, and neither it nor somebody who has its key gets back in.
func TestG6_RevocationConverges(t *testing.T) {
	f := newFleet(t, "a", "b", "stolen")
	a, b, stolen := f.hosts[0], f.hosts[1], f.hosts[2]
	files := b.mirror("/", "")
	f.start()
	f.apply(everything)
	f.connect()
	want := map[string]string{"/certs/web": "good", "/conf/x": "good"}
	a.mustBatch(want)
	f.converge()
	stolen.mustBatch(map[string]string{"/certs/web": evil, "/conf/new": evil})
	stolen.mustPut("/conf/kept", "reviewed")
	f.converge()
	watch := b.watch("/certs")
	watch.until(t, func(e event) bool { return e.Type == "synced" })

	keep := filepath.Join(t.TempDir(), "keep")
	var lines []string
	for _, line := range strings.Split(a.must("acl", "revoke", "stolen", "--since", "1d"), "\n") {
		if strings.HasSuffix(line, " /conf/kept") {
			lines = append(lines, line)
		}
	}
	if len(lines) != 1 {
		t.Fatalf("what stolen wrote at /conf/kept: %q", lines)
	}
	if err := os.WriteFile(keep, []byte(lines[0]), 0o600); err != nil {
		t.Fatal(err)
	}
	a.must("acl", "revoke", "stolen", "--keep", keep)
	start := time.Now()
	eventually(t, func() error {
		for _, h := range []*host{a, b} {
			if n, err := h.connected(); err != nil || n != 1 {
				return fmt.Errorf("%s is connected to %d: %w", h.name, n, err)
			}
		}
		return nil
	})
	took := time.Since(start)
	t.Logf("connections of the revoked host were closed %s after the command returned", took)
	if took > revokedWithin {
		t.Errorf("they stayed open for %s", took)
	}
	// The revoked host was told why before it was cut off.
	eventually(t, func() error {
		if s, err := stolen.tryStatus(); err != nil || len(s.Alarms) != 1 || s.Alarms[0].Code != "no-member" || s.PolicySerial != a.status().PolicySerial {
			return fmt.Errorf("the revoked host says %+v, %w", s, err)
		}
		return nil
	})
	want["/conf/kept"] = "reviewed"
	for _, h := range []*host{a, b} {
		eventually(t, func() error { return h.shows("/certs/web", "good") })
		sameValues(t, h, h.mustList("/"), want)
	}
	eventually(t, func() error { return sameFiles(files, want) })
	told := ""
	for _, e := range watch.until(t, func(e event) bool { return e.Path == "/certs/web" }) {
		told += e.Type + " "
	}
	watch.stop()
	if told != "policy put " {
		t.Errorf("the watch told %q", told)
	}

	// The key goes on in other hands: it dials, signs for itself, and has a right that it was given in time.
	key, err := agent.LoadKey(filepath.Join(stolen.dir, "identity.key"))
	if err != nil {
		t.Fatal(err)
	}
	stolen.stop()
	back := startRogueWithKey(t, a, key)
	back.write(t, map[string]string{"/certs/web": evil, "/conf/new": evil})
	if _, _, code := a.cli("put", "/conf/new", evil, "--key", filepath.Join(stolen.dir, "identity.key")); code != 4 {
		t.Errorf("a write signed by the revoked key: exit code %d, want 4", code)
	}
	a.mustPut("/done", "x")
	want["/done"] = "x"
	for _, h := range []*host{a, b} {
		eventually(t, func() error { return h.shows("/done", "x") })
		sameValues(t, h, h.mustList("/"), want)
	}
	if err := equal(a, b); err != nil {
		t.Error(err)
	}
	if n, err := a.connected(); err != nil || n != 1 {
		t.Errorf("a is connected to %d: %v", n, err)
	}
}

// startRogueWithKey runs a rogue under a key that it stole, with a policy of its own, which dials the host.
func startRogueWithKey(t *testing.T, h *host, key ed25519.PrivateKey) *rogue {
	t.Helper()
	network, err := record.ParseNetworkID(h.status().Network)
	if err != nil {
		t.Fatal(err)
	}
	evilAdmin := newKey(t)
	identity := "identity rogue " + record.KeyOf(key).String()
	policy := roguePolicy(network, evilAdmin, h.identity, identity)
	return startRogue(t, key, network, record.KeyOf(evilAdmin), policy, h.addrs())
}

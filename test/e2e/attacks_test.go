package e2e

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"syncagent/acl"
	"syncagent/agent"
	"syncagent/crdtstore/record"
)

// siege is a fleet under attack: a, which may read everything, and b, which may read /public alone. Mallory is a member
// by a libp2p host of its own, with /m to write. It has the key of a client, deploy, that may write /certs, and that of a
// client, old, that may write /old, and is about to be revoked.
type siege struct {
	t            *testing.T
	f            *fleet
	a, b         *host
	mallory      *rogue
	network      record.NetworkID
	admin        ed25519.PrivateKey // the fleet's, for what an admin signs
	deploy, old  ed25519.PrivateKey
	rules        []string
	incarnations uint64
	rounds       int
	before       string // what a showed before the attack
}

func newSiege(t *testing.T) *siege {
	f := newFleet(t, "a", "b")
	s := &siege{t: t, f: f, a: f.hosts[0], b: f.hosts[1], deploy: newKey(t), old: newKey(t)}
	key := newKey(t)
	line := func(name string, k ed25519.PrivateKey) string {
		return "identity " + name + " " + record.KeyOf(k).String()
	}
	f.extra = []string{line("mallory", key), line("deploy", s.deploy), line("old", s.old)}
	s.rules = []string{"a / rw", "* /public read", "mallory peer", "mallory /m rw", "mallory /hosts/{self} rw", "deploy /certs write", "old /old write"}
	f.start()
	f.apply(s.rules...)
	f.connect()
	s.a.mustBatch(map[string]string{"/certs/key": "good", "/old/x": "good", "/secret/key": secretValue, "/public/x": "good"})
	eventually(t, func() error { return s.b.shows("/public/x", "good") })
	var err error
	if s.network, err = record.ParseNetworkID(s.a.status().Network); err != nil {
		t.Fatal(err)
	}
	if s.admin, err = agent.LoadKey(filepath.Join(s.a.dir, "admin.key")); err != nil {
		t.Fatal(err)
	}
	own := newKey(t)
	policy := roguePolicy(s.network, own, append([]string{s.a.identity, s.b.identity}, f.extra...)...)
	s.mallory = startRogue(t, key, s.network, record.KeyOf(own), policy, append(s.a.addrs(), s.b.addrs()...))
	s.barrier()
	s.before = s.shown()
	return s
}

const secretValue = "not for mallory"

// shown is what a shows, but for the marks of barriers.
func (s *siege) shown() string {
	s.t.Helper()
	var out strings.Builder
	for _, line := range strings.Split(strings.TrimSpace(s.a.must("ls", "/")), "\n") {
		if !strings.HasPrefix(line, "/m/mark") {
			fmt.Fprintf(&out, "%s=%s ", line, s.a.must("get", line))
		}
	}
	return out.String()
}

// barrier has a take what mallory sent before: blocks of one sender are taken in order.
func (s *siege) barrier() {
	s.t.Helper()
	s.rounds++
	mark := fmt.Sprint("/m/mark", s.rounds)
	s.mallory.write(s.t, map[string]string{mark: "x"})
	eventually(s.t, func() error { return s.a.shows(mark, "x") })
}

// outcome tells what a shows since the attack began.
func (s *siege) outcome() string {
	s.t.Helper()
	s.barrier()
	now := s.shown()
	if now == s.before {
		return "nothing"
	}
	var changed []string
	for _, one := range strings.Fields(now) {
		if !strings.Contains(s.before, one+" ") {
			changed = append(changed, one)
		}
	}
	s.before = now
	return strings.Join(changed, " ")
}

// put makes a write of one path and its entry, signed unless mallory is the author.
func (s *siege) put(author ed25519.PrivateKey, path, tagged, value string, later int64) (*record.Write, *record.Entry) {
	e := &record.Entry{Kind: record.KindPut, Mode: 0o600, Path: path, Value: []byte(value)}
	w := &record.Write{
		Author: record.KeyOf(author), HLC: record.HLCFromMilli(s.mallory.store.AgentTime().UnixMilli() + later),
		Slots: []record.Slot{{Entry: e.ID(), Tags: s.network.Tags(tagged)}},
	}
	if !author.Equal(s.mallory.key) {
		w.Sign(author, s.network)
	}
	return w, e
}

// send publishes a block of mallory's, whatever its own store would say to it.
func (s *siege) send(w *record.Write, entries ...*record.Entry) string {
	s.t.Helper()
	s.incarnations++
	b := record.Bundle{Origin: record.KeyOf(s.mallory.key), Incarnation: s.incarnations, Seq: 1, Writes: []*record.Write{w}}
	return s.publish(s.seal(b, s.mallory.key), entries...)
}

func (s *siege) seal(b record.Bundle, key ed25519.PrivateKey) []byte {
	links := []record.Digest{record.DigestOf(record.GenesisBlock(s.network, 0))}
	b.Sign(key, s.network, links)
	return record.EncodeBlock(links, 2, b.Encode())
}

func (s *siege) publish(block []byte, entries ...*record.Entry) string {
	s.t.Helper()
	out := record.Outgoing{Block: block}
	for _, e := range entries {
		out.Entries = append(out.Entries, record.OutgoingEntry{Tags: s.network.Tags("/public/x"), Bytes: e.Encode()})
	}
	s.mallory.node.Publish(out)
	return s.outcome()
}

// offer hands a policy text to everybody and tells the serial in force on a afterwards.
func (s *siege) offer(text []byte) string {
	s.t.Helper()
	before := s.a.status().PolicySerial
	s.mallory.liar.offer(text)
	for range 2 { // the second swap begins when the first is over
		asked := s.mallory.liar.swapped()
		s.mallory.node.PolicyChanged()
		eventually(s.t, func() error {
			if s.mallory.liar.swapped() < asked+4 {
				return fmt.Errorf("policies are not swapped")
			}
			return nil
		})
	}
	if now := s.a.status().PolicySerial; now != before {
		return fmt.Sprintf("in force; %s", s.outcome())
	}
	return "not in force; " + s.outcome()
}

// install offers a policy that an admin signed until it is in force.
func (s *siege) install(text []byte) string {
	s.t.Helper()
	before := s.a.status().PolicySerial
	s.mallory.liar.offer(text)
	s.mallory.node.PolicyChanged()
	eventually(s.t, func() error {
		if s.a.status().PolicySerial == before {
			return fmt.Errorf("policy %d is still in force", before)
		}
		return nil
	})
	return "in force; " + s.outcome()
}

func (s *siege) policy(serial uint64, more ...string) string {
	lines := append([]string{"syncagent-policy 1", "network " + s.network.String(), fmt.Sprint("serial ", serial), "format 1",
		s.a.identity, s.b.identity, "group @hosts a b", "@hosts peer"}, s.f.extra...)
	return strings.Join(append(append(lines, s.rules...), more...), "\n") + "\n"
}

// ask wants an entry of everybody who is connected and tells what they answer.
func (s *siege) ask(w record.Want) string {
	s.t.Helper()
	answers := s.mallory.liar.ask(w)
	s.mallory.node.WantsChanged()
	told := map[record.AnswerStatus]int{}
	for range 2 { // a and b
		select {
		case a := <-answers:
			told[a.Status]++
		case <-s.t.Context().Done():
		}
	}
	return fmt.Sprintf("%d denied, %d not here, %d sent", told[record.Denied], told[record.NotHere], told[record.Here])
}

// secret names the entry of /secret/key, as every member finds it in the blocks.
func (s *siege) secret() (w record.Want) {
	s.t.Helper()
	var got struct{ Version string }
	if err := json.Unmarshal([]byte(s.a.must("get", "/secret/key", "-o", "json")), &got); err != nil {
		s.t.Fatal(err)
	}
	v, _, err := record.ParseVersion(got.Version)
	if err != nil {
		s.t.Fatal(err)
	}
	w = record.Want{PathKey: s.network.PathKey("/secret/key"), Version: v}
	err = s.mallory.store.Missing(s.t.Context(), nil, record.KeyOf(s.mallory.key), func(p record.Parcel) error {
		b, err := record.ParseBlock(p.Block)
		if err != nil {
			return nil //nolint:nilerr // the genesis block
		}
		for _, write := range b.Writes {
			if write.ID() == v.Write {
				w.Entry = write.Slots[v.Index].Entry
			}
		}
		return nil
	})
	if err != nil || w.Entry == (record.ID{}) {
		s.t.Fatal("mallory does not find the entry's ID in the blocks: ", err)
	}
	return w
}

// putRaw puts to a raw URL of the API of a, as any program on its host can.
func (s *siege) putRaw(rawPath string) string {
	s.t.Helper()
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(s.a.dir, "agent.sock"))
	}}}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodPut, "http://agent", strings.NewReader(evil))
	if err != nil {
		s.t.Fatal(err)
	}
	req.URL.Opaque = "//agent" + rawPath
	res, err := client.Do(req)
	if err != nil {
		return err.Error()
	}
	_ = res.Body.Close()
	return fmt.Sprintf("%d; %s", res.StatusCode, s.outcome())
}

// backup gives what a backup of a host holds.
func (s *siege) backup(h *host) []byte {
	s.t.Helper()
	file := filepath.Join(h.dir, "backup")
	h.must("backup", file)
	packed, err := os.ReadFile(file)
	if err != nil {
		s.t.Fatal(err)
	}
	z, err := zstd.NewReader(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	defer z.Close()
	text, err := z.DecodeAll(packed, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return text
}

// sign is what an admin's machine does.
func (s *siege) sign(text string) []byte { return acl.Sign([]byte(text), s.network, s.admin) }

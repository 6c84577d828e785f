package e2e

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"syncagent/acl"
	"syncagent/crdtstore/record"
)

// sieges are attacks through the doors that a real peer, client or file has: gossip and push, policies, wants, the API.
// Each says what comes of it; "nothing" means that a shows what it showed. They run in this order, on one fleet.
var sieges = []struct {
	name, want string
	try        func(s *siege) string
}{
	{"its own path, as a check of the harness", "/m/x=mine", func(s *siege) string {
		w, e := s.put(s.mallory.key, "/m/x", "/m/x", "mine", 0)
		return s.send(w, e)
	}},
	{"what a client signed, relayed by a member", "/certs/new=fresh", func(s *siege) string {
		w, e := s.put(s.deploy, "/certs/new", "/certs/new", "fresh", 0)
		return s.send(w, e)
	}},
	{"put outside of its paths", "nothing", func(s *siege) string {
		w, e := s.put(s.mallory.key, "/certs/key", "/certs/key", evil, 0)
		return s.send(w, e)
	}},
	{"delete outside of its paths", "nothing", func(s *siege) string {
		w, _ := s.put(s.mallory.key, "/certs/key", "/certs/key", "", 0)
		e := &record.Entry{Kind: record.KindDelete, Path: "/certs/key"}
		w.Slots[0].Entry = e.ID()
		return s.send(w, e)
	}},
	{"the directory of another host", "nothing", func(s *siege) string {
		w, e := s.put(s.mallory.key, "/hosts/a/x", "/hosts/a/x", evil, 0)
		return s.send(w, e)
	}},
	{"/m2 by a rule for /m", "nothing", func(s *siege) string {
		w, e := s.put(s.mallory.key, "/m2", "/m2", evil, 0)
		return s.send(w, e)
	}},
	{"entry of one path under the tags of another", "nothing", func(s *siege) string {
		w, e := s.put(s.mallory.key, "/certs/key", "/m/y", evil, 0)
		return s.send(w, e)
	}},
	{"author forged", "nothing", func(s *siege) string {
		w, e := s.put(s.deploy, "/certs/key", "/certs/key", evil, 0)
		w.Sign(s.mallory.key, s.network)
		return s.send(w, e)
	}},
	{"signature copied over another path", "nothing", func(s *siege) string {
		good, _ := s.put(s.deploy, "/certs/key", "/certs/key", evil, 0)
		w, e := s.put(s.deploy, "/certs/other", "/certs/other", evil, 0)
		w.Sig = good.Sig
		return s.send(w, e)
	}},
	{"replay from another network", "nothing", func(s *siege) string {
		w, e := s.put(s.deploy, "/certs/key", "/certs/key", evil, 0)
		w.Sign(s.deploy, record.NetworkID{1})
		return s.send(w, e)
	}},
	{"origin forged", "nothing", func(s *siege) string {
		w, e := s.put(s.deploy, "/certs/key", "/certs/key", evil, 0)
		b := record.Bundle{Origin: record.KeyOf(s.deploy), Incarnation: 1, Seq: 1, Writes: []*record.Write{w}}
		return s.publish(s.seal(b, s.mallory.key), e)
	}},
	{"replay of an old value after a delete", "nothing", func(s *siege) string {
		w, e := s.put(s.deploy, "/certs/gone", "/certs/gone", "old", 0)
		if got := s.send(w, e); got != "/certs/gone=old" {
			return "before the delete: " + got
		}
		s.a.must("rm", "/certs/gone")
		s.before = s.shown()
		return s.send(w, e)
	}},
	{"time far ahead", "nothing", func(s *siege) string {
		w, e := s.put(s.mallory.key, "/m/later", "/m/later", evil, 3_600_000)
		return s.send(w, e)
	}},
	{"a gap in the sequence, shown to some", "nothing; then /m/gap1=x /m/gap2=x", func(s *siege) string {
		w1, e1 := s.put(s.mallory.key, "/m/gap1", "/m/gap1", "x", 0)
		w2, e2 := s.put(s.mallory.key, "/m/gap2", "/m/gap2", "x", 0)
		key := record.KeyOf(s.mallory.key)
		first := s.seal(record.Bundle{Origin: key, Incarnation: 999, Seq: 1, Writes: []*record.Write{w1}}, s.mallory.key)
		d := record.DigestOf(first)
		second := record.Bundle{Origin: key, Incarnation: 999, Seq: 2, Prev: d, Writes: []*record.Write{w2}}
		second.Sign(s.mallory.key, s.network, []record.Digest{d})
		got := s.publish(record.EncodeBlock([]record.Digest{d}, 3, second.Encode()), e2)
		return got + "; then " + s.publish(first, e1)
	}},
	{"many siblings by keys that nobody knows", "nothing, few heads", func(s *siege) string {
		var parcels []record.Parcel
		for range 900 {
			key := newKey(s.t)
			raw := s.seal(record.Bundle{Origin: record.KeyOf(key), Incarnation: 1, Seq: 1}, key)
			parcels = append(parcels, record.Parcel{Block: raw})
			s.mallory.node.Publish(record.Outgoing{Block: raw}) // the topic does not carry it; sync does
		}
		if _, err := s.mallory.store.Ingest(s.t.Context(), record.KeyOf(s.mallory.key), parcels); err != nil {
			return err.Error()
		}
		got := s.outcome()
		eventually(s.t, func() error {
			if n := s.a.status().Heads; n > 600 {
				return fmt.Errorf("a has %d heads", n)
			}
			return nil
		})
		return got + ", few heads"
	}},
	{"policy signed by a member", "not in force; nothing", func(s *siege) string {
		return s.offer(acl.Sign([]byte(s.policy(1000, "mallory / rw")), s.network, s.mallory.key))
	}},
	{"policy without a signature", "not in force; nothing", func(s *siege) string { return s.offer([]byte(s.policy(1000, "mallory / rw"))) }},
	{"policy changed under its signature", "not in force; nothing", func(s *siege) string {
		text := s.sign(s.policy(1000, "mallory /m/deep rw"))
		return s.offer([]byte(strings.Replace(string(text), "/m/deep", "/secret", 1)))
	}},
	{"rollback to an older policy", "not in force; nothing", func(s *siege) string { return s.offer(s.sign(s.policy(0, "mallory / rw"))) }},
	{"asking for an entry by ID, of its holder and through a third agent", "1 denied, 1 not here, 0 sent", func(s *siege) string {
		return s.ask(s.secret())
	}},
	{"asking for an entry under a path of one's own", "0 denied, 2 not here, 0 sent", func(s *siege) string {
		w := s.secret()
		w.PathKey = s.network.PathKey("/m/x")
		return s.ask(w)
	}},
	{"asking by a guess", "0 denied, 2 not here, 0 sent", func(s *siege) string {
		return s.ask(record.Want{PathKey: s.network.PathKey("/secret/guess"), Entry: record.ID{1}})
	}},
	{"escaped way out of a prefix", "400; nothing", func(s *siege) string { return s.putRaw("/v1/kv/m/%2e%2e/certs/key") }},
	{"path with ..", "400; nothing", func(s *siege) string { return s.putRaw("/v1/kv/certs/../secret/key") }},
	{"path that is not UTF-8", "400; nothing", func(s *siege) string { return s.putRaw("/v1/kv/m/%ff") }},
	{"path with a slash at its end", "400; nothing", func(s *siege) string { return s.putRaw("/v1/kv/m/x/") }},
	{"eleven quick versions by a stolen key, then its revocation", "/old/x=good", func(s *siege) string {
		for i := range 11 {
			w, e := s.put(s.old, "/old/x", "/old/x", fmt.Sprint("stolen", i), int64(i))
			s.send(w, e)
		}
		if !strings.Contains(s.before, "/old/x=stolen10 ") {
			return "the stolen key does not work: " + s.before
		}
		s.a.must("acl", "revoke", "old")
		eventually(s.t, func() error { return s.a.shows("/old/x", "good") })
		return s.outcome()
	}},
	{"backdated write after the revocation, relayed", "nothing", func(s *siege) string {
		w, e := s.put(s.old, "/old/y", "/old/y", evil, -3_600_000)
		return s.send(w, e)
	}},
	{"later policy that lacks the revocation", "in force; nothing", func(s *siege) string {
		return s.install(s.sign(s.policy(1001)))
	}},
	{"two policies of one serial, each signed by an admin", "the same one on a and b; nothing", func(s *siege) string {
		s.offer(s.sign(s.policy(1002, "mallory /m/one rw")))
		s.offer(s.sign(s.policy(1002, "mallory /m/other rw")))
		eventually(s.t, func() error {
			if a, b := s.a.status(), s.b.status(); a.PolicySerial != 1002 || a.PolicyHash != b.PolicyHash {
				return fmt.Errorf("policies %d %.8s and %d %.8s", a.PolicySerial, a.PolicyHash, b.PolicySerial, b.PolicyHash)
			}
			return nil
		})
		return "the same one on a and b; " + s.outcome()
	}},
	{"reading a backup of b", "no secret; a's has it", func(s *siege) string {
		has := func(h *host) bool { return bytes.Contains(s.backup(h), []byte(secretValue)) }
		switch {
		case has(s.b):
			return "the secret"
		case !has(s.a):
			return "no secret; nor has a's"
		}
		return "no secret; a's has it"
	}},
}

// TestG6_G7_Siege makes all of them on one fleet, and then looks for what must not be where.
func TestG6_G7_Siege(t *testing.T) {
	s := newSiege(t)
	for _, c := range sieges {
		t.Run(strings.ReplaceAll(c.name, "/", "|"), func(t *testing.T) {
			if got := c.try(s); got != c.want {
				t.Errorf("outcome %q, want %q", got, c.want)
			}
		})
	}
	for name, dir := range map[string]string{"mallory": s.mallory.dir, "b": s.b.data(), "a": s.a.data()} {
		if found, err := contains(dir, []byte(secretValue)); err != nil || found != (name == "a") {
			t.Errorf("the secret is in the data of %s: %v, %v", name, found, err)
		}
	}
	for _, h := range s.f.hosts {
		for path, value := range h.mustList("/public") {
			if strings.Contains(value, evil) {
				t.Errorf("%s shows %s", h.name, path)
			}
		}
	}
}

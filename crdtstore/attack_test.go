package crdtstore

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"
	"testing"

	"syncagent/crdtstore/record"
)

// attackWorld is an honest agent, a, with what the rows of attacks have at hand. Mallory is a member with its own
// paths, deploy a client whose key signs writes that any agent relays, old a client that will be revoked, retired or
// forgotten. The policy is that of attackRules.
type attackWorld struct {
	*testNet
	a                    *node
	mallory, deploy, old ed25519.PrivateKey
	incarnation          uint64 // of the next block that mallory forges
	before               string // what a showed before the attack
}

var attackNames = []string{"a", "b", "mallory", "deploy", "old"}

var attackRules = []string{
	"a peer", "b peer", "mallory peer", "a / rw", "b / rw", "* /public read", "mallory /m rw", "mallory /hosts/{self} rw",
	"deploy /certs rw", "old /old rw", "old /certs/old rw",
}

const goodTree = "/certs/key=good /old/x=good /secret/key=good "

func newAttackWorld(t *testing.T) *attackWorld {
	w := &attackWorld{testNet: newTestNet(t, 1), mallory: testKey("mallory"), deploy: testKey("deploy"), old: testKey("old")}
	w.a = w.start("a", nil)
	w.a.apply(w.policy(attackNames, attackRules...))
	for _, path := range []string{"/certs/key", "/old/x", "/secret/key"} {
		w.a.put(path, "good")
	}
	w.clock.advance(1e9)
	if w.before = w.a.tree(); w.before != goodTree {
		t.Fatalf("a shows %q", w.before)
	}
	return w
}

// hlc gives the agent's time, so many milliseconds later.
func (w *attackWorld) hlc(later int64) record.HLC { return record.HLCFromMilli(w.clock.wall + later) }

// entry makes a put of a path, which need not be valid, and its slot with the tags of that path or of another.
func (w *attackWorld) entry(path, value, tagged string) (*record.Entry, record.Slot) {
	e := &record.Entry{Kind: record.KindPut, Path: path, Value: []byte(value)}
	return e, record.Slot{Entry: e.ID(), Tags: w.id.Tags(tagged)}
}

// put makes a write of one path by author. It is signed unless mallory, who sends the block, is the author.
func (w *attackWorld) put(author ed25519.PrivateKey, path, value string, hlc record.HLC) (*record.Write, [][]byte) {
	e, slot := w.entry(path, value, path)
	write := &record.Write{Author: record.KeyOf(author), HLC: hlc, Slots: []record.Slot{slot}}
	if !author.Equal(w.mallory) {
		write.Sign(author, w.id)
	}
	return write, [][]byte{e.Encode()}
}

// send delivers a block of mallory's with these writes.
func (w *attackWorld) send(entries [][]byte, writes ...*record.Write) string {
	return w.deliver(record.Parcel{Block: w.block(writes...), Entries: entries})
}

func (w *attackWorld) block(writes ...*record.Write) []byte {
	w.incarnation++
	return w.forge(w.mallory, w.incarnation, 1, record.Digest{}, 2, []record.Digest{w.genesisDigest()}, writes...)
}

// deliver brings parcels to the door of the store and tells what it said, and what a shows since.
func (w *attackWorld) deliver(parcels ...record.Parcel) string {
	w.t.Helper()
	res, err := w.a.Ingest(context.Background(), record.KeyOf(w.mallory), parcels)
	if err != nil {
		w.t.Fatal(err)
	}
	switch {
	case res.Invalid != nil && res.New == 0:
		return "refused" + w.shows()
	case res.Invalid != nil:
		return "taken, but not all" + w.shows()
	case res.New == 0 && len(res.Missing) > 0:
		return "waits" + w.shows()
	}
	return "taken" + w.shows()
}

// shows tells what a shows that it did not show before.
func (w *attackWorld) shows() string {
	if tree := w.a.tree(); tree != w.before {
		return ", a shows " + strings.TrimSpace(tree)
	}
	return ""
}

// relay hands a write to a as a client does.
func (w *attackWorld) relay(write *record.Write, entries [][]byte) string {
	_, err := w.a.Relay(context.Background(), write, entries)
	return outcome(err, "taken") + w.shows()
}

func (w *attackWorld) write(ops ...Op) string {
	_, err := w.a.Write(context.Background(), ops)
	return outcome(err, "taken") + w.shows()
}

// rules gives the lines of the policy with further ones.
func (w *attackWorld) rules(more ...string) []string {
	return append(append([]string{}, attackRules...), more...)
}

// policyOf hands a signed text to a.
func (w *attackWorld) policyOf(text []byte) string {
	serial := w.a.Policy().Serial()
	err := w.a.SetPolicy(context.Background(), text)
	w.a.settle()
	out := outcome(err, "kept")
	if w.a.Policy().Serial() != serial {
		out += ", in force"
	}
	return out + w.shows()
}

func (w *attackWorld) revoke(key ed25519.PrivateKey) string {
	return "revoke " + record.KeyOf(key).String()
}

// ask asks a for an entry, as the owner of key.
func (w *attackWorld) ask(key ed25519.PrivateKey, want record.Want) string {
	switch answer := w.a.Serve(record.KeyOf(key), []record.Want{want})[0]; {
	case len(answer.Entry) > 0:
		return "sent"
	case answer.Status == record.Denied:
		return "denied"
	}
	return "not here"
}

// secret names the entry of /secret/key as a member finds it in the blocks.
func (w *attackWorld) secret() record.Want {
	w.t.Helper()
	n, err := w.a.Snapshot()
	if err != nil {
		w.t.Fatal(err)
	}
	defer n.Close()
	item, err := n.Get("/secret/key", false)
	if err != nil {
		w.t.Fatal(err)
	}
	return record.Want{PathKey: w.id.PathKey("/secret/key"), Version: item.Version, Entry: item.Entry}
}

// leak tells whether anything of a secret is in what a sends.
func (w *attackWorld) leak(send func(func(record.Parcel) error) error) string {
	blocks, leaked := 0, false
	err := send(func(p record.Parcel) error {
		blocks++
		leaked = leaked || bytes.Contains(p.Block, []byte("secret")) || bytes.Contains(p.Block, []byte("good"))
		for _, e := range p.Entries {
			leaked = leaked || bytes.Contains(e, []byte("/secret")) || bytes.Contains(e, []byte("/certs"))
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	if leaked {
		return "leaked"
	}
	if blocks == 0 {
		return "nothing"
	}
	return "blocks only"
}

// outcome names what a door said. None of these may be the agent's own failure.
func outcome(err error, well string) string {
	var path *record.PathError
	switch {
	case err == nil:
		return well
	case errors.Is(err, ErrDenied):
		return "denied"
	case errors.Is(err, ErrPrecondition):
		return "sign again"
	case errors.Is(err, record.ErrFormat), errors.Is(err, ErrPolicy), errors.Is(err, ErrTooLarge), errors.As(err, &path):
		return "refused"
	}
	return "failed: " + err.Error()
}

// attack is one row: what somebody tries, what comes of it.
type attack struct {
	name, want string
	try        func(w *attackWorld) string
}

// run makes a row's attempt in a world of its own and then looks whether a is sound.
func (c attack) run(t *testing.T) {
	w := newAttackWorld(t)
	if got := c.try(w); got != c.want {
		t.Errorf("outcome %q, want %q", got, c.want)
	}
	w.a.put("/after", "sound")
	if w.a.get("/after") != "sound" {
		t.Error("a is not sound any more")
	}
	checkHeads(t, w.a)
}

func TestG6_G10_AttacksByBlocks(t *testing.T) {
	for _, c := range blockAttacks {
		t.Run(c.name, c.run)
	}
}

// blockAttacks come as blocks and entries from a member. "taken" alone means that nothing of it shows.
var blockAttacks = []attack{
	{"its own path, as a check of the harness", "taken, a shows /certs/key=good /m/x=mine /old/x=good /secret/key=good", func(w *attackWorld) string {
		write, entries := w.put(w.mallory, "/m/x", "mine", w.hlc(0))
		return w.send(entries, write)
	}},
	{"put outside of its paths", "taken", func(w *attackWorld) string {
		write, entries := w.put(w.mallory, "/certs/key", "evil", w.hlc(0))
		return w.send(entries, write)
	}},
	{"delete outside of its paths", "taken", func(w *attackWorld) string {
		e := &record.Entry{Kind: record.KindDelete, Path: "/certs/key"}
		write := &record.Write{Author: record.KeyOf(w.mallory), HLC: w.hlc(0), Slots: []record.Slot{{Entry: e.ID(), Tags: w.id.Tags(e.Path)}}}
		return w.send([][]byte{e.Encode()}, write)
	}},
	{"batch of one path of its own and one of others", "taken, a shows /certs/key=good /m/x=mine /old/x=good /secret/key=good", func(w *attackWorld) string {
		e1, s1 := w.entry("/m/x", "mine", "/m/x")
		e2, s2 := w.entry("/certs/key", "evil", "/certs/key")
		write := &record.Write{Author: record.KeyOf(w.mallory), HLC: w.hlc(0), Slots: []record.Slot{s1, s2}}
		return w.send([][]byte{e1.Encode(), e2.Encode()}, write)
	}},
	{"the directory of another host", "taken", func(w *attackWorld) string {
		write, entries := w.put(w.mallory, "/hosts/a/x", "evil", w.hlc(0))
		return w.send(entries, write)
	}},
	{"author forged, signed by mallory", "refused", func(w *attackWorld) string {
		write, entries := w.put(w.deploy, "/certs/key", "evil", w.hlc(0))
		write.Sign(w.mallory, w.id)
		return w.send(entries, write)
	}},
	{"author forged, signature of nothing", "refused", func(w *attackWorld) string {
		write, entries := w.put(w.deploy, "/certs/key", "evil", w.hlc(0))
		write.Sig = make([]byte, ed25519.SignatureSize)
		return w.send(entries, write)
	}},
	{"signature copied over another path", "refused", func(w *attackWorld) string {
		write, _ := w.put(w.deploy, "/certs/key", "evil", w.hlc(0))
		other, entries := w.put(w.deploy, "/certs/other", "evil", w.hlc(0))
		other.Sig = write.Sig
		return w.send(entries, other)
	}},
	{"signature kept, time changed", "refused", func(w *attackWorld) string {
		write, entries := w.put(w.deploy, "/certs/key", "evil", w.hlc(0))
		write.HLC++
		return w.send(entries, write)
	}},
	{"origin forged", "refused", func(w *attackWorld) string {
		block, err := record.ParseBlock(w.block())
		if err != nil {
			w.t.Fatal(err)
		}
		b := *block.Bundle
		b.Origin = record.KeyOf(testKey("b"))
		links := []record.Digest{w.genesisDigest()}
		return w.deliver(record.Parcel{Block: record.EncodeBlock(links, 2, b.Encode())})
	}},
	{"replay of a client's write for another network", "refused", func(w *attackWorld) string {
		write, entries := w.put(w.deploy, "/certs/key", "evil", w.hlc(0))
		write.Sign(w.deploy, record.NetworkID{1})
		return w.send(entries, write)
	}},
	{"replay of a block for another network", "refused", func(w *attackWorld) string {
		other := &testNet{id: record.NetworkID{1}}
		return w.deliver(record.Parcel{Block: other.forge(w.mallory, 9, 1, record.Digest{}, 2, []record.Digest{w.genesisDigest()})})
	}},
	{"replay of an old value after a delete", "taken", func(w *attackWorld) string {
		write, entries := w.put(w.deploy, "/certs/new", "old", w.hlc(0))
		w.relay(write, entries)
		w.clock.advance(1e9)
		w.write(Op{Path: "/certs/new", Delete: true})
		return w.send(entries, write)
	}},
	{"replay of an old value after a newer one", "taken", func(w *attackWorld) string {
		write, entries := w.put(w.deploy, "/certs/key", "old", w.hlc(-500))
		w.clock.advance(1e9)
		w.a.put("/certs/key", "newer")
		w.before = w.a.tree()
		return w.send(entries, write)
	}},
	{"another entry for a valid ID, with the block and later", "taken; taken", func(w *attackWorld) string {
		write, entries := w.put(w.deploy, "/certs/key", "good2", w.hlc(0))
		entries[0][len(entries[0])-1] ^= 1
		return w.send(nil, write) + "; " + w.deliver(record.Parcel{Block: w.block(), Entries: entries})
	}},
	{"another entry as the answer to a want", "refused", func(w *attackWorld) string {
		write, _ := w.put(w.deploy, "/certs/key", "good2", w.hlc(0))
		w.send(nil, write)
		_, other := w.put(w.deploy, "/certs/key", "evil", w.hlc(0))
		want := record.Want{PathKey: w.id.PathKey("/certs/key"), Version: record.Version{HLC: write.HLC, Write: write.ID()}, Entry: write.Slots[0].Entry}
		err := w.a.Answered(context.Background(), record.KeyOf(w.mallory), []record.Want{want}, []record.Answer{{Status: record.Here, Entry: other[0]}})
		return outcome(err, "taken") + w.shows()
	}},
	{"entry of one path under the tags of another", "taken", func(w *attackWorld) string {
		e, slot := w.entry("/certs/key", "evil", "/m/x")
		return w.send([][]byte{e.Encode()}, &record.Write{Author: record.KeyOf(w.mallory), HLC: w.hlc(0), Slots: []record.Slot{slot}})
	}},
	{"path key of others below a prefix of its own", "taken", func(w *attackWorld) string {
		e, slot := w.entry("/certs/key", "evil", "/certs/key")
		slot.Tags = []record.Tag{w.id.TagOf("/m"), w.id.PathKey("/certs/key")}
		return w.send([][]byte{e.Encode()}, &record.Write{Author: record.KeyOf(w.mallory), HLC: w.hlc(0), Slots: []record.Slot{slot}})
	}},
	{"prefix of its own at another depth", "taken", func(w *attackWorld) string {
		e, slot := w.entry("/x/m", "evil", "/x/m")
		slot.Tags[1] = w.id.TagOf("/m")
		return w.send([][]byte{e.Encode()}, &record.Write{Author: record.KeyOf(w.mallory), HLC: w.hlc(0), Slots: []record.Slot{slot}})
	}},
	{"/certs2 by a rule for /certs", "taken", func(w *attackWorld) string {
		write, entries := w.put(w.deploy, "/certs2", "evil", w.hlc(0))
		return w.send(entries, write)
	}},
	{"mixed case", "taken", func(w *attackWorld) string {
		write, entries := w.put(w.deploy, "/Certs/key", "evil", w.hlc(0))
		return w.send(entries, write)
	}},
	{"escaped slashes", "taken", func(w *attackWorld) string {
		write, entries := w.put(w.mallory, "/m%2F..%2Fcerts", "evil", w.hlc(0))
		return w.send(entries, write)
	}},
	{"path with ..", "refused", badPath("/m/../certs/key")},
	{"path with .", "refused", badPath("/m/./x")},
	{"path with a slash at its end", "refused", badPath("/m/x/")},
	{"path with an empty segment", "refused", badPath("/m//x")},
	{"path that is not UTF-8", "refused", badPath("/m/\xff")},
	{"path with a line end", "refused", badPath("/m/x\ny")},
	{"path of 33 segments", "refused", badPath(strings.Repeat("/m", 33))},
	{"reserved path", "taken", func(w *attackWorld) string {
		write, entries := w.put(w.mallory, "/.sys/x", "evil", w.hlc(0))
		return w.send(entries, write)
	}},
	{"time far ahead", "taken", func(w *attackWorld) string {
		write, entries := w.put(w.mallory, "/m/x", "later", w.hlc(11*60*1000))
		return w.send(entries, write)
	}},
	{"the largest time there is", "taken", func(w *attackWorld) string {
		write, entries := w.put(w.mallory, "/m/x", "for ever", ^record.HLC(0))
		return w.send(entries, write)
	}},
	{"the same path twice in a write", "refused", func(w *attackWorld) string {
		e, slot := w.entry("/m/x", "1", "/m/x")
		return w.send([][]byte{e.Encode()}, &record.Write{Author: record.KeyOf(w.mallory), HLC: w.hlc(0), Slots: []record.Slot{slot, slot}})
	}},
	{"write without slots", "refused", func(w *attackWorld) string {
		return w.send(nil, &record.Write{Author: record.KeyOf(w.mallory), HLC: w.hlc(0)})
	}},
	{"writes of more slots than a block may have", "refused", func(w *attackWorld) string {
		var writes []*record.Write
		for i := range 257 {
			write, _ := w.put(w.mallory, fmt.Sprint("/m/", i), "", w.hlc(0))
			writes = append(writes, write)
		}
		return w.send(nil, writes...)
	}},
	{"a byte after the block", "refused", func(w *attackWorld) string {
		return w.deliver(record.Parcel{Block: append(w.block(), 0)})
	}},
	{"half a block", "refused", func(w *attackWorld) string {
		block := w.block()
		return w.deliver(record.Parcel{Block: block[:len(block)/2]})
	}},
	{"a gap in the sequence", "waits", func(w *attackWorld) string {
		first := w.block()
		d := record.DigestOf(first)
		second := w.forge(w.mallory, w.incarnation, 2, d, 3, []record.Digest{d})
		return w.deliver(record.Parcel{Block: second})
	}},
	{"a number whose predecessor nobody has, on known links", "waits", func(w *attackWorld) string {
		return w.deliver(record.Parcel{Block: w.forge(w.mallory, 99, 2, record.Digest{9}, 2, []record.Digest{w.genesisDigest()})})
	}},
	{"blocks out of order", "taken", func(w *attackWorld) string {
		first := w.block()
		d := record.DigestOf(first)
		second := w.forge(w.mallory, w.incarnation, 2, d, 3, []record.Digest{d})
		return w.deliver(record.Parcel{Block: second}, record.Parcel{Block: first})
	}},
	{"two blocks of one number", "taken; fork alarm true", func(w *attackWorld) string {
		one := w.forge(w.mallory, 9, 1, record.Digest{}, 2, []record.Digest{w.genesisDigest()})
		write, entries := w.put(w.mallory, "/certs/key", "evil", w.hlc(0))
		two := w.forge(w.mallory, 9, 1, record.Digest{}, 2, []record.Digest{w.genesisDigest()}, write)
		w.deliver(record.Parcel{Block: one})
		return w.deliver(record.Parcel{Block: two, Entries: entries}) + fmt.Sprint("; fork alarm ", w.a.alarmed("fork"))
	}},
	{"two agents with one identity", "taken; alarm true", func(w *attackWorld) string {
		now := w.a.Stats().Incarnation
		block := w.forge(testKey("a"), now, 1, record.Digest{}, 2, []record.Digest{w.genesisDigest()})
		return w.deliver(record.Parcel{Block: block}) + fmt.Sprint("; alarm ", w.a.alarmed("identity-reused"))
	}},
	{"a thousand invented origins", "taken", func(w *attackWorld) string {
		var parcels []record.Parcel
		for i := range 1000 {
			key := testKey(fmt.Sprint("nobody", i))
			e, slot := w.entry("/certs/key", "evil", "/certs/key")
			write := &record.Write{Author: record.KeyOf(key), HLC: w.hlc(0), Slots: []record.Slot{slot}}
			block := w.forge(key, 1, 1, record.Digest{}, 2, []record.Digest{w.genesisDigest()}, write)
			parcels = append(parcels, record.Parcel{Block: block, Entries: [][]byte{e.Encode()}})
		}
		return w.deliver(parcels...)
	}},
	{"backdated write after the revocation", "taken", func(w *attackWorld) string {
		w.a.apply(w.policy(attackNames, w.rules(w.revoke(w.old))...))
		write, entries := w.put(w.old, "/old/y", "evil", w.hlc(-3_600_000))
		return w.send(entries, write)
	}},
	{"kept entry signed again by the revoked key", "taken", func(w *attackWorld) string {
		write, entries := w.put(w.old, "/old/x", "reviewed", w.hlc(0))
		w.relay(write, entries)
		version := record.Version{HLC: write.HLC, Write: write.ID()}
		w.a.apply(w.policy(attackNames, w.rules(w.revoke(w.old), "keep "+version.String())...))
		w.a.put("/old/x", "newer")
		w.before = w.a.tree()
		again := *write
		again.HLC = w.hlc(60_000)
		again.Sign(w.old, w.id)
		return w.send(entries, &again)
	}},
	{"retired key, after its time", "taken", func(w *attackWorld) string {
		until := w.hlc(0).Time().Format("2006-01-02T15:04:05Z")
		w.a.apply(w.policy(attackNames, w.rules("retired "+record.KeyOf(w.old).String()+" "+until)...))
		write, entries := w.put(w.old, "/old/x", "evil", w.hlc(1000))
		return w.send(entries, write)
	}},
	{"former key", "taken", func(w *attackWorld) string {
		w.a.apply(w.policy(attackNames[:4], w.rules("former "+record.KeyOf(w.old).String())...))
		write, entries := w.put(w.old, "/old/x", "evil", w.hlc(0))
		return w.send(entries, write)
	}},
	{"eleven quick versions by a stolen key", "the value before it is back", func(w *attackWorld) string {
		for range 11 {
			w.clock.advance(1e6)
			write, entries := w.put(w.old, "/old/x", "evil", w.hlc(0))
			if got := w.send(entries, write); !strings.Contains(got, "/old/x=evil") {
				return "the stolen key does not work: " + got
			}
		}
		w.a.apply(w.policy(attackNames, w.rules(w.revoke(w.old))...))
		if w.a.tree() != w.before {
			return w.a.tree()
		}
		return "the value before it is back"
	}},
}

// badPath makes the attempt to bring in an entry whose path is none. Its tags are those of a path that mallory may write.
func badPath(path string) func(w *attackWorld) string {
	return func(w *attackWorld) string {
		e, slot := w.entry(path, "evil", "/m/x")
		return w.send([][]byte{e.Encode()}, &record.Write{Author: record.KeyOf(w.mallory), HLC: w.hlc(0), Slots: []record.Slot{slot}})
	}
}

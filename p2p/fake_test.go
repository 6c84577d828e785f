package p2p

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"syncagent/crdtstore/record"
)

var testNetwork = record.NetworkID{1, 2, 3}

// fakePolicy is a policy as plain as can be: members, and prefixes that only some may read.
type fakePolicy struct {
	Number  uint64
	Keys    []record.PublicKey
	Private map[string][]record.PublicKey // prefix -> readers
}

func (p *fakePolicy) Member(k record.PublicKey) bool  { return slices.Contains(p.Keys, k) }
func (p *fakePolicy) Members() []record.PublicKey     { return p.Keys }
func (p *fakePolicy) Serial() uint64                  { return p.Number }
func (p *fakePolicy) Alias(k record.PublicKey) string { return "" }
func (p *fakePolicy) Hash() [32]byte                  { return sha256.Sum256(p.text()) }
func (p *fakePolicy) SameReads(a, b record.PublicKey) bool {
	for _, readers := range p.Private {
		if slices.Contains(readers, a) != slices.Contains(readers, b) {
			return false
		}
	}
	return true
}
func (p *fakePolicy) MembersMayRead(tags []record.Tag) bool { return p.readers(tags) == nil }
func (p *fakePolicy) MayRead(k record.PublicKey, tags []record.Tag) bool {
	r := p.readers(tags)
	return p.Member(k) && (r == nil || slices.Contains(r, k))
}

func (p *fakePolicy) readers(tags []record.Tag) []record.PublicKey {
	for prefix, keys := range p.Private {
		if slices.Contains(tags, testNetwork.TagOf(prefix)) {
			return keys
		}
	}
	return nil
}

func (p *fakePolicy) text() []byte {
	b, err := json.Marshal(p)
	if err != nil {
		panic(err)
	}
	return b
}

type chainKey struct {
	origin      record.PublicKey
	incarnation uint64
}

// fakeReplica is a store over maps. It keeps the block rule but for go-ds-crdt.
type fakeReplica struct {
	key  ed25519.PrivateKey
	self record.PublicKey
	node *Node
	fakeChunks

	mu      sync.Mutex
	policy  *fakePolicy
	texts   [][]byte
	blocks  map[record.Digest]*record.Block
	heads   map[record.Digest]bool
	chains  map[chainKey][]record.Digest
	parked  map[record.Digest]*record.Block
	entries map[record.ID][]byte
	slots   map[record.ID]record.Want
	tags    map[record.ID][]record.Tag
	given   map[record.ID]time.Time
	seen    map[record.PublicKey]int // parcels by who delivered
	sent    map[record.PublicKey]int // bytes of entries, by who pulls
	slow    time.Duration            // per ingest
	served  int
	asked   int                    // times for blocks by digest
	pulled  func(record.PublicKey) // called by Missing; nil: nothing
	checked func()                 // called by Check; nil: nothing
	taking  func()                 // called by take; nil: nothing
	putOff  int                    // blocks to come
	invalid error
	rot     byte // flips bits of the digest
	shows   byte // the digest of the view
}

func newFake(key ed25519.PrivateKey, policy *fakePolicy) *fakeReplica {
	genesis, err := record.ParseGenesisBlock(record.GenesisBlock(testNetwork, 0), testNetwork, 0)
	if err != nil {
		panic(err)
	}
	r := &fakeReplica{key: key, self: record.KeyOf(key), policy: &fakePolicy{},
		fakeChunks: fakeChunks{held: map[record.ID][]byte{}, asked: map[record.ID]bool{}},
		blocks:     map[record.Digest]*record.Block{genesis.Digest: genesis}, heads: map[record.Digest]bool{genesis.Digest: true},
		chains: map[chainKey][]record.Digest{}, parked: map[record.Digest]*record.Block{},
		entries: map[record.ID][]byte{}, slots: map[record.ID]record.Want{}, tags: map[record.ID][]record.Tag{},
		given: map[record.ID]time.Time{}, seen: map[record.PublicKey]int{}, sent: map[record.PublicKey]int{}}
	if policy != nil {
		r.policy, r.texts = policy, [][]byte{policy.text()}
	}
	return r
}

func (r *fakeReplica) sortedHeads() []record.Digest {
	var out []record.Digest
	for h := range r.heads {
		out = append(out, h)
	}
	slices.SortFunc(out, func(a, b record.Digest) int { return bytes.Compare(a[:], b[:]) })
	return out
}

func (r *fakeReplica) BlockDigest() [32]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := sha256.New()
	for _, d := range r.sortedHeads() {
		h.Write(d[:])
	}
	sum := [32]byte(h.Sum(nil))
	sum[0] ^= r.rot
	return sum
}

func (r *fakeReplica) View() ([32]byte, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return [32]byte{r.shows}, true
}

func (r *fakeReplica) Heads() []record.Digest {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sortedHeads()
}

func (r *fakeReplica) Vector() []record.Position {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []record.Position
	for c, ds := range r.chains {
		p := record.Position{Origin: c.origin, Incarnation: c.incarnation, Seq: uint64(len(ds))}
		copy(p.Mark[:], ds[len(ds)-1][:])
		out = append(out, p)
	}
	return out
}

func (r *fakeReplica) Missing(_ context.Context, have []record.Position, reader record.PublicKey, send func(record.Parcel) error) error {
	if r.pulled != nil {
		r.pulled(reader)
	}
	r.mu.Lock()
	held := map[chainKey]uint64{}
	for _, p := range have {
		held[chainKey{p.Origin, p.Incarnation}] = p.Seq
	}
	var out []*record.Block
	for c, ds := range r.chains {
		for i := held[c]; i < uint64(len(ds)); i++ {
			out = append(out, r.blocks[ds[i]])
		}
	}
	r.mu.Unlock()
	return r.sendAll(out, reader, send)
}

func (r *fakeReplica) sendAll(out []*record.Block, reader record.PublicKey, send func(record.Parcel) error) error {
	slices.SortFunc(out, func(a, b *record.Block) int { return cmp.Compare(a.Priority, b.Priority) })
	for _, b := range out {
		if b.Bundle == nil {
			continue
		}
		p := record.Parcel{Block: b.Raw}
		r.mu.Lock()
		for _, w := range b.Writes {
			for i := range w.Slots {
				if e := r.entries[w.Slots[i].Entry]; e != nil && r.policy.MayRead(reader, w.Slots[i].Tags) && len(e) < 2000 {
					p.Entries = append(p.Entries, e) // larger ones have to be wanted
					r.sent[reader] += len(e)
				}
			}
		}
		r.mu.Unlock()
		if err := send(p); err != nil {
			return err
		}
	}
	return nil
}

func (r *fakeReplica) Lacks(blocks []record.Digest) (out []record.Digest, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range blocks {
		if r.blocks[d] == nil {
			out = append(out, d)
		}
	}
	return out, nil
}

func (r *fakeReplica) Ancestors(_ context.Context, of []record.Digest, reader record.PublicKey, send func(record.Parcel) error) error {
	r.mu.Lock()
	r.asked++
	seen := map[record.Digest]bool{}
	var out []*record.Block
	for _, d := range of {
		todo := []record.Digest{d}
		for n := 0; len(todo) > 0 && n < 65; n++ {
			b := r.blocks[todo[0]]
			todo = todo[1:]
			if b == nil || seen[b.Digest] {
				continue
			}
			seen[b.Digest] = true
			out = append(out, b)
			todo = append(todo, b.Links...)
		}
	}
	r.mu.Unlock()
	return r.sendAll(out, reader, send)
}

func (r *fakeReplica) Ingest(_ context.Context, from record.PublicKey, parcels []record.Parcel) (Ingested, error) {
	var got Ingested
	r.mu.Lock()
	r.seen[from] += len(parcels)
	slow := r.slow
	for _, p := range parcels {
		for _, raw := range p.Entries {
			if e, err := record.ParseEntry(raw); err == nil {
				r.entries[e.ID()] = bytes.Clone(raw)
			}
		}
		if p.Block == nil {
			continue
		}
		b, err := record.ParseBlock(bytes.Clone(p.Block))
		if err == nil {
			err = b.Verify(testNetwork)
		}
		if err != nil {
			got.Invalid = err
			continue
		}
		if r.putOff > 0 {
			r.putOff--
			got.Delayed++
			continue
		}
		r.take(b, &got)
	}
	wants := 0
	for id := range r.slots {
		if r.entries[id] == nil {
			wants++
		}
	}
	node := r.node
	r.mu.Unlock()
	if slow > 0 {
		time.Sleep(slow)
	}
	if wants > 0 && node != nil {
		node.WantsChanged()
	}
	return got, nil
}

func (r *fakeReplica) take(b *record.Block, got *Ingested) {
	if r.blocks[b.Digest] != nil {
		return
	}
	err := b.CheckLinks(func(d record.Digest) (record.Header, bool) {
		if k := r.blocks[d]; k != nil {
			return k.Header(), true
		}
		return record.Header{}, false
	})
	if m, ok := err.(*record.MissingError); ok {
		r.parked[b.Digest] = b
		got.Missing = append(got.Missing, m.Digests...)
		return
	}
	if err != nil {
		got.Invalid = err
		r.invalid = err
		return
	}
	r.add(b)
	got.New++
	for _, p := range r.parked {
		if slices.Contains(p.Links, b.Digest) || p.Prev == b.Digest {
			delete(r.parked, p.Digest)
			r.take(p, got)
		}
	}
}

func (r *fakeReplica) add(b *record.Block) {
	r.blocks[b.Digest] = b
	for _, l := range b.Links {
		delete(r.heads, l)
	}
	r.heads[b.Digest] = true
	c := chainKey{b.Origin, b.Incarnation}
	if int(b.Seq) > len(r.chains[c]) { // a fork is not on the chain, only heads tell of it
		r.chains[c] = append(r.chains[c], b.Digest)
	}
	for _, w := range b.Writes {
		for i := range w.Slots {
			s := &w.Slots[i]
			r.tags[s.Entry] = s.Tags
			r.slots[s.Entry] = record.Want{PathKey: s.PathKey(), Entry: s.Entry,
				Version: record.Version{HLC: w.HLC, Write: w.ID(), Index: uint16(i)}}
		}
	}
}

// put makes a block of one write of these paths; it is not published.
func (r *fakeReplica) put(value []byte, paths ...string) Outgoing {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.putLocked(value, paths...)
}

func (r *fakeReplica) putLocked(value []byte, paths ...string) Outgoing {
	var o Outgoing
	w := &record.Write{Author: r.self, HLC: record.NewHLC(time.Now())}
	for _, path := range paths {
		e := record.Entry{Kind: record.KindPut, Path: path, Value: value}
		if _, err := rand.Read(e.Salt[:]); err != nil {
			panic(err)
		}
		tags := testNetwork.Tags(path)
		w.Slots = append(w.Slots, record.Slot{Entry: e.ID(), Tags: tags})
		r.entries[e.ID()] = e.Encode()
		o.Entries = append(o.Entries, OutgoingEntry{Tags: tags, Bytes: e.Encode()})
	}
	c := chainKey{r.self, 1}
	u := &record.Bundle{Origin: r.self, Incarnation: 1, Seq: uint64(len(r.chains[c])) + 1, Writes: []*record.Write{w}}
	if u.Seq > 1 {
		u.Prev = r.chains[c][u.Seq-2]
	}
	b := r.seal(u, r.sortedHeads())
	r.add(b)
	o.Block = b.Raw
	return o
}

// seal makes a block of a bundle on these links.
func (r *fakeReplica) seal(u *record.Bundle, links []record.Digest) *record.Block {
	priority := uint64(0)
	for _, l := range links {
		priority = max(priority, r.blocks[l].Priority)
	}
	u.Sign(r.key, testNetwork, links)
	b, err := record.ParseBlock(record.EncodeBlock(links, priority+1, u.Encode()))
	if err != nil {
		panic(err)
	}
	return b
}

func (r *fakeReplica) publish(value []byte, paths ...string) { r.node.Publish(r.put(value, paths...)) }

func (r *fakeReplica) Wants(peer record.PublicKey, limit int) []record.Want {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []record.Want
	for id, w := range r.slots {
		if len(out) < limit && r.entries[id] == nil && r.policy.MayRead(r.self, r.tags[id]) && r.policy.MayRead(peer, r.tags[id]) &&
			time.Since(r.given[id]) > time.Second {
			r.given[id] = time.Now()
			out = append(out, w)
		}
	}
	return out
}

func (r *fakeReplica) Answered(_ context.Context, _ record.PublicKey, wants []record.Want, answers []record.Answer) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, a := range answers {
		delete(r.given, wants[i].Entry)
		if a.Status != record.Here {
			continue
		}
		e, err := record.ParseEntry(a.Entry)
		if err != nil || e.ID() != wants[i].Entry {
			return fmt.Errorf("answer does not fit: %v", err)
		}
		r.entries[e.ID()] = bytes.Clone(a.Entry)
	}
	return nil
}

func (r *fakeReplica) Serve(reader record.PublicKey, wants []record.Want) []record.Answer {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]record.Answer, len(wants))
	for i, w := range wants {
		raw := r.entries[w.Entry]
		if raw == nil {
			continue
		}
		e, err := record.ParseEntry(raw)
		if err != nil {
			panic(err)
		}
		if r.policy.MayRead(reader, testNetwork.Tags(e.Path)) {
			out[i] = record.Answer{Status: record.Here, Entry: raw}
			r.served++
		} else {
			out[i].Status = record.Denied
		}
	}
	return out
}

func (r *fakeReplica) Policies() [][]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.texts)
}

func (r *fakeReplica) OfferPolicy(_ context.Context, _ record.PublicKey, text []byte) error {
	p := new(fakePolicy)
	if err := json.Unmarshal(text, p); err != nil {
		return err
	}
	r.setPolicy(p)
	return nil
}

// setPolicy puts a policy in force if it is newer.
func (r *fakeReplica) setPolicy(p *fakePolicy) {
	r.mu.Lock()
	newer := p.Number > r.policy.Number
	if newer {
		r.policy = p
		r.texts = append([][]byte{p.text()}, r.texts...)
	}
	node := r.node
	r.mu.Unlock()
	if newer && node != nil {
		node.PolicyChanged()
	}
}

func (r *fakeReplica) Rights() Rights {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.policy
}

func (r *fakeReplica) AgentTime() time.Time { return time.Now() }
func (r *fakeReplica) Incarnation() uint64  { return 1 }

func (r *fakeReplica) blockCount() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.blocks)
}

// holds counts the entries held with this path prefix.
func (r *fakeReplica) holds(prefix string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, raw := range r.entries {
		if e, err := record.ParseEntry(raw); err == nil && record.Covers(prefix, e.Path) {
			n++
		}
	}
	return n
}

package crdtstore

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"syncagent/acl"
	"syncagent/crdtstore/record"
)

// testNet is a network of stores without a wire: tests carry blocks and entries themselves.
type testNet struct {
	t       testing.TB
	admin   ed25519.PrivateKey
	genesis record.Genesis
	id      record.NetworkID
	serial  int
	clock   *testClock
	rand    *rand.Rand
	offset  time.Duration // of the clocks of nodes that are started
}

// testKey makes a key that depends on the name alone.
func testKey(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte("syncagent test key " + name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func newTestNet(t testing.TB, seed uint64) *testNet {
	n := &testNet{t: t, admin: testKey("admin"), clock: &testClock{wall: 1_790_000_000_000}, rand: rand.New(rand.NewPCG(seed, 1))}
	n.genesis = record.Genesis{Nonce: sha256.Sum256([]byte(t.Name())), Admins: []record.PublicKey{record.KeyOf(n.admin)}}
	n.id = n.genesis.ID()
	return n
}

// testClock stands still unless a test moves it. All stores of a net share it, with their own offsets.
type testClock struct {
	mu   sync.Mutex
	wall int64 // Unix milliseconds
	mono time.Duration
}

func (c *testClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wall += d.Milliseconds()
	c.mono += d
}

type offsetClock struct {
	*testClock
	offset time.Duration
}

// setOffset lets the wall clock of one store jump.
func (c *offsetClock) setOffset(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offset = d
}

func (c *offsetClock) Now() (time.Time, time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.UnixMilli(c.wall).Add(c.offset), c.mono
}

// policy makes a signed policy from rule lines. Names are identities made by testKey.
func (n *testNet) policy(names []string, lines ...string) []byte {
	n.serial++
	var b strings.Builder
	fmt.Fprintf(&b, "syncagent-policy 1\nnetwork %s\nserial %d\n", n.id, n.serial)
	for _, name := range names {
		fmt.Fprintf(&b, "identity %s %s\n", name, record.KeyOf(testKey(name)))
	}
	for _, l := range lines {
		b.WriteString(l + "\n")
	}
	return acl.Sign([]byte(b.String()), n.id, n.admin)
}

// node is one store that runs.
type node struct {
	*Store
	t      testing.TB
	name   string
	disk   *memKV
	clock  *offsetClock
	cancel context.CancelFunc
	done   chan struct{}
	mu     sync.Mutex
	out    []record.Outgoing
	alarms map[string]string // messages by code
}

// start opens a store on a disk in memory and runs it.
func (n *testNet) start(name string, disk *memKV) *node {
	n.t.Helper()
	if disk == nil {
		disk = newMemKV()
	}
	return n.startOn(name, disk, "")
}

func (n *testNet) startOn(name string, disk *memKV, dir string) *node {
	n.t.Helper()
	o := n.options(name)
	o.Dir = dir
	if disk != nil {
		o.kv, o.chunks = disk, disk.chunks
	}
	return n.run(name, o)
}

// run opens a store with these options and runs it.
func (n *testNet) run(name string, o Options) *node {
	n.t.Helper()
	disk, _ := o.kv.(*memKV)
	nd := &node{t: n.t, name: name, disk: disk, clock: &offsetClock{testClock: n.clock, offset: n.offset}, done: make(chan struct{}), alarms: map[string]string{}}
	o.Clock = nd.clock
	o.OnCommit = func(out []record.Outgoing) {
		nd.mu.Lock()
		defer nd.mu.Unlock()
		nd.out = append(nd.out, out...)
	}
	o.Alarm = func(code, message string) {
		nd.mu.Lock()
		defer nd.mu.Unlock()
		if nd.alarms[code] = message; message == "" {
			delete(nd.alarms, code)
		}
	}
	s, err := Open(o)
	if err != nil {
		n.t.Fatalf("open %s: %v", name, err)
	}
	nd.Store = s
	ctx, cancel := context.WithCancel(context.Background())
	nd.cancel = cancel
	go func() {
		err := s.Run(ctx)
		if err != nil && !errors.Is(err, errPower) {
			n.t.Errorf("run %s: %v", name, err)
		}
		close(nd.done)
	}()
	n.t.Cleanup(nd.stop)
	return nd
}

func (n *testNet) options(name string) Options {
	var src [32]byte
	binary.BigEndian.PutUint64(src[:], n.rand.Uint64())
	return Options{
		Network: n.id, Key: testKey(name), Admins: n.genesis.Admins,
		Rand: rand.NewChaCha8(src), Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
}

// stop ends the node. It may be called twice.
func (nd *node) stop() {
	if nd.cancel == nil {
		return
	}
	nd.cancel()
	nd.cancel = nil
	<-nd.done
	if err := nd.Close(); err != nil {
		nd.t.Errorf("close %s: %v", nd.name, err)
	}
}

func (nd *node) alarmed(code string) bool { return nd.alarmText(code) != "" }

// alarmText gives the message of an alarm that is raised.
func (nd *node) alarmText(code string) string {
	nd.mu.Lock()
	defer nd.mu.Unlock()
	return nd.alarms[code]
}

func (nd *node) apply(policy []byte) {
	nd.t.Helper()
	if err := nd.SetPolicy(context.Background(), policy); err != nil {
		nd.t.Fatalf("%s: set policy: %v", nd.name, err)
	}
	nd.settle()
}

// settle waits until the rows are right by the policy in force.
func (nd *node) settle() {
	nd.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; {
		n, err := nd.Snapshot()
		if err != nil {
			nd.t.Fatal(err)
		}
		judge := n.judge
		n.Close()
		if !judge {
			// The rows are committed; one more turn, and the counters are published too.
			if err := nd.Answered(context.Background(), nd.self, nil, nil); err != nil {
				nd.t.Fatal(err)
			}
			return
		}
		if time.Now().After(deadline) {
			nd.t.Fatalf("%s: the rows were not put right", nd.name)
		}
		time.Sleep(time.Millisecond)
	}
}

func (nd *node) put(path, value string) record.Version {
	nd.t.Helper()
	v, err := nd.Write(context.Background(), []Op{{Path: path, Value: []byte(value)}})
	if err != nil {
		nd.t.Fatalf("%s: put %s: %v", nd.name, path, err)
	}
	return v
}

// get gives the value, or "-" when the path is not found.
func (nd *node) get(path string) string {
	nd.t.Helper()
	n, err := nd.Snapshot()
	if err != nil {
		nd.t.Fatal(err)
	}
	defer n.Close()
	item, err := n.Get(path, true)
	if errors.Is(err, ErrNotFound) {
		return "-"
	}
	if err != nil {
		nd.t.Fatalf("%s: get %s: %v", nd.name, path, err)
	}
	value, err := nd.content(&item)
	if err != nil {
		nd.t.Fatalf("%s: read %s: %v", nd.name, path, err)
	}
	return value
}

// content reads the value of an item, of any size.
func (nd *node) content(item *Item) (string, error) {
	r := nd.Content(item)
	defer r.Close()
	value, err := io.ReadAll(r)
	return string(value), err
}

// tree gives all visible paths with their values.
func (nd *node) tree() string {
	nd.t.Helper()
	n, err := nd.Snapshot()
	if err != nil {
		nd.t.Fatal(err)
	}
	defer n.Close()
	var b strings.Builder
	err = n.List("/", true, func(i Item) error {
		value, err := nd.content(&i)
		fmt.Fprintf(&b, "%s=%s ", i.Path, value)
		return err
	})
	if err != nil {
		nd.t.Fatalf("%s: list: %v", nd.name, err)
	}
	return b.String()
}

// pull brings to nd what from has: policies, blocks with entries, wants.
func (nd *node) pull(from *node) {
	nd.t.Helper()
	ctx := context.Background()
	for _, p := range from.Policies() {
		if err := nd.SetPolicy(ctx, p); err != nil {
			nd.t.Fatalf("%s: policy of %s: %v", nd.name, from.name, err)
		}
	}
	var parcels []record.Parcel
	send := func(p record.Parcel) error {
		c := record.Parcel{Block: bytes.Clone(p.Block)}
		for _, e := range p.Entries {
			c.Entries = append(c.Entries, bytes.Clone(e))
		}
		parcels = append(parcels, c)
		return nil
	}
	if err := from.Missing(ctx, nd.Vector(), nd.self, send); err != nil {
		nd.t.Fatalf("%s: missing: %v", from.name, err)
	}
	if nd.BlockDigest() != from.BlockDigest() && len(parcels) == 0 {
		if err := from.Ancestors(ctx, from.Heads(), nd.self, send); err != nil {
			nd.t.Fatalf("%s: ancestors: %v", from.name, err)
		}
	}
	for len(parcels) > 0 {
		res, err := nd.Ingest(ctx, from.self, parcels)
		if err != nil || res.Invalid != nil {
			nd.t.Fatalf("%s: ingest from %s: %v, %v", nd.name, from.name, err, res.Invalid)
		}
		parcels = nil
		if err := from.Ancestors(ctx, res.Missing, nd.self, send); err != nil {
			nd.t.Fatalf("%s: ancestors: %v", from.name, err)
		}
	}
	nd.fetch(from)
}

// fetch asks from for what nd wants, until it has nothing more to give.
func (nd *node) fetch(from *node) {
	nd.t.Helper()
	for {
		wants := nd.Wants(from.self, 1000)
		if len(wants) == 0 {
			return
		}
		answers := from.Serve(nd.self, wants)
		if err := nd.Answered(context.Background(), from.self, wants, answers); err != nil {
			nd.t.Fatalf("%s: answers of %s: %v", nd.name, from.name, err)
		}
	}
}

// fetchChunks asks from for the chunks that nd wants, until it has nothing more to give. It gives their number.
func (nd *node) fetchChunks(from *node) (n int) {
	nd.t.Helper()
	nd.tended()
	for {
		wants := nd.ChunkWants(from.self, 16)
		if len(wants) == 0 {
			nd.tended()
			return n
		}
		for _, w := range wants {
			a := from.ServeChunk(nd.self, w)
			if err := nd.TakeChunk(context.Background(), from.self, w, a); err != nil {
				nd.t.Fatalf("%s: chunk of %s: %v", nd.name, from.name, err)
			}
			if a.Status == record.Here {
				n++
			}
		}
	}
}

// tended waits until the file work that is due is done, and the turns have taken what follows from it.
func (nd *node) tended() {
	nd.t.Helper()
	whole, err := nd.tend()
	if err != nil {
		nd.t.Fatalf("%s: %v", nd.name, err)
	}
	for _, n := range whole {
		nd.inbox <- n
	}
	if err := nd.Answered(context.Background(), nd.self, nil, nil); err != nil { // one turn after them
		nd.t.Fatal(err)
	}
	if _, err := nd.tend(); err != nil { // what that turn dropped
		nd.t.Fatal(err)
	}
}

// meet lets all nodes exchange what they have until nothing moves.
func meet(nodes ...*node) {
	for range 3 {
		for _, a := range nodes {
			for _, b := range nodes {
				if a != b {
					a.pull(b)
				}
			}
		}
	}
}

package virtual

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"syncagent/acl"
	"syncagent/crdtstore"
	"syncagent/crdtstore/record"
	"syncagent/p2p"
)

// patience is how long a heal may take, in virtual time: guarantee G11.
const patience = 10 * time.Second

// agent is one agent without its API: a store and a node, wired as package agent does it.
type agent struct {
	t       testing.TB
	place   int
	dir     string
	key     ed25519.PrivateKey
	fleet   *fleet
	offset  time.Duration // of its clock
	Store   *crdtstore.Store
	damage  *damage // what is wrong with the store, as the network sees it; nil: nothing
	alarm   func(code, message string)
	node    *p2p.Node
	stopped func()
}

// fleet is all agents of a network.
type fleet struct {
	t       testing.TB
	network *network
	id      record.NetworkID
	admins  []record.PublicKey
	policy  []byte
	agents  []*agent
}

// keyOf makes a key that depends on the name alone.
func keyOf(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte("syncagent virtual " + name))
	return ed25519.NewKeyFromSeed(seed[:])
}

// newFleet makes n agents with this latency between them, each with one of the first three as bootstrap peers. Nothing
// runs yet.
func newFleet(t testing.TB, n int, latency time.Duration, seed uint64) *fleet {
	admin := keyOf("admin")
	genesis := record.Genesis{Nonce: sha256.Sum256([]byte(t.Name())), Admins: []record.PublicKey{record.KeyOf(admin)}}
	f := &fleet{t: t, network: newNetwork(n, latency, seed), id: genesis.ID(), admins: genesis.Admins}
	var identities, group strings.Builder
	dir := t.TempDir()
	for i := range n {
		name := fmt.Sprintf("a%d", i)
		a := &agent{t: t, place: i, dir: filepath.Join(dir, name), key: keyOf(name), fleet: f}
		a.alarm = func(code, message string) { t.Errorf("%s alarms: %s: %s", name, code, message) }
		fmt.Fprintf(&identities, "identity %s %s\n", name, record.KeyOf(a.key))
		group.WriteString(" " + name)
		f.agents = append(f.agents, a)
	}
	text := fmt.Sprintf("syncagent-policy 1\nnetwork %s\nserial 1\n%sgroup @hosts%s\n@hosts peer\n@hosts / rw\nformat 1\n", f.id, &identities, &group)
	f.policy = acl.Sign([]byte(text), f.id, admin)
	return f
}

// close stops everything. A bubble ends only when nothing runs in it any more.
func (f *fleet) close() {
	for _, a := range f.agents {
		a.stop()
	}
	f.network.sim.Close()
}

type shiftedClock struct {
	started time.Time
	offset  time.Duration
}

func (c shiftedClock) Now() (time.Time, time.Duration) {
	now := time.Now()
	return now.Add(c.offset), now.Sub(c.started)
}

// start runs the agent.
func (a *agent) start() {
	a.t.Helper()
	var err error
	a.Store, err = crdtstore.Open(crdtstore.Options{
		Dir: a.dir, Network: a.fleet.id, Key: a.key, Admins: a.fleet.admins, Clock: shiftedClock{time.Now(), a.offset},
		OnCommit: func(blocks []record.Outgoing) {
			for _, b := range blocks {
				a.node.Publish(b)
			}
		},
		OnPolicy: func() { a.node.PolicyChanged() },
		OnWants:  func() { a.node.WantsChanged() },
		Alarm:    a.alarm,
	})
	if err != nil {
		a.t.Fatal(err)
	}
	var bootstrap []string
	for i := range min(3, len(a.fleet.agents)) {
		bootstrap = append(bootstrap, fmt.Sprintf("%s/p2p/%s", listen(i), record.KeyOf(a.fleet.agents[i].key)))
	}
	a.node, err = p2p.New(p2p.Options{
		Key: a.key, Network: a.fleet.id, Name: fmt.Sprintf("a%d", a.place), Version: "virtual",
		Listen: []string{listen(a.place)}, Bootstrap: bootstrap, PeersFile: filepath.Join(a.dir, "peers"),
		HostOptions: a.fleet.network.options(a.place),
		Alarm:       a.alarm,
	})
	if err != nil {
		a.t.Fatal(err)
	}
	a.run()
	if err := a.Store.SetPolicy(context.Background(), a.fleet.policy); err != nil {
		a.t.Fatal(err)
	}
}

func (a *agent) run() {
	storeCtx, stopStore := context.WithCancel(context.Background())
	nodeCtx, stopNode := context.WithCancel(context.Background())
	storeDone, nodeDone := make(chan error, 1), make(chan error, 1)
	go func() { storeDone <- a.Store.Run(storeCtx) }()
	go func() { nodeDone <- a.node.Run(nodeCtx, a.replica()) }()
	a.stopped = func() {
		stopNode()
		if err := <-nodeDone; err != nil {
			a.t.Errorf("a%d: network: %v", a.place, err)
		}
		stopStore()
		if err := <-storeDone; err != nil {
			a.t.Errorf("a%d: store: %v", a.place, err)
		}
		if err := a.Store.Close(); err != nil {
			a.t.Errorf("a%d: close: %v", a.place, err)
		}
	}
}

func (a *agent) replica() p2p.Replica {
	if a.damage == nil {
		return a.Store
	}
	a.damage.Store = a.Store
	return a.damage
}

func (a *agent) running() bool { return a.stopped != nil }

// stop ends the agent cleanly. It may be called twice.
func (a *agent) stop() {
	if a.stopped != nil {
		a.stopped()
		a.stopped = nil
	}
}

func (a *agent) connected() (n int) {
	for _, p := range a.node.Peers() {
		if p.Connected {
			n++
		}
	}
	return n
}

// differ says in what way the running agents are not equal, or nothing.
func (f *fleet) differ() string {
	first := true
	var view, blocks [32]byte
	for _, a := range f.agents {
		if !a.running() {
			continue
		}
		s := a.Store.Stats()
		if first {
			view, blocks, first = s.ViewDigest, s.BlockDigest, false
		}
		if s.ViewDigest != view || s.BlockDigest != blocks || s.Missing > 0 {
			return fmt.Sprintf("a%d: %d entries, view %x, want %x, %d blocks, digest %x, want %x, %d missing, %d parked, %d peers",
				a.place, s.Entries, s.ViewDigest[:4], view[:4], s.Blocks, s.BlockDigest[:4], blocks[:4], s.Missing, s.Parked, a.connected())
		}
	}
	return ""
}

// tree gives what the agent shows.
func (a *agent) tree() map[string]string {
	a.t.Helper()
	n, err := a.Store.Snapshot()
	if err != nil {
		a.t.Fatal(err)
	}
	defer n.Close()
	tree := map[string]string{}
	if err := n.List("/", true, func(i crdtstore.Item) error {
		tree[i.Path] = string(i.Value)
		return nil
	}); err != nil {
		a.t.Fatal(err)
	}
	return tree
}

// within waits until nothing is left to say, in virtual time, and tells how long that took.
func within(limit time.Duration, say func() string) (took time.Duration, left string) {
	began := time.Now()
	for {
		if left = say(); left == "" || time.Since(began) > limit {
			return time.Since(began), left
		}
		time.Sleep(20 * time.Millisecond)
	}
}

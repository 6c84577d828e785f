package e2e

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sync/errgroup"

	"syncagent/acl"
	"syncagent/crdtstore"
	"syncagent/crdtstore/record"
	"syncagent/p2p"
)

// rogue is an agent in this process, made of the product's own parts by somebody who obeys no admin but himself.
type rogue struct {
	dir     string
	key     ed25519.PrivateKey
	network record.NetworkID
	store   *crdtstore.Store
	node    *p2p.Node
	liar    *liar
}

// liar serves entries with blocks with which an honest store would not, and counts what it is answered.
type liar struct {
	*crdtstore.Store
	smuggled map[record.Digest][][]byte // block -> entries

	mu      sync.Mutex
	answers map[record.AnswerStatus]map[record.Want]bool
	texts   [][]byte // policies that it hands on beside its own
	swaps   int      // times that its policies were looked at
	wanted  *record.Want
	told    chan record.Answer
	asked   map[record.PublicKey]bool
}

// offer hands a policy on.
func (l *liar) offer(text []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.texts = append(l.texts, text)
}

func (l *liar) swapped() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.swaps
}

func (l *liar) Policies() [][]byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.swaps++
	return append(slices.Clone(l.texts), l.Store.Policies()...)
}

// ask wants one entry of every peer, whatever its store says, and gives their answers.
func (l *liar) ask(w record.Want) <-chan record.Answer {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wanted, l.told, l.asked = &w, make(chan record.Answer, 8), map[record.PublicKey]bool{}
	return l.told
}

func (l *liar) Wants(peer record.PublicKey, limit int) []record.Want {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.wanted != nil && !l.asked[peer] {
		l.asked[peer] = true
		return []record.Want{*l.wanted}
	}
	return l.Store.Wants(peer, limit)
}

func (l *liar) Answered(ctx context.Context, from record.PublicKey, wants []record.Want, answers []record.Answer) error {
	l.mu.Lock()
	for i, a := range answers[:min(len(answers), len(wants))] {
		if l.answers[a.Status] == nil {
			l.answers[a.Status] = map[record.Want]bool{}
		}
		l.answers[a.Status][wants[i]] = true
		if l.wanted != nil && wants[i] == *l.wanted {
			l.told <- a
		}
	}
	l.mu.Unlock()
	return l.Store.Answered(ctx, from, wants, answers)
}

// answered counts the wants that were answered so.
func (l *liar) answered(status record.AnswerStatus) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.answers[status])
}

func (l *liar) Missing(ctx context.Context, have []record.Position, reader record.PublicKey, send func(record.Parcel) error) error {
	return l.Store.Missing(ctx, have, reader, func(p record.Parcel) error {
		p.Entries = append(p.Entries, l.smuggled[record.DigestOf(p.Block)]...)
		return send(p)
	})
}

func newKey(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// startRogue runs a rogue that dials the given addresses. The signed policy is its own work, by an admin that it pins.
func startRogue(t *testing.T, key ed25519.PrivateKey, network record.NetworkID, admin record.PublicKey, policy []byte, dial []string) *rogue {
	t.Helper()
	r := &rogue{dir: tempDir(t), key: key, network: network}
	var err error
	r.store, err = crdtstore.Open(crdtstore.Options{
		Dir: r.dir, Network: network, Key: key, Admins: []record.PublicKey{admin},
		OnCommit: func(blocks []record.Outgoing) {
			for _, b := range blocks {
				r.node.Publish(b)
			}
		},
		OnPolicy: func() { r.node.PolicyChanged() },
		OnWants:  func() { r.node.WantsChanged() },
	})
	if err != nil {
		t.Fatal(err)
	}
	r.liar = &liar{Store: r.store, smuggled: map[record.Digest][][]byte{}, answers: map[record.AnswerStatus]map[record.Want]bool{}}
	r.node, err = p2p.New(p2p.Options{Key: key, Network: network, Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Bootstrap: dial})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var g errgroup.Group
	g.Go(func() error { return r.store.Run(ctx) })
	g.Go(func() error { return r.node.Run(ctx, r.liar) })
	t.Cleanup(func() {
		cancel()
		if err := g.Wait(); err != nil {
			t.Error("rogue:", err)
		}
		if err := r.store.Close(); err != nil {
			t.Error("rogue:", err)
		}
	})
	if err := r.store.SetPolicy(ctx, policy); err != nil {
		t.Fatal(err)
	}
	return r
}

// write writes by the rogue's own policy. An empty value deletes.
func (r *rogue) write(t *testing.T, values map[string]string) {
	t.Helper()
	var ops []crdtstore.Op
	for path, value := range values {
		ops = append(ops, crdtstore.Op{Path: path, Value: []byte(value), Delete: value == ""})
	}
	ctx, cancel := within(t.Context())
	defer cancel()
	if _, err := r.store.Write(ctx, ops); err != nil {
		t.Fatal("rogue writes:", err)
	}
}

// forge makes a block by hand, of a write whose slot names tagged while the entry names path. Author signs the write,
// the rogue relays it.
func (r *rogue) forge(t *testing.T, author ed25519.PrivateKey, incarnation uint64, tagged, path, value string) {
	t.Helper()
	e := record.Entry{Kind: record.KindPut, Mode: 0o600, Path: path, Value: []byte(value)}
	w := &record.Write{
		Author: record.KeyOf(author), HLC: record.NewHLC(r.store.AgentTime()),
		Slots: []record.Slot{{Entry: e.ID(), Tags: r.network.Tags(tagged)}},
	}
	if !author.Equal(r.key) {
		w.Sign(author, r.network)
	}
	b := record.Bundle{Origin: record.KeyOf(r.key), Incarnation: incarnation, Seq: 1, Writes: []*record.Write{w}}
	links := []record.Digest{record.DigestOf(record.GenesisBlock(r.network, 0))}
	b.Sign(r.key, r.network, links)
	block := record.EncodeBlock(links, 2, b.Encode())
	r.liar.smuggled[record.DigestOf(block)] = [][]byte{e.Encode()}
	ctx, cancel := within(t.Context())
	defer cancel()
	parcel := record.Parcel{Block: block, Entries: [][]byte{e.Encode()}}
	in, err := r.store.Ingest(ctx, record.KeyOf(r.key), []record.Parcel{parcel})
	if err != nil || in.Invalid != nil || in.New != 1 {
		t.Fatalf("forged block: %+v, %v", in, err)
	}
	r.node.Publish(record.Outgoing{Block: block, Entries: []record.OutgoingEntry{{Tags: r.network.Tags(path), Bytes: e.Encode()}}})
}

// roguePolicy lets everybody named do everything, signed by an admin of the rogue's own.
func roguePolicy(network record.NetworkID, admin ed25519.PrivateKey, identities ...string) []byte {
	text := fmt.Sprintf("syncagent-policy 1\nnetwork %s\nserial 1000000\nformat 1\n%s\n* peer\n* / rw\n", network, strings.Join(identities, "\n"))
	return acl.Sign([]byte(text), network, admin)
}

// evil is part of every value that may be seen nowhere.
const evil = "written without a right"

// Mallory is a member that may write /public alone. Its agent does what it likes: it writes elsewhere, and relays what
// a stranger wrote.
func TestG6_HostileMember(t *testing.T) {
	f := newFleet(t, "a", "b")
	a, b := f.hosts[0], f.hosts[1]
	mirrored := a.mirror("/", a.trigger("/", `cat; grep -rl "`+evil+`" "$SYNCAGENT_DIR"`))
	malloryKey, ghostKey, clientKey, evilAdmin := newKey(t), newKey(t), newKey(t), newKey(t)
	identity := func(name string, key ed25519.PrivateKey) string {
		return "identity " + name + " " + record.KeyOf(key).String()
	}
	f.extra = []string{identity("mallory", malloryKey)}
	honest := []string{everything, "mallory peer", "mallory / read", "mallory /public write"}
	f.start()
	f.apply(honest...)
	f.connect()
	want := map[string]string{"/secure/key": "good", "/secure/kept": "good", "/public/old": "good", "/certs/web": "good"}
	a.mustBatch(want)
	f.converge()

	network, err := record.ParseNetworkID(a.status().Network)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{a.identity, b.identity, f.extra[0], identity("ghost", ghostKey), identity("client", clientKey)}
	policy, admin := roguePolicy(network, evilAdmin, names...), record.KeyOf(evilAdmin)
	var addrs []string
	for _, h := range f.hosts {
		addrs = append(addrs, h.addrs()...)
	}
	mallory := startRogue(t, malloryKey, network, admin, policy, addrs)
	ghost := startRogue(t, ghostKey, network, admin, policy, append(addrs, mallory.node.Addrs()...))
	same := func() error {
		digest := fmt.Sprintf("%x", mallory.store.BlockDigest())
		for _, h := range f.hosts {
			if s, err := h.tryStatus(); err != nil || s.BlockDigest != digest || s.Pending > 0 {
				return fmt.Errorf("%s has not the blocks of mallory, %w: %v", h.name, err, s)
			}
		}
		if ghost.store.BlockDigest() != mallory.store.BlockDigest() {
			return fmt.Errorf("the ghost has not the blocks of mallory")
		}
		return nil
	}
	eventually(t, same)

	// While all of them are connected, and while the honest ones are away; new paths, old ones, deletes, mixed batches.
	attack := func(round string) {
		mallory.write(t, map[string]string{"/secure/new" + round: evil})
		mallory.write(t, map[string]string{"/secure/key": evil + round})
		mallory.write(t, map[string]string{"/secure/kept": ""})
		mallory.write(t, map[string]string{"/public/mixed" + round: "allowed", "/certs/web": evil, "/certs/mixed" + round: evil})
		ghost.write(t, map[string]string{"/secure/ghost" + round: evil, "/public/ghost" + round: evil, "/certs/web": ""})
		n := uint64(len(round))
		mallory.forge(t, malloryKey, 100+n, "/public/disguise"+round, "/secure/disguise"+round, evil)
		mallory.forge(t, malloryKey, 200+n, "/secure/disguise"+round, "/public/disguise"+round, evil)
		mallory.forge(t, clientKey, 300+n, "/public/client"+round, "/public/client"+round, evil)
		mallory.write(t, map[string]string{"/public/last" + round: "allowed"})
		want["/public/mixed"+round], want["/public/last"+round] = "allowed", "allowed"
	}
	told := map[string]bool{} // paths that a watch or a trigger told of
	check := func(round string, watchers []*watcher) {
		t.Helper()
		eventually(t, same)
		for _, h := range f.hosts {
			eventually(t, func() error { return h.shows("/public/last"+round, "allowed") })
			sameValues(t, h, h.mustList("/"), want)
			if n := strings.TrimSpace(h.must("count", "/")); n != fmt.Sprint(len(want)) {
				t.Errorf("%s counts %s paths, want %d", h.name, n, len(want))
			}
			if got := h.must("get", "/secure/key"); got != "good" {
				t.Errorf("%s gets %q", h.name, got)
			}
			if _, _, code := h.cli("get", "/secure/new"); code != 3 {
				t.Errorf("%s: get of a path that nobody may have made: exit code %d", h.name, code)
			}
		}
		want["/done"+round] = "x"
		a.mustPut("/done"+round, "x") // a watch that tells of it has told of all that came before
		for _, w := range watchers {
			for _, e := range w.until(t, func(e event) bool { return e.Path == "/done"+round }) {
				told[e.Path] = true
			}
			w.stop()
		}
	}
	watchers := []*watcher{a.watch("/"), b.watch("/")}
	attack("")
	check("", watchers)
	a.kill()
	b.stop()
	attack("2")
	f.start()
	check("2", []*watcher{a.watch("/"), b.watch("/")})
	eventually(t, func() error { return sameFiles(mirrored, want) })
	for _, line := range a.lines() {
		told[line] = true
	}
	for path := range told {
		if _, ok := want[path]; !ok && path != "" {
			t.Errorf("a watch or a trigger told of %s", path)
		}
	}

	// The test sees what it looks for: where the admin allows what mallory wrote, it shows, and not what others wrote.
	f.apply(append(honest, "mallory /secure write")...)
	for _, h := range f.hosts {
		eventually(t, func() error { return h.shows("/secure/new2", evil) })
		if values := h.mustList("/"); values["/secure/key"] != evil+"2" || values["/secure/ghost"] != "" || values["/certs/web"] != "good" {
			t.Errorf("%s shows %v", h.name, values)
		}
	}
	f.apply(honest...)
	for _, h := range f.hosts {
		eventually(t, func() error { return h.shows("/secure/key", "good") })
		sameValues(t, h, h.mustList("/"), want)
	}
}

// addrs gives the addresses that the agent listens on.
func (h *host) addrs() (addrs []string) {
	h.t.Helper()
	for _, word := range strings.FieldsFunc(h.must("id", "-o", "json"), func(r rune) bool { return strings.ContainsRune(`"[],`, r) }) {
		if strings.HasPrefix(word, "/ip4/") {
			addrs = append(addrs, word)
		}
	}
	return addrs
}

// sameFiles says whether a mirror of / holds these values and nothing else.
func sameFiles(dir string, want map[string]string) error {
	found := 0
	err := filepath.WalkDir(dir, func(name string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasPrefix(d.Name(), ".syncagent") {
			return err
		}
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		path := strings.TrimPrefix(name, dir)
		if want[path] != string(b) {
			return fmt.Errorf("file %s holds %q, want %q", path, b, want[path])
		}
		found++
		return nil
	})
	if err == nil && found != len(want) {
		err = fmt.Errorf("%d files, want %d", found, len(want))
	}
	return err
}

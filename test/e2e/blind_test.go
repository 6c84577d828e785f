package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"connectrpc.com/connect"

	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore/record"
)

// window is how many bytes of a secret in a row count as found. Compression of the store's files may cut a secret into
// pieces, but hardly into pieces this small, and chance does not make so many.
const window = 8

// secrets makes path names and values that nobody else has, and finds them again.
type secrets struct {
	known map[[window]byte]string // part of a secret -> which
	count int
}

// of gives n random bytes that can stand in a path: letters, digits, and some more that no part of the product prints.
func (s *secrets) of(n int) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!$%^&()+=@~"
	b := make([]byte, n)
	_, _ = rand.Read(b) // it cannot fail
	for i := range b {
		b[i] = alphabet[int(b[i])%len(alphabet)]
	}
	s.count++
	for i := range n - window + 1 {
		s.known[[window]byte(b[i:])] = fmt.Sprintf("secret %d, byte %d", s.count, i)
	}
	return string(b)
}

// in searches all files below dir.
func (s *secrets) in(t *testing.T, dir string) (found map[string]bool) {
	t.Helper()
	found = map[string]bool{}
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.Type().IsRegular() {
			return nil
		}
		var b []byte
		if err == nil {
			b, err = os.ReadFile(name)
		}
		if os.IsNotExist(err) {
			return nil // compaction removes files
		}
		if err != nil {
			return err
		}
		b = bytes.TrimRight(b, "\x00") // files are made large beforehand
		for i := range len(b) - window + 1 {
			if which, ok := s.known[[window]byte(b[i:])]; ok {
				found[filepath.Base(name)+": "+which] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func (s *secrets) mustNotBeIn(t *testing.T, dir, when string) {
	t.Helper()
	if found := s.in(t, dir); len(found) > 0 {
		t.Errorf("%s: %s has %d parts of secrets: %.300v", when, dir, len(found), found)
	}
}

// Host c replicates, but may not read /secret. Its data directory holds no byte of it, whatever way blocks came.
func TestG7_BlindHostHoldsNoByte(t *testing.T) {
	f := startFleet(t, []string{"a / rw", "b / rw", "c /public rw"}, "a", "b", "c")
	a, b, c := f.hosts[0], f.hosts[1], f.hosts[2]
	s := secrets{known: map[[window]byte]string{}}
	blocks := func() {
		t.Helper()
		eventually(t, func() error {
			if err := equal(a, b); err != nil {
				return err
			}
			if x, y := a.status(), c.status(); x.BlockDigest != y.BlockDigest || y.MissingEntries > 0 || y.Pending > 0 {
				return fmt.Errorf("c has %d of %d blocks and lacks %d entries", y.Blocks, x.Blocks, y.MissingEntries)
			}
			return nil
		})
	}
	var paths []string
	write := func(h *host) {
		path := "/secret/" + s.of(20) + "/" + s.of(20)
		paths = append(paths, path)
		h.mustPut(path, s.of(100))
		h.mustPut(path, s.of(100)) // overwritten
		gone := "/secret/" + s.of(20)
		h.mustPut(gone, s.of(100))
		h.mustBatch(map[string]string{gone: ""})
		h.mustPut("/secret/"+s.of(20), s.of(100_000)) // too large for gossip
		h.mustBatch(map[string]string{
			"/public/" + h.name:    "readable",
			"/secret/" + s.of(20):  s.of(100),
			"/public/2/" + h.name:  "readable",
			"/secret/x/" + s.of(9): s.of(100),
		})
		mode := uint32(0o600)
		_, err := h.client.KV.Put(context.Background(), connect.NewRequest(&apiv1.PutRequest{Path: "/secret/" + s.of(20), Value: []byte(s.of(50)), Mode: &mode}))
		if err != nil {
			t.Fatal(err)
		}
	}
	write(a)
	write(b)
	blocks()
	s.mustNotBeIn(t, c.dir, "by gossip and push")

	c.stop()
	write(a)
	c.start()
	blocks()
	s.mustNotBeIn(t, c.dir, "by sync")

	c.kill()
	write(b)
	a.stop() // a blind host gets blocks from whoever has them, and gives them on
	c.start()
	eventually(t, func() error {
		if x, y := b.status(), c.status(); x.BlockDigest != y.BlockDigest {
			return fmt.Errorf("c has %d of %d blocks", y.Blocks, x.Blocks)
		}
		return nil
	})
	b.stop()
	a.start()
	eventually(t, func() error {
		if x, y := a.status(), c.status(); x.BlockDigest != y.BlockDigest {
			return fmt.Errorf("a has %d of %d blocks", x.Blocks, y.Blocks)
		}
		return nil
	})
	b.start()
	blocks()

	for _, path := range paths {
		if out, _, code := c.cli("get", path); code != 4 || out != "" {
			t.Errorf("get of a secret on c: exit code %d, %q", code, out)
		}
	}
	public := c.mustList("/")
	if len(public) != 4 || c.status().WithheldEntries == 0 {
		t.Errorf("c shows %v, %d withheld", public, c.status().WithheldEntries)
	}
	for _, h := range f.hosts {
		h.stop() // what is in memory goes to the files
	}
	s.mustNotBeIn(t, c.dir, "at the end")
	if found := s.in(t, b.dir); len(found) < s.count*20 {
		t.Errorf("the search finds only %d parts of %d secrets on b, which holds them", len(found), s.count)
	}
}

// An honest agent keeps nothing that it may not read, so the test above does not show what it was sent. This member takes
// and keeps all it can get, and asks for the rest.
func TestG7_HostileMemberIsSentNothing(t *testing.T) {
	f := newFleet(t, "a", "b")
	a, b := f.hosts[0], f.hosts[1]
	key, admin := newKey(t), newKey(t)
	mallory := "identity mallory " + record.KeyOf(key).String()
	f.extra = []string{mallory}
	f.start()
	f.apply(everything, "mallory peer", "mallory /public read")
	f.connect()
	s := secrets{known: map[[window]byte]string{}}
	written := 0
	write := func(h *host) {
		h.mustPut("/secret/"+s.of(20), s.of(100))
		h.mustPut("/secret/"+s.of(20), s.of(100_000))
		h.mustBatch(map[string]string{"/secret/" + s.of(20): s.of(100), "/public/" + h.name: "readable"})
		written += 3
	}
	write(a)
	network, err := record.ParseNetworkID(a.status().Network)
	if err != nil {
		t.Fatal(err)
	}
	policy := roguePolicy(network, admin, a.identity, b.identity, mallory)
	r := startRogue(t, key, network, record.KeyOf(admin), policy, append(a.addrs(), b.addrs()...))
	same := func() error {
		st, err := a.tryStatus()
		if err == nil && st.BlockDigest != fmt.Sprintf("%x", r.store.BlockDigest()) {
			err = fmt.Errorf("mallory has other blocks than a")
		}
		return err
	}
	eventually(t, same)
	write(a) // now by gossip and push
	write(b)
	f.converge()
	eventually(t, same)
	s.mustNotBeIn(t, r.dir, "by sync, gossip and push")
	if t.Failed() {
		return // what it was sent it will not ask for
	}
	eventually(t, func() error {
		if n := r.liar.answered(record.Denied); n < written {
			return fmt.Errorf("%d of %d wants are denied", n, written)
		}
		return nil
	})
	s.mustNotBeIn(t, r.dir, "after it asked for everything")
	snapshot, err := r.store.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer snapshot.Close()
	// Batches of which it lacks an entry do not show, so nothing does; but what it may read came.
	if n, err := snapshot.Count("/secret"); n != 0 || err != nil {
		t.Errorf("mallory shows %d secrets, %v", n, err)
	}
	eventually(t, func() error {
		if found, err := contains(r.dir, []byte("/public/a")); !found || err != nil {
			return fmt.Errorf("mallory was not sent what it may read: %v", err)
		}
		return nil
	})
}

// contains tells whether a file below dir holds these bytes.
func contains(dir string, b []byte) (found bool, err error) {
	err = filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(name)
		found = found || bytes.Contains(content, b)
		return err
	})
	return found, err
}

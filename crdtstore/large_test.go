package crdtstore

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"syncagent/crdtstore/record"
)

// largeValue makes n bytes that a seed determines.
func largeValue(seed uint64, n int) string {
	b := make([]byte, n)
	for r, i := rand.New(rand.NewPCG(seed, 3)), 0; i < n; i++ {
		b[i] = byte('a' + r.IntN(26))
	}
	return string(b)
}

func (nd *node) upload(path, value string) *Upload {
	nd.t.Helper()
	u, err := nd.Upload(context.Background(), path, strings.NewReader(value))
	if err != nil {
		nd.t.Fatalf("%s: upload: %v", nd.name, err)
	}
	nd.t.Cleanup(u.Close)
	return u
}

// putLarge writes values of any size as one write.
func (nd *node) putLarge(pathsAndValues ...string) record.Version {
	nd.t.Helper()
	var ops []Op
	for i := 0; i < len(pathsAndValues); i += 2 {
		u := nd.upload(pathsAndValues[i], pathsAndValues[i+1])
		defer u.Close()
		ops = append(ops, Op{Path: pathsAndValues[i], Upload: u})
	}
	v, err := nd.Write(context.Background(), ops)
	if err != nil {
		nd.t.Fatalf("%s: put large: %v", nd.name, err)
	}
	return v
}

// chunkCount waits for so many chunks: the store's own goroutine may be in the middle of removing some.
func (nd *node) chunkCount(want int) (got int) {
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if got = len(nd.disk.chunks.refs()); got == want || time.Now().After(deadline) {
			return got
		}
	}
}

func TestLargeValueIsReadBack(t *testing.T) {
	_, a, _, _ := three(t, 1)
	for _, size := range []int{0, 1, record.ChunkSize, record.ChunkSize + 1, 3 * record.ChunkSize, 3*record.ChunkSize + 17} {
		value := largeValue(uint64(size), size)
		a.putLarge("/p/x", value)
		if got := a.get("/p/x"); got != value {
			t.Errorf("%d bytes come back as %d", size, len(got))
		}
		n, err := a.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		item, err := n.Get("/p/x", true)
		n.Close()
		if err != nil || item.Size != int64(size) || (item.Chunks != nil) != (size > record.MaxInlineValue) {
			t.Errorf("%d bytes: %+v, %v", size, item, err)
		}
	}
}

// TestUploadOverTheLimitLeavesNothing holds that what is too large, or breaks off, is refused and its chunks go.
func TestUploadOverTheLimitLeavesNothing(t *testing.T) {
	_, a, _, _ := three(t, 1)
	a.LimitValues(1 << 20)
	_, err := a.Upload(context.Background(), "/p/x", strings.NewReader(largeValue(1, 1<<20+1)))
	if !errors.Is(err, ErrTooLarge) {
		t.Errorf("over the limit: %v", err)
	}
	broken := errors.New("broken off")
	_, err = a.Upload(context.Background(), "/p/x", &failingReader{strings.NewReader(largeValue(1, 1<<20)), broken})
	if !errors.Is(err, broken) {
		t.Errorf("broken off: %v", err)
	}
	a.tended()
	if n := a.chunkCount(0); n != 0 {
		t.Errorf("%d chunks are left", n)
	}
}

// failingReader fails where the text ends.
type failingReader struct {
	*strings.Reader
	err error
}

func (r *failingReader) Read(p []byte) (int, error) {
	if r.Len() == 0 {
		return 0, r.err
	}
	return r.Reader.Read(p)
}

// TestG5_BatchWithALargeValueIsAllOrNothing holds that a write shows nowhere before all chunks of it have come.
func TestG5_BatchWithALargeValueIsAllOrNothing(t *testing.T) {
	_, a, b, _ := three(t, 1)
	a.put("/p/small", "before")
	b.pull(a)
	value := largeValue(1, 5*record.ChunkSize)
	a.putLarge("/p/large", value, "/p/small", "after")
	b.pull(a)
	if got := b.tree(); got != "/p/small=before " {
		t.Fatalf("without the chunks b shows %.100q", got)
	}
	s, err := b.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	held, err := s.Holds(b.network.PathKey("/p/small"), mustShow(t, a, "/p/small"))
	s.Close()
	if held || err != nil {
		t.Errorf("b says that it holds the write: %v", err)
	}
	b.tended()
	wants := b.ChunkWants(a.self, 4)
	for _, w := range wants {
		if err := b.TakeChunk(context.Background(), a.self, w, a.ServeChunk(b.self, w)); err != nil {
			t.Fatal(err)
		}
	}
	b.tended()
	if got := b.get("/p/small"); got != "before" {
		t.Fatalf("with %d chunks of 5 b shows %q", len(wants), got)
	}
	if n := b.fetchChunks(a); n != 1 {
		t.Errorf("%d chunks were fetched after 4 of 5", n)
	}
	if b.get("/p/small") != "after" || b.get("/p/large") != value {
		t.Errorf("with all chunks b shows %.100q", b.tree())
	}
}

func mustShow(t *testing.T, nd *node, path string) record.Version {
	t.Helper()
	n, err := nd.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	item, err := n.Get(path, false)
	if err != nil {
		t.Fatal(err)
	}
	return item.Version
}

// TestFetchOfALargeValueResumes holds that chunks which came before a crash are not fetched again.
func TestFetchOfALargeValueResumes(t *testing.T) {
	n, a, b, _ := three(t, 1)
	value := largeValue(2, 8*record.ChunkSize)
	a.putLarge("/p/large", value)
	b.pull(a)
	b.tended()
	for _, w := range b.ChunkWants(a.self, 5) {
		if err := b.TakeChunk(context.Background(), a.self, w, a.ServeChunk(b.self, w)); err != nil {
			t.Fatal(err)
		}
	}
	b.stop()
	b = n.start("b", b.disk.powerCut(1<<30))
	if got := b.fetchChunks(a); got != 3 {
		t.Errorf("%d chunks were fetched after the restart, 3 lacked", got)
	}
	if b.get("/p/large") != value {
		t.Error("the value is not what it was")
	}
}

// TestChunksAreShared holds that the versions of a path store a chunk once, that it stays while a version that is kept
// needs it, and goes with the last one. Two paths share nothing.
func TestChunksAreShared(t *testing.T) {
	n, a, b, _ := three(t, 1)
	common := largeValue(3, 4*record.ChunkSize)
	a.putLarge("/p/one", common+"1")
	a.putLarge("/p/one", common+"2")
	if got := a.chunkCount(6); got != 6 {
		t.Errorf("%d chunks for 4 shared ones and 2 ends", got)
	}
	a.putLarge("/p/two", common+"2")
	meet(a, b)
	if got := b.fetchChunks(a); got != 10 {
		t.Errorf("%d chunks were fetched for two versions that are shown", got)
	}
	if b.get("/p/one") != common+"2" || b.get("/p/two") != common+"2" {
		t.Error("b does not show both")
	}
	n.clock.advance(8 * 24 * time.Hour)
	a.putLarge("/p/one", common+"3")
	for range 3 {
		a.tended()
	}
	if got := a.chunkCount(5 + 6); got != 5+6 || a.get("/p/one") != common+"3" {
		t.Errorf("%d chunks, those of two versions of one path and of the other path are 11", got)
	}
	if _, err := a.Write(context.Background(), []Op{{Path: "/p/one", Delete: true}, {Path: "/p/two", Delete: true}}); err != nil {
		t.Fatal(err)
	}
	n.clock.advance(8 * 24 * time.Hour)
	a.put("/p/one", "small")
	a.put("/p/two", "small")
	for range 3 {
		a.tended()
	}
	if got := a.chunkCount(0); got != 0 {
		t.Errorf("%d chunks are left that nobody needs", got)
	}
}

// TestG7_NamingAChunkGivesNothing holds that who knows the ID of a chunk is not given it by naming it in an entry.
func TestG7_NamingAChunkGivesNothing(t *testing.T) {
	n := newTestNet(t, 1)
	policy := n.policy([]string{"a", "c"}, "a / rw", "c /open rw", "* peer")
	a, c := n.start("a", nil), n.start("c", nil)
	a.apply(policy)
	c.apply(policy)
	a.putLarge("/secret/x", largeValue(5, 2*record.ChunkSize))
	u := c.upload("/open/y", largeValue(6, 2*record.ChunkSize))
	for i, ref := range a.disk.chunks.refs() {
		u.list.Chunks[i] = ref.id
	}
	if _, err := c.Write(context.Background(), []Op{{Path: "/open/y", Upload: u}}); err != nil {
		t.Fatal(err)
	}
	a.pull(c)
	a.tended()
	want := record.ChunkWant{PathKey: n.id.PathKey("/open/y"), Version: mustShow(t, c, "/open/y"), Chunk: u.list.Chunks[0]}
	if got := a.ServeChunk(c.self, want); got.Status != record.NotHere {
		t.Errorf("c got status %d", got.Status)
	}
	if got := a.get("/open/y"); got != "-" {
		t.Errorf("a shows %d bytes at the path of c", len(got))
	}
}

// TestUploadOfAChunkThatIsJustDropped holds that an upload keeps what it found here.
func TestUploadOfAChunkThatIsJustDropped(t *testing.T) {
	n, a, _, _ := three(t, 1)
	value := largeValue(4, 2*record.ChunkSize)
	a.putLarge("/p/x", value)
	u := a.upload("/p/x", value)
	if _, err := a.Write(context.Background(), []Op{{Path: "/p/x", Delete: true}}); err != nil {
		t.Fatal(err)
	}
	n.clock.advance(8 * 24 * time.Hour)
	a.put("/p/x", "something")
	a.tended()
	a.tended()
	if _, err := a.Write(context.Background(), []Op{{Path: "/p/x", Upload: u}}); err != nil {
		t.Fatal(err)
	}
	u.Close()
	a.tended()
	if a.get("/p/x") != value {
		t.Error("the value is not what it was")
	}
	a.stop()
	a = n.start("a", a.disk.powerCut(1<<30))
	if a.get("/p/x") != value {
		t.Error("the value is not what it was after a restart")
	}
}

// TestG7_LargeValueStaysWhereItMayBeRead holds that no chunk goes to, or stays with, who may not read it.
func TestG7_LargeValueStaysWhereItMayBeRead(t *testing.T) {
	n := newTestNet(t, 1)
	names := []string{"a", "b", "c"}
	policy := n.policy(names, "a / rw", "b / read", "c /open rw", "* peer")
	a, b, c := n.start("a", nil), n.start("b", nil), n.start("c", nil)
	for _, x := range []*node{a, b, c} {
		x.apply(policy)
	}
	secret := largeValue(5, 3*record.ChunkSize)
	a.putLarge("/secret/x", secret)
	needle := []byte(secret[record.ChunkSize+10 : record.ChunkSize+40])
	meet(a, b, c)
	b.fetchChunks(a)
	c.fetchChunks(a)
	if !b.disk.has(needle) || c.disk.has(needle) {
		t.Fatalf("on disk: b %v, c %v", b.disk.has(needle), c.disk.has(needle))
	}
	var wants []record.ChunkWant
	for _, ref := range b.disk.chunks.refs() {
		wants = append(wants, record.ChunkWant{PathKey: ref.path, Version: mustShow(t, a, "/secret/x"), Chunk: ref.id})
	}
	c.putLarge("/open/y", largeValue(6, 2*record.ChunkSize))
	a.pull(c)
	for _, w := range wants {
		if got := a.ServeChunk(c.self, w); got.Status != record.Denied {
			t.Errorf("c got status %d for a chunk of what it may not read", got.Status)
		}
		w.PathKey, w.Version = n.id.PathKey("/open/y"), mustShow(t, c, "/open/y")
		if got := a.ServeChunk(c.self, w); got.Status != record.NotHere {
			t.Errorf("c got status %d for a chunk under a path of its own that does not have it", got.Status)
		}
	}
	b.apply(n.policy(names, "a / rw", "b /open read", "c /open rw", "* peer"))
	b.tended()
	if b.disk.has(needle) || b.get("/secret/x") != "-" {
		t.Error("b still has what it may no longer read")
	}
	if a.get("/secret/x") != secret {
		t.Error("a lost its own")
	}
}

// TestLostChunkIsFetchedAgain holds that a damaged chunk gives an error and an alarm, never wrong bytes nor an older
// version, and that it comes back from a peer.
func TestLostChunkIsFetchedAgain(t *testing.T) {
	for _, harm := range []string{"flip", "remove", "remove before a start"} {
		n, a, b, _ := three(t, 1)
		a.put("/p/x", "older")
		value := largeValue(7, 3*record.ChunkSize)
		a.putLarge("/p/x", value)
		meet(a, b)
		b.fetchChunks(a)
		ref := b.disk.chunks.refs()[1]
		if harm == "flip" {
			b.disk.chunks.files[ref][7] ^= 1
		} else {
			delete(b.disk.chunks.files, ref)
		}
		if harm == "remove before a start" {
			b.stop()
			b = n.start("b", b.disk.powerCut(1<<30))
		}
		s, err := b.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		item, err := s.Get("/p/x", true)
		s.Close()
		if err != nil || item.Size != int64(len(value)) {
			t.Fatalf("%s: %+v, %v", harm, item, err)
		}
		if got, err := b.content(&item); !errors.Is(err, ErrCorrupt) || !strings.HasPrefix(value, got) {
			t.Errorf("%s: read gives %d bytes and %v", harm, len(got), err)
		}
		if !b.alarmed("corrupt") {
			t.Errorf("%s: no alarm", harm)
		}
		b.inbox <- &chunkNews{ref.path, item.Version, false} // noted when the value was complete, and late
		b.tended()
		if got := b.fetchChunks(a); got != 1 || b.get("/p/x") != value {
			t.Errorf("%s: %d chunks were fetched again", harm, got)
		}
		if b.Stats().Missing != 0 {
			t.Errorf("%s: %d entries are still wanted", harm, b.Stats().Missing)
		}
		a.stop()
		b.stop()
	}
}

// TestLargeValueExpires holds that of an expired value a stub is left, here and where its chunks never came.
func TestLargeValueExpires(t *testing.T) {
	n, a, b, _ := three(t, 1)
	a.put("/p/x", "older")
	meet(a, b)
	u := a.upload("/p/x", largeValue(8, 3*record.ChunkSize))
	ops := []Op{{Path: "/p/x", Upload: u, Expires: time.UnixMilli(n.clock.wall).Add(time.Minute)}}
	if _, err := a.Write(context.Background(), ops); err != nil {
		t.Fatal(err)
	}
	u.Close()
	b.pull(a)
	b.tended()
	if b.get("/p/x") != "older" {
		t.Errorf("b shows %q", b.get("/p/x"))
	}
	n.clock.advance(2 * time.Minute)
	for _, x := range []*node{a, b} {
		x.put("/p/tick", "x")
		x.tended()
		if x.get("/p/x") != "-" || x.chunkCount(0) != 0 || x.Stats().Missing != 0 {
			t.Errorf("%s shows %.20q, has %d chunks, wants %d", x.name, x.get("/p/x"), x.chunkCount(0), x.Stats().Missing)
		}
	}
	meet(a, b)
	if a.tree() != b.tree() || a.Stats().ViewDigest != b.Stats().ViewDigest {
		t.Error("a and b differ")
	}
}

// TestLargeValueOnDisk holds that chunks lie in files, that a rebuild of a damaged store carries them over, and that a
// start removes what nobody needs.
func TestLargeValueOnDisk(t *testing.T) {
	n := newTestNet(t, 1)
	dir := t.TempDir()
	a := n.startOn("a", nil, dir)
	a.apply(n.openPolicy())
	old, value := largeValue(9, 2*record.ChunkSize), largeValue(10, 3*record.ChunkSize)
	first := a.putLarge("/p/x", old)
	a.putLarge("/p/x", value)
	a.stop()
	orphan, half := strings.Repeat("ab", 32)+"-"+strings.Repeat("cd", 16), filepath.Join(dir, "chunks", "ab", newChunk+"123")
	if err := os.MkdirAll(filepath.Dir(half), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{filepath.Join(dir, "chunks", "ab", orphan), half} {
		if err := os.WriteFile(name, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "store", rebuildMark), []byte("for a test"), 0o600); err != nil {
		t.Fatal(err)
	}
	a = n.startOn("a", nil, dir)
	if a.get("/p/x") != value {
		t.Error("the value is not what it was")
	}
	files, err := filepath.Glob(filepath.Join(dir, "chunks", "*", "*"))
	if err != nil || len(files) != 5 {
		t.Errorf("%d files of 5 chunks, %v", len(files), err)
	}
	for _, f := range files {
		if info, err := os.Stat(f); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", f, info, err)
		}
	}
	s, err := a.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	items, err := s.History("/p/x", true)
	if err != nil || len(items) != 2 || items[1].Version.Write != first.Write {
		t.Fatalf("history %+v, %v", items, err)
	}
	u, err := a.Reuse(&items[1])
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	if _, err := a.Write(context.Background(), []Op{{Path: "/p/x", Upload: u}}); err != nil {
		t.Fatal(err)
	}
	if a.get("/p/x") != old {
		t.Error("the restored value is not what it was")
	}
}

// TestRelayOfALargeValueNeedsItsChunks holds that a client's write is taken only with all chunks of its values.
func TestRelayOfALargeValueNeedsItsChunks(t *testing.T) {
	_, a, _, _ := three(t, 1)
	u := a.upload("/p/x", largeValue(11, 2*record.ChunkSize))
	e := &record.Entry{Kind: record.KindChunked, Path: "/p/x", Value: u.list.Encode()}
	e.Salt[0] = 1
	hlc, err := a.HLCFor([]string{e.Path})
	if err != nil {
		t.Fatal(err)
	}
	w := &record.Write{Author: record.KeyOf(testKey("b")), HLC: hlc, Slots: []record.Slot{{Entry: e.ID(), Tags: a.network.Tags(e.Path)}}}
	w.Sign(testKey("b"), a.network)
	ref := u.pins[1]
	data, _ := a.disk.chunks.Get(ref, nil)
	if err := a.disk.chunks.Remove(ref); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Relay(context.Background(), w, [][]byte{e.Encode()}); !errors.Is(err, record.ErrFormat) {
		t.Errorf("without a chunk: %v", err)
	}
	if err := a.disk.chunks.Put(ref, data); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Relay(context.Background(), w, [][]byte{e.Encode()}); err != nil {
		t.Fatal(err)
	}
	u.Close()
	a.tended()
	if got := a.get("/p/x"); !bytes.Equal([]byte(got), []byte(largeValue(11, 2*record.ChunkSize))) {
		t.Errorf("it shows %d bytes", len(got))
	}
}

package p2p

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"syncagent/crdtstore/record"
)

// shelf lists entries; what lies below /private is for nobody else.
type shelf struct {
	mu sync.Mutex
	of map[string]record.Version
}

func (l *shelf) list(_ record.PublicKey, fn func(Shown) error) (withheld int64, err error) {
	l.mu.Lock()
	of := maps.Clone(l.of)
	l.mu.Unlock()
	for path, v := range of {
		if record.Covers("/private", path) {
			withheld++
		} else if err := fn(Shown{path, v}); err != nil {
			return 0, err
		}
	}
	return withheld, nil
}

func (l *shelf) set(change func(map[string]record.Version)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(l.of)
}

// TestCompare holds that a comparison tells exactly the paths that differ, in order, whatever they are, and nothing of
// what the other side may not read.
func TestCompare(t *testing.T) {
	ka, kb := testKey(t), testKey(t)
	policy := &fakePolicy{Number: 1, Keys: []record.PublicKey{record.KeyOf(ka), record.KeyOf(kb)}}
	la, lb := shelf{of: map[string]record.Version{}}, shelf{of: map[string]record.Version{}}
	a := start(t, "a", newFake(ka, policy), Options{Listing: la.list})
	b := start(t, "b", newFake(kb, policy), Options{Listing: lb.list, Bootstrap: a.node.Addrs()})
	eventually(t, equal(a, b), "equal")
	eventually(t, func() bool { return connectedPeers(a) == 1 }, "connected")
	for i := range 3000 {
		path := fmt.Sprintf("/k/%d", i)
		la.of[path] = record.Version{HLC: record.HLC(i + 1)}
		lb.of[path] = la.of[path]
	}
	la.of["/private/a"], lb.of["/private/b"] = record.Version{HLC: 1}, record.Version{HLC: 2}
	c, err := a.node.Compare(t.Context(), b.self)
	if err != nil || len(c.Paths) > 0 || !c.SameBlocks || !c.SamePolicy || !c.Settled || c.Here != 3000 || c.There != 3000 || c.Withheld != 1 {
		t.Fatalf("equal: %+v, %v", c, err)
	}
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 0))
	want := map[string]Difference{}
	for range 1 + random.IntN(200) {
		path := fmt.Sprintf("/k/%d", random.IntN(3300))
		d := Difference{Path: path, Here: la.of[path], There: lb.of[path]}
		next := record.Version{HLC: record.HLC(5000 + random.IntN(5000))}
		switch random.IntN(3) {
		case 0:
			d.Here = next
			la.set(func(of map[string]record.Version) { of[path] = next })
		case 1:
			d.There = next
			lb.set(func(of map[string]record.Version) { of[path] = next })
		default:
			d.There = record.Version{}
			lb.set(func(of map[string]record.Version) { delete(of, path) })
		}
		if delete(want, path); d.Here != d.There {
			want[path] = d
		}
	}
	c, err = a.node.Compare(t.Context(), b.self)
	sorted := slices.SortedFunc(maps.Values(want), func(x, y Difference) int { return strings.Compare(x.Path, y.Path) })
	if err != nil || c.More || !reflect.DeepEqual(append([]Difference(nil), c.Paths...), sorted) {
		t.Errorf("seed %d: %v\nfound %v\nwant  %v", seed, err, c.Paths, sorted)
	}
	if _, err := a.node.Compare(t.Context(), record.KeyOf(testKey(t))); err == nil {
		t.Error("a stranger is compared")
	}
}

// TestG10_ComparisonThatIsNotRead: a member asks for all that is shown and does not read the answer. Another member's
// comparison is answered meanwhile.
func TestG10_ComparisonThatIsNotRead(t *testing.T) {
	ka, kb, kx := testKey(t), testKey(t), testKey(t)
	policy := &fakePolicy{Number: 1, Keys: []record.PublicKey{record.KeyOf(ka), record.KeyOf(kb), record.KeyOf(kx)}}
	begun, ended := make(chan struct{}), make(chan struct{})
	listing := func(reader record.PublicKey, fn func(Shown) error) (int64, error) {
		if reader != record.KeyOf(kx) {
			return 0, fn(Shown{"/shown", record.Version{HLC: 1}})
		}
		close(begun)
		defer close(ended)
		for { // without an end: that it stalls does not depend on what a connection holds
			e := Shown{"/a", record.Version{HLC: record.HLC(rand.Uint64())}}
			for i := range e.Version.Write {
				e.Version.Write[i] = byte(rand.Uint64())
			}
			if err := fn(e); err != nil {
				return 0, err
			}
		}
	}
	a := start(t, "a", newFake(ka, policy), Options{Listing: listing})
	b := start(t, "b", newFake(kb, policy), Options{Listing: listing, Bootstrap: a.node.Addrs()})
	x := start(t, "x", newFake(kx, policy), Options{Bootstrap: a.node.Addrs()})
	eventually(t, func() bool { return connectedPeers(a) == 2 && connectedPeers(b) > 0 }, "all connect")
	f := sneak(t, x, a, protoSync)
	if err := f.write(frameCompare, bytes.Repeat([]byte{0xff}, buckets/8)); err != nil {
		t.Fatal(err)
	}
	<-begun
	if _, err := b.node.Compare(t.Context(), a.self); err != nil {
		t.Errorf("beside a comparison that is not read: %v", err)
	}
	select {
	case <-ended:
		t.Error("x's answer had an end")
	default:
	}
	_ = f.s.(interface{ Reset() error }).Reset()
	<-ended
}

// TestG10_CompareGarbage holds that malformed steps of a comparison are refused on both sides.
func TestG10_CompareGarbage(t *testing.T) {
	hs := cluster(t, 2)
	f := sneak(t, hs[1], hs[0], protoSync)
	if err := f.write(frameCompare, make([]byte, 7)); err != nil {
		t.Fatal(err)
	}
	if kind, _, err := f.read(time.Minute); err == nil || err == io.EOF {
		t.Errorf("answered by frame %d, %v", kind, err)
	}
	good := (&shownBuckets{}).encode()
	for _, bad := range [][]byte{nil, good[:len(good)-3], compress(nil), compress(make([]byte, buckets*bucketSize)), compress(make([]byte, buckets*bucketSize+98))} {
		if _, err := parseBuckets(bad); err == nil {
			t.Errorf("%.20x is read", bad)
		}
	}
	for _, bad := range [][]byte{nil, compress([]byte{1}), compress(append(make([]byte, 42), 3, 'x', '/', '/'))} {
		if list, err := parseListed(bad); err == nil && len(list) > 0 {
			t.Errorf("%.20x is read", bad)
		}
	}
}

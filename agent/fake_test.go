package agent

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"syncagent/acl"
	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore"
	"syncagent/crdtstore/record"
	"syncagent/p2p"
)

// fakeStore is a map with a log of events.
type fakeStore struct {
	mu      sync.Mutex
	self    record.PublicKey
	items   map[string]crdtstore.Item
	events  []crdtstore.Event
	changed chan struct{} // closed and replaced at every change
	clock   record.HLC
	policy  policy
	text    []byte
	fail    error // what Write returns, if set
	listed  atomic.Int64
	relayed []*record.Write
}

func newFakeStore() *fakeStore {
	f := &fakeStore{items: map[string]crdtstore.Item{}, changed: make(chan struct{}), clock: 1 << 16, policy: fakePolicy{serial: 1}}
	f.self[0] = 9
	return f
}

// fakePolicy lets everything be read but what lies below one of the prefixes.
type fakePolicy struct {
	serial uint64
	denied []string
}

func (p fakePolicy) MayReadPath(_ record.PublicKey, path string) bool {
	return !slices.ContainsFunc(p.denied, func(d string) bool { return record.Covers(d, path) })
}
func (p fakePolicy) MayWritePath(k record.PublicKey, path string) bool { return p.MayReadPath(k, path) }
func (fakePolicy) MaySubjectRead(string, string) bool                  { return false }
func (fakePolicy) Known(record.PublicKey) bool                         { return true }
func (fakePolicy) Live(record.PublicKey) bool                          { return true }
func (fakePolicy) KeyOf(string) (k record.PublicKey, ok bool)          { return k, false }
func (fakePolicy) Alias(record.PublicKey) string                       { return "web1" }
func (p fakePolicy) Serial() uint64                                    { return p.serial }
func (p fakePolicy) Hash() [32]byte                                    { return sha256.Sum256([]byte{byte(p.serial)}) }

func (f *fakeStore) Write(_ context.Context, ops []crdtstore.Op) (record.Version, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return record.Version{}, f.fail
	}
	f.clock++
	v := record.Version{HLC: f.clock}
	for _, op := range ops {
		shown, there := f.items[op.Path]
		if op.MustExist && !there {
			return v, fmt.Errorf("delete %s: %w", op.Path, crdtstore.ErrNotFound)
		}
		if op.IfVersion != nil {
			want := *op.IfVersion
			if want.Index == crdtstore.AnyIndex {
				want.Index = shown.Version.Index
			}
			if want != shown.Version {
				return v, fmt.Errorf("write %s: %w", op.Path, crdtstore.ErrPrecondition)
			}
		}
	}
	for i, op := range ops {
		item := crdtstore.Item{
			Path: op.Path, Version: record.Version{HLC: f.clock, Index: uint16(i)}, Author: f.self,
			Mode: op.Mode, Expires: op.Expires, Size: int64(len(op.Value)), Value: bytes.Clone(op.Value),
		}
		e := crdtstore.Event{Type: crdtstore.EventPut, More: i < len(ops)-1, Item: item}
		f.items[op.Path] = item
		if op.Delete {
			delete(f.items, op.Path)
			e.Type, e.Item.Deleted = crdtstore.EventDelete, true
		}
		f.events = append(f.events, e)
	}
	f.ring()
	return v, nil
}

// Upload and Reuse are for large values, which tests of the API give a real store.
func (f *fakeStore) Upload(_ context.Context, path string, r io.Reader) (*crdtstore.Upload, error) {
	if _, err := io.Copy(io.Discard, r); err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("upload %s: %w", path, crdtstore.ErrTooLarge)
}

func (f *fakeStore) Reuse(*crdtstore.Item) (*crdtstore.Upload, error) {
	return nil, crdtstore.ErrNotFound
}

func (f *fakeStore) Content(i *crdtstore.Item) io.ReadCloser {
	return io.NopCloser(bytes.NewReader(i.Value))
}

func (f *fakeStore) ring() {
	close(f.changed)
	f.changed = make(chan struct{})
}

type fakeSnapshot struct {
	items  map[string]crdtstore.Item
	cursor string
	listed *atomic.Int64
	events []crdtstore.Event
}

func (f *fakeStore) Snapshot() (snapshot, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &fakeSnapshot{maps.Clone(f.items), fmt.Sprint(len(f.events)), &f.listed, slices.Clone(f.events)}, nil
}

func (s *fakeSnapshot) Get(path string, value bool) (crdtstore.Item, error) {
	item, ok := s.items[path]
	if !ok {
		return item, fmt.Errorf("get %s: %w", path, crdtstore.ErrNotFound)
	}
	if !value {
		item.Value = nil
	}
	return item, nil
}

func (s *fakeSnapshot) List(prefix string, values bool, fn func(crdtstore.Item) error) error {
	for _, path := range slices.Sorted(maps.Keys(s.items)) {
		if !record.Covers(prefix, path) {
			continue
		}
		item, err := s.Get(path, values)
		if err != nil {
			return err
		}
		value := bytes.Clone(item.Value)
		item.Value = value
		s.listed.Add(1)
		if err := fn(item); err != nil {
			return err
		}
		clear(value) // the real store's bytes are only good until fn returns
	}
	return nil
}

func (s *fakeSnapshot) Count(prefix string) (n int64, err error) {
	return n, s.List(prefix, false, func(crdtstore.Item) error { n++; return nil })
}

func (s *fakeSnapshot) History(path string, values bool) (list []crdtstore.Item, err error) {
	for _, e := range slices.Backward(s.events) {
		if e.Item.Path != path {
			continue
		}
		if !values {
			e.Item.Value = nil
		}
		list = append(list, e.Item)
	}
	if len(list) == 0 {
		err = fmt.Errorf("%s: %w", path, crdtstore.ErrNotFound)
	}
	return list, err
}

func (s *fakeSnapshot) Recent(limit int) (list []crdtstore.Event, err error) {
	for _, e := range slices.Backward(s.events) {
		if len(list) < limit {
			list = append(list, e)
		}
	}
	return list, nil
}

func (s *fakeSnapshot) Cursor() string { return s.cursor }
func (*fakeSnapshot) Close()           {}

func (f *fakeStore) Watch(ctx context.Context, o watchOptions, fn func(crdtstore.Event) error) error {
	next := 0
	if o.since != "" {
		if _, err := fmt.Sscan(o.since, &next); err != nil {
			return crdtstore.ErrBadCursor
		}
	} else {
		snap, _ := f.Snapshot()
		for _, prefix := range o.prefixes {
			err := snap.List(prefix, o.values, func(i crdtstore.Item) error {
				return fn(crdtstore.Event{Type: crdtstore.EventPut, Item: i, Cursor: snap.Cursor()})
			})
			if err != nil {
				return err
			}
		}
		if err := fn(crdtstore.Event{Type: crdtstore.EventSynced, Cursor: snap.Cursor()}); err != nil {
			return err
		}
		_, _ = fmt.Sscan(snap.Cursor(), &next)
	}
	for {
		f.mu.Lock()
		events, changed := slices.Clone(f.events[next:]), f.changed
		f.mu.Unlock()
		for _, e := range events {
			next++
			e.Cursor = fmt.Sprint(next)
			if e.Type != crdtstore.EventPolicy && !slices.ContainsFunc(o.prefixes, func(p string) bool { return record.Covers(p, e.Item.Path) }) {
				continue
			}
			if !o.values {
				e.Item.Value = nil
			}
			if err := fn(e); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

func (f *fakeStore) SetPolicy(_ context.Context, signed []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	info, err := fakeParsePolicy(signed)
	if err != nil {
		return err
	}
	if f.policy == nil || f.policy.Serial() < info.serial {
		f.policy, f.text = fakePolicy{serial: info.serial}, signed
	}
	return nil
}

func fakeParsePolicy(signed []byte) (policyInfo, error) {
	var serial uint64
	if _, err := fmt.Sscanf(string(signed), "serial %d", &serial); err != nil {
		return policyInfo{}, &Error{Code: CodeBadPolicy, Message: "no serial"}
	}
	return policyInfo{serial: serial, hash: fakePolicy{serial: serial}.Hash()}, nil
}

func (f *fakeStore) Policy() policy {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.policy
}

func (f *fakeStore) PolicyText() []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.text
}

func (f *fakeStore) Policies() [][]byte { return [][]byte{f.PolicyText()} }

func (f *fakeStore) HLCFor([]string) (record.HLC, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.clock + 1, nil
}

func (f *fakeStore) Relay(_ context.Context, w *record.Write, _ [][]byte) (record.Version, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return record.Version{}, f.fail
	}
	f.relayed = append(f.relayed, w)
	return record.Version{HLC: w.HLC, Write: w.ID()}, nil
}

func (s *fakeSnapshot) Preview(_ context.Context, next *acl.Policy, fn func(crdtstore.PathChange) error) error {
	return s.List("/", false, func(i crdtstore.Item) error {
		if next.MayReadPath(i.Author, i.Path) {
			return nil
		}
		return fn(crdtstore.PathChange{Path: i.Path, Now: &i, Lost: &i.Version})
	})
}

func (s *fakeSnapshot) Written(_ context.Context, author record.PublicKey, since record.HLC, fn func(crdtstore.Item, bool) error) error {
	for _, e := range s.events {
		if e.Item.Author == author && e.Item.Version.HLC >= since {
			item := e.Item
			item.Value = nil
			if err := fn(item, s.items[item.Path].Version == item.Version); err != nil {
				return err
			}
		}
	}
	return nil
}

func (*fakeSnapshot) Holds(record.Tag, record.Version) (bool, error) { return true, nil }

func (s *fakeSnapshot) Shown(path string) (v record.Version, visible bool, err error) {
	for _, e := range s.events {
		if e.Item.Path == path {
			v, visible = e.Item.Version, e.Type == crdtstore.EventPut
		}
	}
	return v, visible, nil
}

func (f *fakeStore) Stats() crdtstore.Stats {
	f.mu.Lock()
	defer f.mu.Unlock()
	return crdtstore.Stats{Entries: int64(len(f.items)), Blocks: 7, Heads: 2, DiskFree: 1 << 30}
}

type fakeNetwork struct {
	mu     sync.Mutex
	paused bool
}

func (n *fakeNetwork) set(paused bool) { n.mu.Lock(); n.paused = paused; n.mu.Unlock() }
func (n *fakeNetwork) Pause()          { n.set(true) }
func (n *fakeNetwork) Resume()         { n.set(false) }
func (n *fakeNetwork) Paused() bool    { n.mu.Lock(); defer n.mu.Unlock(); return n.paused }
func (*fakeNetwork) Compare(context.Context, record.PublicKey) (p2p.Comparison, error) {
	return p2p.Comparison{}, errors.New("not connected")
}
func (*fakeNetwork) Follow(ctx context.Context, _ record.PublicKey, _ []p2p.Placed, _ p2p.Stage) (p2p.Progress, error) {
	<-ctx.Done()
	return p2p.Progress{}, errors.New("not connected")
}
func (*fakeNetwork) Addrs() []string { return []string{"/ip4/127.0.0.1/tcp/1"} }
func (*fakeNetwork) Peers() []*apiv1.Peer {
	skew := 1.5
	return []*apiv1.Peer{{PeerId: "12D3x", Connected: true, ClockSkewMs: &skew}, {PeerId: "12D3y"}}
}

type noMirrors struct{}

func (noMirrors) Status() ([]*apiv1.Mirror, []*apiv1.Trigger) { return nil, nil }
func (noMirrors) Confirm(string) (int, error)                 { return 0, nil }
func (noMirrors) Progress(p2p.Placed, record.Version, bool) mirrorProgress {
	return mirrorProgress{}
}

// testServer is a server with fakes behind it, on a real socket.
type testServer struct {
	*server
	fake   *fakeStore
	socket string
	client *Client
	stop   func()
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// socketDoor is a door whose visitors act as this agent.
func socketDoor(l net.Listener) *door {
	d := newDoor(l)
	d.local = func(of credentials) (*caller, error) { return localCaller(nil, 0, of) }
	return d
}

// startServer runs a server until the test ends.
func startServer(t testing.TB, change ...func(*server)) *testServer {
	t.Helper()
	fake := newFakeStore()
	ctx, cancel := context.WithCancel(context.Background())
	s := &server{
		log: quiet(), metrics: newMetrics("test"), timeout: requestTimeout,
		kv: &kv{self: fake.self, store: fake, stop: ctx, now: time.Now, name: "test", peers: &fakeNetwork{}, progress: progress{self: fake.self, store: fake, mirrors: noMirrors{}}},
		service: &service{indexes: func() []*apiv1.Index { return nil },
			self: fake.self, name: "test", version: "test", started: time.Now(), ready: func() bool { return ctx.Err() == nil },
			store: fake, peers: &fakeNetwork{}, mirrors: noMirrors{}, alarms: NewAlarms(quiet()), parsePolicy: fakeParsePolicy,
		},
	}
	s.requests.set(100)
	s.watches.set(100)
	for _, c := range change {
		c(s)
	}
	s.page = newStatusPage(ctx, s.service, "/run/s", t.TempDir(), func() string { return "" })
	s.metrics.registry.MustRegister(collector{s.service})
	socket := filepath.Join(t.TempDir(), "s")
	l, err := listenSocket(APIConfig{Socket: socket, SocketMode: 0o660})
	if err != nil {
		t.Fatal(err)
	}
	client, err := Dial(socket)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- serve(ctx, socketDoor(l), s.asCaller(s.fullHandler()), quiet()) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	t.Cleanup(func() { client.Close(); stop() })
	return &testServer{server: s, fake: fake, socket: socket, client: client, stop: stop}
}

// do makes a plain HTTP request, with the URL's path exactly as given.
func (s *testServer) do(t *testing.T, method, path, body string, header ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequest(method, "http://agent"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	response, err := s.client.http.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close() //nolint:errcheck // read only
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, string(text)
}

var errBroken = errors.New("broken")

func (f *fakeStore) Backup(context.Context, record.PublicKey, crdtstore.BackupHead, io.Writer, func(done, total int64)) (crdtstore.BackupHead, error) {
	return crdtstore.BackupHead{}, errors.ErrUnsupported
}

func (f *fakeStore) PolicyTaken([32]byte) time.Time { return time.Time{} }

func (f *fakeStore) RequestScrub() error { return nil }

func (f *fakeStore) ResetClock(context.Context) (time.Duration, error) { return 0, nil }

func (s *fakeSnapshot) Number() uint64 { return uint64(len(s.events)) }

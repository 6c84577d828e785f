package agent

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"connectrpc.com/connect"

	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore"
	"syncagent/crdtstore/record"
)

func TestIndexKeys(t *testing.T) {
	for _, c := range []struct {
		config IndexConfig
		value  string
		want   string // keys, or "left out"
	}{
		{IndexConfig{JSON: "owner"}, `{"owner":"ann"}`, "[ann]"},
		{IndexConfig{JSON: "meta.owner"}, `{"meta":{"owner":"ann"}}`, "[ann]"},
		{IndexConfig{JSON: "meta.owner"}, `{"meta":"ann"}`, "[]"},
		{IndexConfig{JSON: "meta.owner"}, `{"meta":{"owner":{"name":"ann"}}}`, "[]"},
		{IndexConfig{JSON: "port"}, `{"port":8080}`, "[8080]"},
		{IndexConfig{JSON: "port"}, `{"port":1e400}`, "[1e400]"},
		{IndexConfig{JSON: "on"}, `{"on":false}`, "[false]"},
		{IndexConfig{JSON: "on"}, `{"on":null}`, "[]"},
		{IndexConfig{JSON: "tags"}, `{"tags":["a","b","a",{},["c"],1]}`, "[a b 1]"},
		{IndexConfig{JSON: "owner"}, `{}`, "[]"},
		{IndexConfig{JSON: "owner"}, `[1,2]`, "[]"},
		{IndexConfig{JSON: "owner"}, `{"owner":"ann"} `, "[ann]"},
		{IndexConfig{JSON: "owner"}, `{"owner":"ann"}{}`, "left out"},
		{IndexConfig{JSON: "owner"}, `owner: ann`, "left out"},
		{IndexConfig{JSON: "owner"}, ``, "left out"},
		{IndexConfig{Segment: 1}, `no JSON`, "[s]"},
		{IndexConfig{Segment: 2}, `no JSON`, "[x]"},
		{IndexConfig{Segment: 3}, `no JSON`, "[]"},
	} {
		keys, ok := c.config.keys(&crdtstore.Item{Path: "/s/x", Value: []byte(c.value)})
		got := fmt.Sprint(keys)
		if !ok {
			got = "left out"
		}
		if got != c.want {
			t.Errorf("%+v of %s: %s, want %s", c.config, c.value, got, c.want)
		}
	}
}

// An index that was built anew knows nothing of what went before: a reader of an older state is told so.
func TestIndexBuiltAnewDoesNotServeOlderStates(t *testing.T) {
	x := newIndex(IndexConfig{Name: "host", Prefix: "/", Segment: 2})
	build := func(number uint64, paths ...string) {
		_ = x.event(crdtstore.Event{Type: crdtstore.EventReset}) // it has no errors
		for _, p := range paths {
			_ = x.event(crdtstore.Event{Type: crdtstore.EventPut, Item: crdtstore.Item{Path: p}})
		}
		_ = x.event(crdtstore.Event{Type: crdtstore.EventSynced})
		x.reach(number)
	}
	served := func(number uint64, want bool) {
		t.Helper()
		if _, ok := x.find("a", number); ok != want {
			t.Errorf("state %d: served %v", number, ok)
		}
	}
	build(5, "/h/a", "/h/b")
	served(4, false)
	served(5, true)
	_ = x.event(crdtstore.Event{Type: crdtstore.EventDelete, Item: crdtstore.Item{Path: "/h/a"}})
	x.reach(6)
	served(5, true)
	if paths, _ := x.find("a", 5); len(paths) != 1 {
		t.Errorf("state 5 has %v", paths)
	}
	build(9, "/h/b")
	served(8, false)
	served(9, true)
}

func (a *testAgent) found(request *apiv1.ListRequest) ([]string, error) {
	stream, err := a.client.KV.List(a.t.Context(), connect.NewRequest(request))
	if err != nil {
		return nil, err
	}
	defer stream.Close() //nolint:errcheck // its error is stream.Err
	paths := []string{}
	for stream.Receive() {
		paths = append(paths, pathsOf(stream.Msg().GetEntries())...)
	}
	return paths, stream.Err()
}

func (a *testAgent) finds(index, value string, want ...string) {
	a.t.Helper()
	got, err := a.found(&apiv1.ListRequest{Index: index, IndexValue: value})
	if err != nil || !slices.Equal(got, want) {
		a.t.Errorf("%s=%s: %v %v, want %v", index, value, got, err, want)
	}
}

func TestIndexFollowsTheView(t *testing.T) {
	n := newTestNetwork(t)
	a := newTestAgent(t, n)
	a.config.Indexes = []IndexConfig{{Name: "owner", Prefix: "/s", JSON: "meta.owner"}, {Name: "host", Prefix: "/hosts", Segment: 2}}
	all := func(serial int, lines ...string) {
		t.Helper()
		policy := n.policy(serial, map[string]record.PublicKey{"a": a.key}, lines...)
		if _, err := a.client.Policy.Apply(t.Context(), connect.NewRequest(&apiv1.ApplyRequest{Signed: policy})); err != nil {
			t.Fatal(err)
		}
	}
	a.start()
	all(1)
	owned := func(by string) string { return `{"meta":{"owner":"` + by + `"}}` }
	a.mustPut("/s/1", owned("ann"))
	a.mustPut("/s/2", owned("bob"))
	a.mustPut("/s/3", owned("ann"))
	a.mustPut("/s/4", "no json")
	a.mustPut("/other", owned("ann"))
	a.mustPut("/hosts/web1/facts", "")
	a.mustPut("/hosts/web1/tls", "")
	a.mustPut("/hosts/web2/facts", "")
	a.finds("owner", "ann", "/s/1", "/s/3") // at once: a list waits for its index
	a.finds("owner", "bob", "/s/2")
	a.finds("owner", "nobody")
	a.finds("host", "web1", "/hosts/web1/facts", "/hosts/web1/tls")
	if got, err := a.found(&apiv1.ListRequest{Prefix: "/s/3", Index: "owner", IndexValue: "ann"}); err != nil || len(got) != 1 {
		t.Errorf("below a prefix: %v %v", got, err)
	}
	a.mustPut("/s/1", owned("bob"))
	a.remove("/s/3")
	a.finds("owner", "ann")
	a.finds("owner", "bob", "/s/1", "/s/2")
	x := a.status().GetIndexes()[0]
	if x.GetName() != "owner" || x.GetEntries() != 2 || x.GetValues() != 1 || x.GetLeftOut() != 1 || !x.GetReady() {
		t.Errorf("status %v", x)
	}
	for _, wrong := range []*apiv1.ListRequest{{Index: "none", IndexValue: "x"}, {IndexValue: "x"}} {
		if _, err := a.found(wrong); ErrorOf(err) == nil || ErrorOf(err).Code != CodeBadRequest {
			t.Errorf("%v: %v", wrong, err)
		}
	}

	// A reload changes what is asked for, a restart nothing.
	next := a.config
	next.Indexes = []IndexConfig{{Name: "owner", Prefix: "/", JSON: "meta.owner"}}
	if applied, _, err := a.agent.Reload(next); err != nil || !slices.Contains(applied, "indexes") {
		t.Errorf("%v %v", applied, err)
	}
	a.finds("owner", "ann", "/other")
	if _, err := a.found(&apiv1.ListRequest{Index: "host", IndexValue: "web1"}); err == nil {
		t.Error("an index that was taken away is still there")
	}
	a.stop()
	a.config = next
	a.start()
	a.finds("owner", "ann", "/other")
	a.finds("owner", "bob", "/s/1", "/s/2")
}

// Lists by an index are what a filter over the whole list of the same moment gives, whatever is written meanwhile.
func TestIndexIsExactWhileWritesGoOn(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	n := newTestNetwork(t)
	a := newTestAgent(t, n)
	a.start()
	policy := n.policy(1, map[string]record.PublicKey{"a": a.key})
	if _, err := a.client.Policy.Apply(t.Context(), connect.NewRequest(&apiv1.ApplyRequest{Signed: policy})); err != nil {
		t.Fatal(err)
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			// Every write moves one path from one owner to another: at each moment each has its share.
			_ = a.put(fmt.Sprintf("/s/%d", i%20), fmt.Sprintf(`{"owner":"o%d"}`, (i/20*2+i)%3))
		}
	}()
	t.Cleanup(func() { close(stop); <-done })
	eventually(t, "20 paths", func() bool {
		got, err := a.found(&apiv1.ListRequest{Prefix: "/s"})
		return err == nil && len(got) == 20
	})
	set := newIndexSet([]IndexConfig{{Name: "owner", Prefix: "/s", JSON: "owner"}}, ownStore{a.agent.running.store}, quiet())
	go func() { _ = set.run(t.Context()) }()
	if _, err := set.wait(t.Context(), "owner", 0); err != nil { // as List does
		t.Fatal(err)
	}
	for range 100 {
		snap, err := (ownStore{a.agent.running.store}).Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		b := &reading{snapshot: snap, prefix: "/", all: true}
		owner := fmt.Sprintf("o%d", r.IntN(3))
		var want, got []string
		err = b.list(t.Context(), true, func(i crdtstore.Item) error {
			if keys, _ := set.now["owner"].config.keys(&i); slices.Contains(keys, owner) {
				want = append(want, i.Path)
			}
			return nil
		})
		// The index goes on meanwhile: the snapshot is older than it.
		<-set.now["owner"].await(snap.Number() + 1 + r.Uint64N(4))
		if err == nil {
			err = set.list(t.Context(), "owner", owner, b, false, func(i crdtstore.Item) error { got = append(got, i.Path); return nil })
		}
		snap.Close()
		if err != nil || !slices.Equal(got, want) {
			t.Fatalf("seed %d: %s has %v, want %v; %v", seed, owner, got, want, err)
		}
	}
}

func TestIndexConfigFaults(t *testing.T) {
	c := DefaultConfig()
	c.Indexes = []IndexConfig{
		{Name: "a", Prefix: "/x", JSON: "b"}, {Name: "a", Prefix: "x", Segment: 40}, {Prefix: "/.sys/x"}, {Name: "c", JSON: "a..b", Prefix: "/"},
	}
	var got []string
	for _, f := range c.Check() {
		got = append(got, f.Key)
	}
	want := []string{"indexes[1].name", "indexes[1].prefix", "indexes[1].segment", "indexes[2].name", "indexes[2].prefix", "indexes[2]", "indexes[3].json"}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	c.Indexes = []IndexConfig{{Name: "owner", Prefix: "/s", JSON: "meta.owner"}, {Name: "host", Prefix: "/", Segment: 2}}
	c.File = filepath.Join(t.TempDir(), "syncagent.yaml")
	if err := WriteConfig(c.File, c); err != nil {
		t.Fatal(err)
	}
	back, err := LoadConfig(c.File, nil)
	if err != nil || !slices.Equal(back.Indexes, c.Indexes) {
		t.Errorf("%v %v", back.Indexes, err)
	}
}

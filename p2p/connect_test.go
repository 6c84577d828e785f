package p2p

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"syncagent/crdtstore/record"
)

func (r *fakeReplica) Check(from record.PublicKey, parcels []record.Parcel) (func(context.Context) (Ingested, error), error) {
	if r.checked != nil {
		r.checked()
	}
	return func(ctx context.Context) (Ingested, error) {
		if r.taking != nil {
			r.taking()
		}
		return r.Ingest(ctx, from, parcels)
	}, nil
}

// While the replica commits what came first, signatures of what comes next are checked.
func TestBlocksAreCheckedWhileOthersAreTaken(t *testing.T) {
	ka, kb := testKey(t), testKey(t)
	policy := &fakePolicy{Number: 1, Keys: []record.PublicKey{record.KeyOf(ka), record.KeyOf(kb)}}
	ra, rb := newFake(ka, policy), newFake(kb, policy)
	for i := range 200 {
		ra.put(make([]byte, 1000), fmt.Sprint("/a/", i))
	}
	second, checks := make(chan struct{}), 0
	rb.checked = func() {
		if checks++; checks == 2 {
			close(second)
		}
	}
	var first sync.Once
	rb.taking = func() {
		first.Do(func() {
			select {
			case <-second:
			case <-time.After(time.Minute):
				t.Error("nothing is checked before the first blocks are taken")
			}
		})
	}
	a := start(t, "a", ra, Options{})
	b := start(t, "b", rb, Options{Bootstrap: a.node.Addrs()})
	eventually(t, equal(a, b), "b has all of it")
}

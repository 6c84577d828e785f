package p2p

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"syncagent/crdtstore/record"
)

// TestG11_EqualAfterChaos pauses, resumes, stops, restarts, removes and admits members at random while all of them
// write, and then wants them equal. SYNCAGENT_TEST_CHAOS sets the seconds, SYNCAGENT_TEST_SEED the order of events.
func TestG11_EqualAfterChaos(t *testing.T) {
	length := 3 * time.Second
	if s, err := strconv.Atoi(os.Getenv("SYNCAGENT_TEST_CHAOS")); err == nil {
		length = time.Duration(s) * time.Second
	}
	seed := rand.Uint64()
	if s, err := strconv.ParseUint(os.Getenv("SYNCAGENT_TEST_SEED"), 10, 64); err == nil {
		seed = s
	}
	t.Logf("SYNCAGENT_TEST_SEED=%d", seed)
	r := rand.New(rand.NewPCG(seed, 0))

	hs := cluster(t, 4)
	policy := hs[0].Rights().(*fakePolicy)
	all := policy.Keys
	listens := make([][]string, len(hs))
	for i, h := range hs {
		for _, a := range h.node.Addrs() {
			listens[i] = append(listens[i], strings.Split(a, "/p2p/")[0])
		}
	}
	down := make([]bool, len(hs))
	puts := 0
	for deadline := time.Now().Add(length); time.Now().Before(deadline); {
		i := r.IntN(len(hs))
		h := hs[i]
		switch k := r.IntN(20); {
		case k < 15:
			if !down[i] {
				h.publish([]byte("v"), fmt.Sprintf("/%d/%d", i, puts))
				puts++
			}
		case k == 15 && !down[i]:
			h.node.Pause()
		case k == 16 && !down[i]:
			h.node.Resume()
		case k == 17 && !down[i]:
			h.stop()
			down[i] = true
		case k == 18 && down[i]:
			hs[i] = start(t, h.name, h.fakeReplica, Options{Listen: listens[i], Bootstrap: h.o.Bootstrap})
			down[i] = false
		case k == 19: // one member less, or all again
			policy = &fakePolicy{Number: policy.Number + 1, Keys: append([]record.PublicKey{}, all...)}
			if out := r.IntN(2 * len(all)); out < len(all) {
				policy.Keys = slices.Delete(policy.Keys, out, out+1)
			}
			h.setPolicy(policy)
		}
		time.Sleep(time.Duration(r.IntN(20)) * time.Millisecond)
	}
	for i, h := range hs {
		if down[i] {
			hs[i] = start(t, h.name, h.fakeReplica, Options{Listen: listens[i], Bootstrap: h.o.Bootstrap})
		}
		hs[i].node.Resume()
	}
	policy = &fakePolicy{Number: policy.Number + 1, Keys: all}
	for _, h := range hs { // an admin tells whom others may refuse
		h.setPolicy(policy)
	}
	eventually(t, equal(hs...), "equal after %d puts", puts)
	for _, h := range hs {
		eventually(t, func() bool { return h.Rights().Serial() == policy.Number }, "%s has the last policy", h.name)
		eventually(t, func() bool { return connectedPeers(h) == len(hs)-1 }, "%s is connected to all", h.name)
		if got := h.holds("/"); got != puts {
			t.Errorf("%s holds %d entries of %d", h.name, got, puts)
		}
	}
}

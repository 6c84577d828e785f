package p2p

import (
	"bytes"
	"context"
	"hash/maphash"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"syncagent/crdtstore/record"
)

// progress knows a version by the number of blocks that its clock names. Paths below /slow are not mirrored before their
// index, and those below /bad have a fault.
func (r *fakeReplica) progress(asker record.PublicKey, of []Placed, _ Stage) Progress {
	p := Progress{Of: make([]Reached, len(of))}
	for i, q := range of {
		switch {
		case record.Covers("/bad", q.Path):
			p.Fault = "fault of " + q.Path
		case record.Covers("/none", q.Path):
			p.Of[i] = Reached{Stage: StageStored, Unmirrored: true}
		case r.blockCount() >= int(q.Version.HLC):
			p.Of[i] = Reached{Stage: StageTriggered, Shown: q.Version}
		}
	}
	return p
}

// TestFollow holds that a peer tells of a version when it has it and not before, also to more askers than there are
// streams, that a fault ends the waiting, and that the end of the context does.
func TestFollow(t *testing.T) {
	hs := cluster(t, 3)
	a, peers := hs[0], []record.PublicKey{hs[1].self, hs[2].self}
	next := record.Version{HLC: record.HLC(a.blockCount() + 1)} // held as soon as there is one block more
	placed := func(path string, v record.Version) []Placed { return []Placed{{path, v}} }
	var all sync.WaitGroup
	for range 3 * progressAsks {
		for i, peer := range peers {
			all.Go(func() {
				p, err := a.node.Follow(t.Context(), peer, placed("/x", next), StageTriggered)
				if err != nil || !p.Done(StageTriggered) || p.Of[0].Shown != next || hs[i+1].blockCount() < int(next.HLC) {
					t.Errorf("%+v, %v", p, err)
				}
			})
		}
	}
	a.publish([]byte("x"), "/x")
	all.Wait()

	never := record.Version{HLC: next.HLC + 100}
	if p, err := a.node.Follow(t.Context(), peers[0], placed("/bad/x", never), StageStored); err != nil || p.Fault != "fault of /bad/x" {
		t.Errorf("a fault: %+v, %v", p, err)
	}
	if p, err := a.node.Follow(t.Context(), peers[0], placed("/none", never), StageMirrored); err != nil || !p.Of[0].Unmirrored {
		t.Errorf("no mirror: %+v, %v", p, err)
	}
	if p, err := a.node.Follow(t.Context(), peers[0], placed("/x", never), StageNone); err != nil || p.Of[0].Stage != StageNone {
		t.Errorf("how it stands: %+v, %v", p, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), progressHold+200*time.Millisecond)
	defer cancel()
	// The last answer counts, if the time was enough for one.
	if p, err := a.node.Follow(ctx, peers[0], placed("/x", never), StageStored); ctx.Err() == nil || err == nil && p.Of[0].Stage != StageNone {
		t.Errorf("time is over: %v, %+v, %v", ctx.Err(), p, err)
	}
	if _, err := a.node.Follow(ctx, record.KeyOf(testKey(t)), placed("/x", next), StageStored); err == nil {
		t.Error("a stranger answered")
	}
}

// TestFollowDials holds that whom somebody waits for is dialled, though there are too many members to dial all.
func TestFollowDials(t *testing.T) {
	hs := cluster(t, 2)
	many := &fakePolicy{Number: 2, Keys: []record.PublicKey{hs[0].self, hs[1].self}}
	for range 3 * maxPeers {
		many.Keys = append(many.Keys, record.KeyOf(testKey(t)))
	}
	hs[0].setPolicy(many)
	hs[1].stop()
	eventually(t, func() bool { return connectedPeers(hs[0]) == 0 }, "they part")
	d := &dialer{states: map[string]*dialState{}}
	wanted := func() bool {
		return slices.ContainsFunc(hs[0].node.wanted(d), func(c candidate) bool { return c.id == hs[1].self.PeerID() })
	}
	for d.seed = maphash.MakeSeed(); wanted(); d.seed = maphash.MakeSeed() {
	}
	release := hs[0].node.need(hs[1].self)
	if !wanted() {
		t.Error("who is needed is not dialled")
	}
	release()
	if wanted() {
		t.Error("who is no longer needed is dialled")
	}
}

// TestG10_ProgressGarbage holds that a malformed question ends the stream and counts against who sent it.
func TestG10_ProgressGarbage(t *testing.T) {
	hs := cluster(t, 2)
	good := encodeQuestion(StageStored, []Placed{{"/x", record.Version{}}})
	for _, payload := range [][]byte{
		nil, {9}, good[:len(good)-1], append(bytes.Clone(good), 0), encodeQuestion(StageStored, []Placed{{"x//y", record.Version{}}}),
		encodeQuestion(StageStored, make([]Placed, maxPlaced+1)),
	} {
		f := sneak(t, hs[1], hs[0], protoSync)
		if err := f.write(frameProgress, payload); err != nil {
			t.Fatal(err)
		}
		if kind, _, err := f.read(time.Minute); err == nil || err == io.EOF {
			t.Errorf("%d bytes: answered by frame %d, %v", len(payload), kind, err)
		}
	}
}

// TestProgressAnswer holds that answers come over as they are, and that text of a peer cannot spoil a terminal.
func TestProgressAnswer(t *testing.T) {
	p := Progress{Fault: "a\x1b[2Jb\xff", Of: []Reached{
		{Stage: StageMirrored, Shown: record.Version{HLC: 7, Index: 3}}, {Stage: StageStored, Unmirrored: true},
	}}
	got, err := parseAnswer(encodeAnswer(p), 2)
	if err != nil || got.Fault != "a?[2Jb?" || got.Of[0] != p.Of[0] || got.Of[1] != p.Of[1] {
		t.Errorf("%+v, %v", got, err)
	}
	for _, b := range [][]byte{nil, encodeAnswer(p)[:20], append(encodeAnswer(p), 0), append([]byte{0, 4}, make([]byte, 2*42+1)...)} {
		if _, err := parseAnswer(b, 2); err == nil {
			t.Errorf("%x is read", b)
		}
	}
}

// TestPeersSayWhyOneCannotBeReached holds that status and waiting tell in one line why a peer is away, until it is back.
func TestPeersSayWhyOneCannotBeReached(t *testing.T) {
	hs := cluster(t, 2)
	fault := func() string { return hs[1].node.Peers()[0].Fault }
	if f := fault(); f != "" {
		t.Errorf("connected: %q", f)
	}
	hs[0].stop()
	eventually(t, func() bool { return fault() != "" }, "the fault is told")
	if f := fault(); strings.Contains(f, "\n") || len(f) > 200 {
		t.Errorf("%q", f)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := hs[1].node.Follow(ctx, hs[0].self, nil, StageStored); err == nil || !strings.Contains(err.Error(), "not connected: ") {
		t.Errorf("%v", err)
	}
}

package crdtstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"syncagent/crdtstore/record"
)

var errPower = errors.New("power cut")

// TestG1_CrashAtEveryStoreWrite cuts the power before every commit and sync of a scenario, and starts again from every
// state that the disk can be in. Everything acknowledged must be there, and the agent must go on and converge.
func TestG1_CrashAtEveryStoreWrite(t *testing.T) {
	const steps = 12
	for cutAt := 1; ; cutAt++ {
		n, a, b, _ := three(t, uint64(cutAt))
		for i := range 5 {
			b.put(fmt.Sprintf("/b/%d", i), "v")
		}
		at := 0
		a.disk.mu.Lock()
		a.disk.before = func(string) error {
			if at++; at >= cutAt {
				return errPower
			}
			return nil
		}
		a.disk.mu.Unlock()
		acked := map[string]string{}
		crashed := false
		for i := range steps {
			path, value := fmt.Sprintf("/a/%d", i%5), fmt.Sprint(i)
			ops := []Op{{Path: path, Value: []byte(value)}, {Path: path + "/twin", Value: []byte(value)}}
			if i%4 == 3 {
				ops = append(ops, Op{Path: path + "/big", Value: make([]byte, 100<<10)}) // has a row of its own
			}
			if _, err := a.Write(context.Background(), ops); err != nil {
				crashed = true
				break
			}
			acked[path], acked[path+"/twin"] = value, value
			if i == 6 && !a.tryPull(b) {
				crashed = true
				break
			}
		}
		a.disk.mu.Lock()
		a.disk.before = nil
		commits := len(a.disk.commits)
		a.disk.mu.Unlock()
		for keep := range commits + 1 {
			restarted := n.start("a", a.disk.powerCut(keep))
			for path, value := range acked {
				got := restarted.get(path)
				have, err := strconv.Atoi(got)
				want, _ := strconv.Atoi(value)
				if err != nil || have < want {
					t.Fatalf("cut %d, %d commits kept: %s is %q, acknowledged was %q", cutAt, keep, path, got, value)
				}
			}
			for path := range acked {
				if one := strings.TrimSuffix(path, "/twin"); restarted.get(one) != restarted.get(one+"/twin") {
					t.Fatalf("cut %d, %d commits kept: half a batch at %s", cutAt, keep, one)
				}
			}
			restarted.put("/after", "restart")
			meet(restarted, b)
			if restarted.Stats().ViewDigest != b.Stats().ViewDigest || restarted.Stats().BlockDigest != b.Stats().BlockDigest {
				t.Fatalf("cut %d, %d commits kept: not equal after the restart\n%s\n%s", cutAt, keep, dump(restarted), dump(b))
			}
			checkHeads(t, restarted)
			restarted.stop()
		}
		b.stop()
		if !crashed {
			if cutAt < steps {
				t.Fatalf("the scenario has only %d writes", cutAt)
			}
			return
		}
	}
}

// tryPull is pull for a store that may lose power in the middle.
func (nd *node) tryPull(from *node) bool {
	ctx := context.Background()
	ok := true
	err := from.Missing(ctx, nd.Vector(), nd.self, func(p record.Parcel) error {
		_, err := nd.Ingest(ctx, from.self, []record.Parcel{p})
		return err
	})
	if err != nil {
		ok = false
	}
	return ok
}

// TestRollback starts an agent from an old image of its store after it published more: the sequence numbers that it
// uses again are a fork that loses nothing, and it takes a new incarnation as soon as it meets its own lost blocks.
func TestRollback(t *testing.T) {
	n, a, b, c := three(t, 1)
	a.put("/p/1", "kept")
	old := a.disk.powerCut(0)
	a.put("/p/2", "lost here, known to b")
	b.pull(a)
	a.stop()

	a = n.start("a", old)
	before := a.Incarnation()
	a.put("/p/3", "after the rollback") // the same number again
	meet(a, b, c)
	a.put("/p/4", "after the meeting")
	meet(a, b, c)
	for _, x := range []*node{a, b, c} {
		want := "/p/1=kept /p/2=lost here, known to b /p/3=after the rollback /p/4=after the meeting "
		if got := x.tree(); got != want {
			t.Errorf("%s shows %q", x.name, got)
		}
		if x.BlockDigest() != b.BlockDigest() {
			t.Errorf("%s has other blocks than b", x.name)
		}
	}
	if !a.alarmed("identity-reused") || a.Incarnation() == before {
		t.Errorf("a did not notice that it was rolled back")
	}
	if !b.alarmed("fork") && !c.alarmed("fork") {
		t.Errorf("nobody reported the fork")
	}
}

// TestForkIsReportedWithItsProof: the alarm names two blocks, which are held and signed by one origin under one number.
func TestForkIsReportedWithItsProof(t *testing.T) {
	n, a, b, c := three(t, 1)
	a.put("/p/1", "in the image, too")
	image := a.disk.powerCut(0)
	a.put("/p/2", "one")
	b.pull(a)
	a.stop()
	a = n.start("a", image)
	a.put("/p/2", "other")
	c.pull(a)
	c.pull(b)
	message := c.alarmText("fork")
	view := c.kv.View()
	defer view.Close()
	var proof []*record.Block
	err := view.Scan([]byte{'b'}, nil, false, func(_, raw []byte) (bool, error) {
		block, err := record.ParseBlock(bytes.Clone(raw))
		if err == nil && block.Bundle != nil && strings.Contains(message, block.Digest.String()) {
			proof = append(proof, block)
		}
		return true, nil
	})
	if err != nil || len(proof) != 2 {
		t.Fatalf("%d blocks are held that the alarm names: %q, %v", len(proof), message, err)
	}
	one, other := proof[0], proof[1]
	if one.Origin != a.self || one.Origin != other.Origin || one.Incarnation != other.Incarnation || one.Seq != other.Seq {
		t.Errorf("the alarm names %+v and %+v", one.Bundle, other.Bundle)
	}
	if err := errors.Join(one.Verify(n.id), other.Verify(n.id)); err != nil {
		t.Error(err)
	}
}

func dump(x *node) string {
	return fmt.Sprintf("%s: %s | heads %v | vector %v | %+v alarms %v", x.name, x.tree(), x.Heads(), x.Vector(), x.Stats(), x.alarms)
}

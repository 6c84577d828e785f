package crdtstore

import (
	"context"
	"testing"

	"syncagent/crdtstore/record"
)

func (nd *node) patrolled(lost int) {
	nd.t.Helper()
	if got, err := nd.patrolChunks(context.Background()); got != lost || err != nil {
		nd.t.Errorf("%s: the patrol finds %d lost chunks, want %d: %v", nd.name, got, lost, err)
	}
	nd.tended()
}

// TestPatrolFindsDamagedChunks holds that a chunk which rots unread is found and fetched again, and that a value which
// nobody can give back is an alarm until it is put anew.
func TestPatrolFindsDamagedChunks(t *testing.T) {
	n, a, b, _ := three(t, 1)
	value := largeValue(7, 3*record.ChunkSize)
	a.putLarge("/p/x", value)
	meet(a, b)
	b.fetchChunks(a)
	b.patrolled(0)
	if b.alarmed("corrupt") || b.alarmed("value-lost") {
		t.Error("alarms, and nothing is wrong")
	}
	ref := b.disk.chunks.refs()[1]
	b.disk.chunks.files[ref][7] ^= 1
	b.patrolled(1)
	if !b.alarmed("corrupt") || b.alarmed("value-lost") {
		t.Errorf("alarms of one damaged chunk: %v", b.alarms)
	}
	if got := b.fetchChunks(a); got != 1 || b.get("/p/x") != value {
		t.Errorf("%d chunks were fetched again", got)
	}
	b.patrolled(0)
	// Now both lose it.
	a.disk.chunks.files[ref][7] ^= 1
	b.disk.chunks.files[ref][7] ^= 1
	a.patrolled(1)
	b.patrolled(1)
	if got := b.fetchChunks(a); got != 0 {
		t.Errorf("%d chunks were fetched from who lost them, too", got)
	}
	b.patrolled(1)
	if !b.alarmed("value-lost") {
		t.Error("nobody has it, and there is no alarm")
	}
	b.stop()
	b = n.start("b", b.disk)
	if !b.alarmed("value-lost") {
		t.Error("no alarm after a restart")
	}
	a.putLarge("/p/x", value)
	meet(a, b)
	b.fetchChunks(a)
	if b.patrolled(0); b.alarmed("value-lost") || b.get("/p/x") != value {
		t.Error("it was put anew, and the alarm stays, or the value is not read")
	}
}

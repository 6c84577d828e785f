package crdtstore

import "testing"

// A block that go-ds-crdt did not take stopped the process. The next run must not meet it again, or it stops for ever.
func TestBlockSetAsideIsNotTakenAgain(t *testing.T) {
	n := newTestNet(t, 1)
	n1, n2 := n.start("n1", nil), n.start("n2", nil)
	n1.apply(n.policy([]string{"n1", "n2"}, "* /a rw"))
	n2.pull(n1)
	n2.stop()
	n1.put("/a/b", "x")

	aside := newRows()
	aside.set(key('q', n1.Heads()[0][:]), nil)
	if err := n2.disk.Commit(aside); err != nil {
		t.Fatal(err)
	}
	n2 = n.start("n2", n2.disk)
	if n2.pull(n1); n2.BlockDigest() == n1.BlockDigest() {
		t.Error("the block was taken")
	}
	n2.put("/a/c", "it runs")
}

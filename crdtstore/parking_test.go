package crdtstore

import (
	"context"
	"fmt"
	"testing"

	"syncagent/crdtstore/record"
)

// TestChainWithoutItsRootIsAskedForOnce brings a long chain of which the first block is missing, in one go: all of it is
// parked, and one block is asked for, once.
func TestChainWithoutItsRootIsAskedForOnce(t *testing.T) {
	_, a, b, _ := three(t, 1)
	a.put("/root", "v")
	for i := range 3000 {
		a.put(fmt.Sprint("/chain/", i%5), fmt.Sprint(i))
	}
	var parcels []record.Parcel
	if err := a.Missing(context.Background(), b.Vector(), b.self, func(p record.Parcel) error {
		parcels = append(parcels, record.Parcel{Block: append([]byte(nil), p.Block...)})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	got, err := b.Ingest(context.Background(), a.self, parcels[1:])
	if err != nil || got.New != 0 || len(got.Missing) != 1 {
		t.Fatalf("%d new, asks for %d blocks, %v", got.New, len(got.Missing), err)
	}
	if _, err := b.Ingest(context.Background(), a.self, parcels[:1]); err != nil {
		t.Fatal(err)
	}
	meet(a, b)
	if b.BlockDigest() != a.BlockDigest() {
		t.Error("not equal when the root has come")
	}
}

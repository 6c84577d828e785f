package crdtstore

import (
	"fmt"
	"log/slog"
	"testing"

	"github.com/dgraph-io/badger/v4"
)

// A view shows its moment, whatever is committed and compacted meanwhile. Once it is closed, what only it could see goes.
func TestViewShowsItsMoment(t *testing.T) {
	b, err := openBadger(t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	const keys, rounds = 16, 100
	write := func(round int) {
		r := newRows()
		for k := range keys {
			r.set(fmt.Appendf(nil, "k%02d", k), fmt.Appendf(make([]byte, 64<<10), "%d", round))
		}
		if err := b.Commit(r); err != nil {
			t.Fatal(err)
		}
	}
	shows := func(v view, want string) {
		t.Helper()
		for k := range keys {
			value, ok, err := v.Get(fmt.Appendf(nil, "k%02d", k))
			if err != nil || !ok || string(value[64<<10:]) != want {
				t.Fatalf("key %d: held %v, %v; the view is of round %s", k, ok, err, want)
			}
		}
	}
	write(0)
	old := b.View()
	for i := range rounds { // 100 MiB: enough for compactions
		b.View().Close()
		write(i + 1)
	}
	if err := b.db.Flatten(1); err != nil {
		t.Fatal(err)
	}
	shows(old, "0")
	old.Close()
	now := b.View()
	shows(now, fmt.Sprint(rounds))
	now.Close()
	for i := range rounds {
		b.View().Close()
		write(i)
	}
	if err := b.db.Flatten(1); err != nil {
		t.Fatal(err)
	}
	if n := versionsOf(b, "k00"); n > rounds {
		t.Errorf("%d versions of a row are kept of %d, though only one can be seen", n, 1+2*rounds)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}

func versionsOf(b *badgerKV, key string) (n int) {
	txn := b.db.NewTransactionAt(b.number, false)
	defer txn.Discard()
	o := badger.DefaultIteratorOptions
	o.AllVersions = true
	it := txn.NewKeyIterator([]byte(key), o)
	defer it.Close()
	for it.Rewind(); it.Valid(); it.Next() {
		n++
	}
	return n
}

package crdtstore

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"github.com/dgraph-io/badger/v4/pb"
	"github.com/dgraph-io/badger/v4/table"
	"github.com/dgraph-io/badger/v4/y"
	"google.golang.org/protobuf/proto"

	"syncagent/acl"
	"syncagent/crdtstore/record"
)

// A store that cannot be read is set aside, never deleted. A new one takes over what still verifies in the old: signed
// policies, signed blocks, entries that have their ID. The rest comes from the peers. Nothing of the old view, counters
// or clocks is believed.

// asideName is what a damaged store is renamed to, with the time.
const asideName = "store.damaged-"

// damaged tells whether an error of opening a store means that its content is bad, so that a new one must be made.
// A lock, a full disk, another network or an unknown version are for the operator, and so is a host that lacks something.
func damaged(err error) bool {
	return err != nil && !errors.Is(err, ErrLocked) && !errors.Is(err, ErrDiskFull) && !errors.Is(err, ErrNetwork) &&
		!errors.Is(err, ErrVersion) && !errors.Is(err, fs.ErrPermission) && !ofTheHost(err)
}

// ofTheHost tells an error that says nothing of the store.
func ofTheHost(err error) bool {
	lacks := []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS}
	return slices.ContainsFunc(lacks, func(e syscall.Errno) bool {
		return errors.Is(err, e) || strings.Contains(err.Error(), e.Error()) // badger wraps no error, it quotes it
	})
}

// openRows opens the rows below dir. A store that badger cannot open, that lost its identity row, or that a turn found
// to be damaged, is damaged.
func openRows(dir string, log *slog.Logger) (*badgerKV, error) {
	if reason, err := os.ReadFile(filepath.Join(dir, rebuildMark)); err == nil {
		return nil, fmt.Errorf("%w: %s", ErrCorrupt, reason)
	}
	tables, err := tablesOf(dir)
	if err != nil {
		return nil, err
	}
	for _, f := range tables {
		if err := verifyTable(f); err != nil {
			return nil, err
		}
	}
	if err := checkLogs(dir); err != nil {
		return nil, err
	}
	if err := hideUnnamed(dir, tables); err != nil {
		return nil, err
	}
	b, err := openBadger(dir, log)
	if err != nil {
		return nil, err
	}
	err = judgeUnnamed(b)
	if err == nil && len(tables) > 0 {
		err = checkIdentity(b)
	}
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

// checkIdentity fails if the identity row is missing, which the first commit of each store writes.
func checkIdentity(b *badgerKV) error {
	v := b.View()
	defer v.Close()
	_, ok, err := v.Get(identityKey)
	if err == nil && !ok {
		err = fmt.Errorf("%w: tables are there, but no identity row", ErrCorrupt)
	}
	return err
}

// tablesOf gives the files of the tables that badger's MANIFEST names.
func tablesOf(dir string) (names []string, err error) {
	f, err := os.Open(filepath.Join(dir, badger.ManifestFilename))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	m, _, err := badger.ReplayManifestFile(f, 0, badger.DefaultOptions(dir))
	if err != nil {
		return nil, fmt.Errorf("%w: MANIFEST: %w", ErrCorrupt, err)
	}
	for id := range m.Tables {
		names = append(names, table.NewFilename(id, dir))
	}
	return names, nil
}

// rebuildMark is a file in a store that was found damaged while it ran: the next start builds it anew.
const rebuildMark = "DAMAGED"

// markDamaged has the next start build the store anew. It is called when a turn met damaged rows: going on, or starting
// again on them, would meet them again.
func (s *Store) markDamaged(cause error) {
	if s.dir == "" || !errors.Is(cause, ErrCorrupt) {
		return
	}
	if err := os.WriteFile(filepath.Join(s.dir, "store", rebuildMark), []byte(cause.Error()), 0o600); err != nil {
		s.log.Error("damaged store not marked", "error", err)
	}
}

// verifyTable holds every block of a table against its checksum. badger takes one that does not have it for the end of
// the table: rows would be missing without a word.
func verifyTable(name string) (err error) {
	defer func() {
		if r := recover(); r != nil { // badger v4.9 asks the block that it could not read for its place
			err = fmt.Errorf("%w: a block of table %s does not have its checksum", ErrCorrupt, filepath.Base(name))
		}
	}()
	if err := checkTable(name); err != nil {
		return err
	}
	t, err := openTable(name)
	if err != nil && ofTheHost(err) {
		return err
	}
	if err != nil {
		return fmt.Errorf("%w: table %s: %w", ErrCorrupt, filepath.Base(name), err)
	}
	if err := t.VerifyChecksum(); err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return nil
}

// openTable reads a table into memory, without the rest of the store.
func openTable(name string) (*table.Table, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	return table.OpenInMemoryTable(data, 1, &table.Options{Compression: options.Snappy, BlockSize: 4096, ChkMode: options.OnBlockRead})
}

// checkTable looks at the end of one of badger's tables: index size, index, checksum, checksum size. On a table that
// was cut off badger panics in a goroutine of its own, where nobody can catch it.
func checkTable(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // only read
	bad := fmt.Errorf("%w: table %s is cut off or overwritten", ErrCorrupt, filepath.Base(name))
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	// read gives the n bytes before the place reached.
	read := func(n int64) []byte {
		if n < 0 || n > end {
			return nil
		}
		end -= n
		b := make([]byte, n)
		if _, err := f.ReadAt(b, end); err != nil {
			return nil
		}
		return b
	}
	size := func() int64 {
		if b := read(4); b != nil {
			return int64(be.Uint32(b))
		}
		return -1
	}
	n := size()
	if n > 64 {
		return bad
	}
	var sum pb.Checksum
	if b := read(n); b == nil || proto.Unmarshal(b, &sum) != nil {
		return bad
	}
	index := read(size())
	if index == nil || y.VerifyChecksum(index, &sum) != nil {
		return bad
	}
	return nil
}

// salvaged is what verifies in a damaged store.
type salvaged struct {
	policies []*acl.Signed
	blocks   []*record.Block // ascending priority
	entries  map[record.ID][]byte
	seen     map[record.Digest]bool
}

// salvage reads a damaged store as far as it can be read: its tables and logs, one by one. It never fails: what
// cannot be read is left to the peers.
func (s *Store) salvage(dir string) salvaged {
	out := salvaged{entries: make(map[record.ID][]byte), seen: make(map[record.Digest]bool)}
	tables, _ := filepath.Glob(filepath.Join(dir, "*.sst")) // the pattern is well formed
	for _, name := range tables {
		if err := s.salvageTable(name, &out); err != nil {
			s.log.Warn("table of the damaged store is unreadable", "table", filepath.Base(name), "error", err)
		}
	}
	if err := s.salvageLogs(dir, &out); err != nil {
		s.log.Warn("logs of the damaged store are unreadable", "error", err)
	}
	slices.SortFunc(out.blocks, func(a, b *record.Block) int { return cmp.Compare(a.Priority, b.Priority) })
	return out
}

// salvageTable reads one table without the rest of the store.
func (s *Store) salvageTable(name string, out *salvaged) (err error) {
	defer func() {
		if r := recover(); r != nil { // badger panics on much of what it does not expect
			err = fmt.Errorf("%w: %v", ErrCorrupt, r)
		}
	}()
	if err := checkTable(name); err != nil {
		return err
	}
	t, err := openTable(name)
	if err != nil {
		return err
	}
	blocks := t.KeySplits(math.MaxInt, nil) // the first key of each
	bad := 0
	for i := range blocks {
		next := []byte(nil)
		if i+1 < len(blocks) {
			next = []byte(blocks[i+1])
		}
		if !s.salvageTableBlock(t, []byte(blocks[i]), next, out) {
			bad++
		}
	}
	if bad > 0 {
		return fmt.Errorf("%w: %d of %d blocks", ErrCorrupt, bad, len(blocks))
	}
	return nil
}

// salvageTableBlock reads the rows from one key up to another. An iterator ends where a block does not have its
// checksum, so each block has one of its own.
func (s *Store) salvageTableBlock(t *table.Table, from, to []byte, out *salvaged) (good bool) {
	defer func() {
		if recover() != nil { // as above
			good = false
		}
	}()
	it := t.NewIterator(table.NOCACHE)
	defer it.Close() //nolint:errcheck // memory
	for it.Seek(from); it.Valid() && (to == nil || y.CompareKeys(it.Key(), to) < 0); it.Next() {
		s.salvageRow(y.ParseKey(it.Key()), it.Value().Value, out)
		good = true
	}
	return good
}

// salvageRow takes a row if it proves itself.
func (s *Store) salvageRow(k, value []byte, out *salvaged) {
	if len(k) == 0 {
		return
	}
	switch k[0] {
	case 'p':
		if p, err := acl.ParseSigned(bytes.Clone(value)); err == nil {
			out.policies = append(out.policies, p)
		}
	case 'b':
		b, err := record.ParseBlock(bytes.Clone(value))
		if err == nil && !out.seen[b.Digest] && b.Verify(s.network) == nil {
			out.seen[b.Digest] = true
			out.blocks = append(out.blocks, b)
		}
	case 'e':
		out.addEntry(value)
	case 's':
		path, version, ok := parseSlotKey(k)
		if !ok {
			return
		}
		if sl, err := decodeSlot(path, version, value); err == nil && len(sl.data) > 0 {
			out.addEntry(sl.data)
		}
	}
}

func (o *salvaged) addEntry(data []byte) {
	data = bytes.Clone(data)
	if _, ids, err := entryIDs(data); err == nil {
		for _, id := range ids {
			o.entries[id] = data
		}
	}
}

// takeOver puts what was salvaged into the new store, by the same turns that take it from peers.
func (s *Store) takeOver(old salvaged) error {
	// Open has not returned: the caller is not ready for callbacks. What they would tell is there when it looks.
	onCommit, onPolicy, onForeign, onWants := s.onCommit, s.onPolicy, s.onForeign, s.onWants
	s.onCommit, s.onPolicy, s.onForeign, s.onWants = nil, nil, nil, nil
	defer func() { s.onCommit, s.onPolicy, s.onForeign, s.onWants = onCommit, onPolicy, onForeign, onWants }()
	for _, p := range old.policies {
		if _, ok := p.SignedBy(s.network, s.admins); ok && p.Network == s.network {
			s.queue.add(&policyRequest{p, make(chan error, 1)})
		}
	}
	r := &ingestRequest{from: s.self}
	for _, b := range old.blocks {
		p := &parcel{block: b, byID: make(map[record.ID][]byte), bytes: len(b.Raw)}
		for _, w := range b.Writes {
			for i := range w.Slots {
				if data := old.entries[w.Slots[i].Entry]; data != nil {
					p.byID[w.Slots[i].Entry] = data
					p.bytes += len(data)
				}
			}
		}
		r.parcels = append(r.parcels, p)
	}
	if len(r.parcels) > 0 {
		s.queue.add(r)
	}
	if err := s.catchUp(); err != nil {
		return fmt.Errorf("take over what was saved: %w", err)
	}
	return s.kv.Sync()
}

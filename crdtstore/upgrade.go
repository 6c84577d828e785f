package crdtstore

import "fmt"

// upgrade brings the rows of a store of an earlier version to this one, in a commit of its own before anything else.
// In version 1 the heads were rows of go-ds-crdt's: c/h/ and the multihash in base32, two of them for each block.
func (s *Store) upgrade() error {
	v := s.kv.View()
	defer v.Close()
	id, found, err := s.identity(v)
	if err != nil || !found || id.version == storeVersion {
		return err
	}
	d, r := newDAGState(), newRows()
	if d.chains, err = chainEnds(v); err != nil {
		return err
	}
	err = v.Scan([]byte("c/h/"), nil, false, func(k, _ []byte) (bool, error) {
		digest, err := markOf(nsMarks + string(k[len("c/h/"):]))
		if err != nil {
			return false, fmt.Errorf("%w: head row: %w", ErrCorrupt, err)
		}
		r.delete(k)
		return true, s.loadHead(v, d, digest)
	})
	if err != nil {
		return err
	}
	headRows(newDAGState(), d, r)
	id.version = storeVersion
	r.set(identityKey, id.encode())
	return s.kv.Commit(r)
}

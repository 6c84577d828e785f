package crdtstore

import (
	"encoding/binary"

	"syncagent/crdtstore/record"
)

// The rows of the store, by the first byte of their keys:
//
//	b digest                               -> block bytes
//	o origin incarnation seq digest        -> height                    chains, forks, vector
//	s path key, version                    -> slot: author, tags, entry ID, state, entry
//	e entry ID                             -> entry too large for the transaction of its turn
//	e entry ID, 1                          -> nothing                    slots of several writes have had that entry
//	x number                               -> IDs of entries put into e before the turn that names them
//	u write ID                             -> HLC, arrival, path keys    writes that are not ready
//	n path key, version                    -> nothing                    wanted entries, and values that lack chunks
//	k path key, version                    -> nothing                    slots whose values lie in chunks
//	v path                                 -> version shown, visible or not
//	t milliseconds, path key               -> nothing                    look at the path again then
//	f number                               -> run, changes               the change feed
//	p serial, hash                         -> signed policy text
//	a hash                                 -> agent time                 when a policy text was taken
//	q digest                               -> nothing                    blocks set aside
//	mx                                     -> nothing                    rewrite the store at the next start
//	mc                                     -> nothing                    a commit in parts is under way
//	h origin incarnation                   -> nothing                    the end of this chain is a head
//	h digest                               -> nothing                    a head that is no end of a chain
//	c...                                   -> go-ds-crdt's version
//	mi, ms, mp                             -> identity of the store; its counters; policies that the rows are judged by
//
// Chunks lie in files beside the rows, in data_dir/chunks (chunkfiles.go).
//
// Integers are big-endian, so that rows sort as their numbers do.
var be = binary.BigEndian

func key(prefix byte, parts ...[]byte) []byte {
	n := 1
	for _, p := range parts {
		n += len(p)
	}
	k := append(make([]byte, 0, n), prefix)
	for _, p := range parts {
		k = append(k, p...)
	}
	return k
}

func u64(v uint64) []byte { return be.AppendUint64(nil, v) }

func blockKey(d record.Digest) []byte { return key('b', d[:]) }

func chainPrefix(c chainID) []byte { return key('o', c.origin[:], u64(c.incarnation)) }

func chainKey(c chainID, seq uint64, d record.Digest) []byte {
	return key('o', c.origin[:], u64(c.incarnation), u64(seq), d[:])
}

func takenKey(policy [32]byte) []byte { return key('a', policy[:]) }

func slotKey(path record.Tag, v record.Version) []byte {
	return v.Append(append(append(make([]byte, 0, 59), 's'), path[:]...))
}

func wantKey(path record.Tag, v record.Version) []byte {
	k := slotKey(path, v)
	k[0] = 'n'
	return k
}

func chunkedKey(path record.Tag, v record.Version) []byte {
	k := slotKey(path, v)
	k[0] = 'k'
	return k
}

func entryKey(id record.ID) []byte              { return key('e', id[:]) }
func sharedKey(id record.ID) []byte             { return key('e', id[:], []byte{1}) }
func unreadyKey(id record.ID) []byte            { return key('u', id[:]) }
func shownKey(path string) []byte               { return append([]byte{'v'}, path...) }
func timerKey(ms int64, path record.Tag) []byte { return key('t', u64(uint64(ms)), path[:]) }
func feedKey(number uint64) []byte              { return key('f', u64(number)) }
func policyKey(serial uint64, hash [32]byte) []byte {
	return key('p', u64(serial), hash[:])
}

// parseSlotKey splits the key of an s, n or k row.
func parseSlotKey(k []byte) (path record.Tag, v record.Version, ok bool) {
	if len(k) != 1+16+record.VersionSize {
		return path, v, false
	}
	copy(path[:], k[1:])
	v, err := record.VersionFrom(k[17:])
	return path, v, err == nil
}

// chainID names the chain of blocks of one incarnation of an origin.
type chainID struct {
	origin      record.PublicKey
	incarnation uint64
}

func parseChainKey(k []byte) (c chainID, seq uint64, d record.Digest, ok bool) {
	if len(k) != 1+32+8+8+32 {
		return c, 0, d, false
	}
	copy(c.origin[:], k[1:])
	c.incarnation = be.Uint64(k[33:])
	seq = be.Uint64(k[41:])
	copy(d[:], k[49:])
	return c, seq, d, true
}

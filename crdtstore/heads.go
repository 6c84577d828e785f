package crdtstore

import (
	"fmt"

	"syncagent/crdtstore/record"
)

// A head is nearly always the end of its chain. So the rows h name chains, and who writes alone changes none of them: rows of
// heads by digest, two of them for each block, were a ninth of what single puts took on disk. The rare others, forks and the
// genesis block, are named by digest.

// head is what is known of a head: a block of this chain, or the genesis block.
type head struct {
	priority uint64
	chain    chainID
}

func headOf(b *record.Block) head {
	h := head{priority: b.Priority}
	if b.Bundle != nil {
		h.chain = chainID{b.Origin, b.Incarnation}
	}
	return h
}

// headKeys gives the keys of the rows h, but for heads that have the same row in another state.
func (d *dagState) headKeys(but *dagState) map[string]bool {
	keys := make(map[string]bool)
	for digest, h := range d.heads {
		ends := d.chains[h.chain].last == digest
		if _, ok := but.heads[digest]; ok && (but.chains[h.chain].last == digest) == ends {
			continue
		}
		k := key('h', digest[:])
		if ends {
			k = key('h', h.chain.origin[:], u64(h.chain.incarnation))
		}
		keys[string(k)] = true
	}
	return keys
}

// headOfKey gives the head that a row h names, once the chains are known: of a chain that is not there a digest that no block
// has.
func (d *dagState) headOfKey(k []byte) (record.Digest, error) {
	switch k = k[1:]; len(k) {
	case 32:
		return record.Digest(k), nil
	case 32 + 8:
		return d.chains[chainID{record.PublicKey(k[:32]), be.Uint64(k[32:])}].last, nil
	}
	return record.Digest{}, fmt.Errorf("%w: head row", ErrCorrupt)
}

// headRows gives the changes of the rows h from one state to another.
func headRows(from, to *dagState, r *rows) {
	before, after := from.headKeys(to), to.headKeys(from)
	for k := range before {
		if !after[k] {
			r.delete([]byte(k))
		}
	}
	for k := range after {
		if !before[k] {
			r.set([]byte(k), nil)
		}
	}
}

package crdtstore

import (
	"bytes"
	"fmt"

	"syncagent/acl"
	"syncagent/crdtstore/fault"
	"syncagent/crdtstore/record"
)

// load reads what the owner keeps in memory, or makes a new store.
func (s *Store) load() error {
	if err := s.upgrade(); err != nil {
		return err
	}
	v := s.kv.View()
	defer v.Close()
	id, found, err := s.identity(v)
	if err != nil {
		return err
	}
	if found {
		err = s.loadRows(v, id)
	} else {
		s.publish(newDAGState())
	}
	if err != nil {
		return err
	}
	var random [17]byte
	if _, err := s.rand.Read(random[:]); err != nil {
		return fmt.Errorf("open store: %w", err)
	}
	s.run = be.Uint64(random[:])
	s.headLimit = 256 + int(random[16])

	s.engine, err = newEngine(s.kv.View, s.last.heads, s.checkOwn, s.log)
	if err != nil {
		return err
	}
	if !found {
		err = s.create()
	}
	if err != nil {
		return err
	}
	return s.start()
}

// create makes a new store: its identity row and the genesis block, in one commit.
func (s *Store) create() error {
	t := s.newTurn()
	defer t.view.Close()
	s.turn = t
	if err := s.newIncarnation(t.rows); err != nil {
		return err
	}
	genesis, err := s.engine.put(record.GenesisValue(s.network, 0))
	if err != nil {
		return fmt.Errorf("make genesis block: %w", err)
	}
	genesis, err = record.ParseGenesisBlock(genesis.Raw, s.network, 0)
	if err != nil {
		return fmt.Errorf("make genesis block: %w", err)
	}
	t.accept(genesis)
	s.engine.overlay.take(t.rows)
	headRows(s.last, t.dag, t.rows)
	s.counters.feedFirst = 1
	t.rows.set(countersKey, s.counters.encode())
	fault.Point("create.before-commit")
	if err := s.kv.Commit(t.rows); err != nil {
		return err
	}
	fault.Point("create.after-commit")
	t.dag.seal()
	s.publish(t.dag)
	return nil
}

// publish makes this what is known of the DAG, to the owner and to all others.
func (s *Store) publish(d *dagState) {
	s.last = d
	s.dag.Store(d)
}

// newIncarnation starts a new chain of own blocks.
func (s *Store) newIncarnation(r *rows) error {
	var b [8]byte
	if _, err := s.rand.Read(b[:]); err != nil {
		return fmt.Errorf("make incarnation: %w", err)
	}
	s.chain, s.renew = chainID{s.self, be.Uint64(b[:])}, false
	r.set(identityKey, identityRow{storeVersion, s.network, s.self, s.chain.incarnation}.encode())
	return nil
}

// start marks the new run in the change feed, so that every cursor of it names a row, and makes all of the past durable
// before anything leaves the host.
func (s *Store) start() error {
	s.opened = s.tick()
	s.counters.agentTime = s.opened
	r := newRows()
	s.counters.addFeed(r, s.run, nil)
	print := fingerprint(s.texts)
	r.set(policyMark, print[:])
	r.set(countersKey, s.counters.encode())
	fault.Point("start.before-commit")
	if err := s.kv.Commit(r); err != nil {
		return err
	}
	fault.Point("start.after-commit")
	if err := s.kv.Sync(); err != nil {
		return err
	}
	fault.Point("start.after-sync")
	s.committed.Store(s.counters.feed)
	s.stats.Store(s.newStats(s.last))
	return nil
}

// identity reads whose store it is, and refuses that of another network or a later version.
func (s *Store) identity(v view) (id identityRow, found bool, err error) {
	row, found, err := v.Get(identityKey)
	if err != nil || !found {
		return id, false, err
	}
	if id, err = decodeIdentity(row); err != nil {
		return id, true, err
	}
	if id.network != s.network {
		err = fmt.Errorf("%w: it holds %s, the config says %s", ErrNetwork, id.network, s.network)
	}
	return id, true, err
}

// loadRows reads a store that was there.
func (s *Store) loadRows(v view, id identityRow) error {
	s.chain = chainID{s.self, id.incarnation}
	if id.key != s.self {
		s.renew = true // the identity was replaced: its chain starts anew
	}
	raw, err := mustGet(v, countersKey)
	if err != nil {
		return err
	}
	if s.counters, err = decodeCounters(raw); err != nil {
		return err
	}
	if !fault.Planted("agent-time-back") {
		s.time = s.counters.agentTime
	}
	if err := s.loadPolicies(v); err != nil {
		return err
	}
	if err := s.loadDAG(v); err != nil {
		return err
	}
	if err := s.loadWaiting(v); err != nil {
		return err
	}
	if err := s.dropSpilled(v); err != nil {
		return err
	}
	return v.Scan([]byte{'t'}, nil, false, func(k, _ []byte) (bool, error) {
		if len(k) == 25 {
			s.wake = int64(be.Uint64(k[1:]))
		}
		return false, nil
	})
}

func (s *Store) loadPolicies(v view) error {
	err := v.Scan([]byte{'p'}, nil, false, func(_, value []byte) (bool, error) {
		p, err := acl.ParseSigned(append([]byte(nil), value...))
		if err != nil {
			return false, fmt.Errorf("%w: stored policy: %w", ErrCorrupt, err)
		}
		// An admin that is no longer pinned takes its policies with it.
		if _, ok := p.SignedBy(s.network, s.admins); ok {
			s.texts = append(s.texts, p)
		}
		return true, nil
	})
	if err != nil {
		return err
	}
	judged, _, err := v.Get(policyMark)
	if err != nil {
		return err
	}
	if print := fingerprint(s.texts); !bytes.Equal(judged, print[:]) {
		// The pins in the config changed since the rows were judged.
		s.counters.judgeAnew()
	}
	if in := s.effective(s.texts); in != nil {
		s.enforce(acl.Compile(s.network, in, s.texts))
	}
	return nil
}

// loadDAG reads heads, chain ends and what was set aside.
func (s *Store) loadDAG(v view) error {
	chains, err := chainEnds(v)
	if err != nil {
		return err
	}
	d := newDAGState()
	d.chains = chains
	if err := s.loadHeads(v, d); err != nil {
		return err
	}
	d.seal()
	s.publish(d)
	s.aside = map[record.Digest]bool{}
	return v.Scan([]byte{'q'}, nil, false, func(k, _ []byte) (bool, error) {
		if len(k) != 33 {
			return false, fmt.Errorf("%w: row of a block set aside", ErrCorrupt)
		}
		s.aside[record.Digest(k[1:])] = true
		return true, nil
	})
}

// chainEnds finds the end of every chain. Each costs two seeks, whatever its length.
func chainEnds(v view) (map[chainID]chain, error) {
	chains := map[chainID]chain{}
	for from := []byte{'o'}; from != nil; {
		var id chainID
		found := false
		err := v.Scan([]byte{'o'}, from, false, func(k, _ []byte) (bool, error) {
			id, _, _, found = parseChainKey(k)
			if !found {
				return false, fmt.Errorf("%w: chain row", ErrCorrupt)
			}
			return false, nil
		})
		if err != nil {
			return nil, err
		}
		if !found {
			break
		}
		var end chain
		err = v.Scan(chainPrefix(id), nil, true, func(k, _ []byte) (bool, error) {
			_, seq, digest, ok := parseChainKey(k)
			if !ok {
				return false, fmt.Errorf("%w: chain row", ErrCorrupt)
			}
			if end.seq != 0 && seq != end.seq {
				return false, nil
			}
			end = chain{seq, digest} // descending: the lowest digest of the highest number comes last
			return true, nil
		})
		if err != nil {
			return nil, err
		}
		chains[id] = end
		from = key('o', id.origin[:], u64(id.incarnation), u64(^uint64(0)))
	}
	return chains, nil
}

func (s *Store) loadHeads(v view, d *dagState) error {
	return v.Scan([]byte{'h'}, nil, false, func(k, _ []byte) (bool, error) {
		digest, err := d.headOfKey(k)
		if err != nil {
			return false, err
		}
		return true, s.loadHead(v, d, digest)
	})
}

// loadHead reads the block of a head.
func (s *Store) loadHead(v view, d *dagState, digest record.Digest) error {
	raw, err := mustGet(v, blockKey(digest))
	if err != nil {
		return err
	}
	b, err := record.ParseBlock(raw)
	if err != nil {
		b, err = record.ParseGenesisBlock(raw, s.network, 0)
	}
	if err != nil || b.Digest != digest {
		return fmt.Errorf("%w: head %s", ErrCorrupt, digest)
	}
	d.heads[digest] = headOf(b)
	return nil
}

// loadWaiting reads unready writes and wants.
func (s *Store) loadWaiting(v view) error {
	var waiting []*unreadyWrite
	err := v.Scan([]byte{'u'}, nil, false, func(k, value []byte) (bool, error) {
		if len(k) != 33 {
			return false, fmt.Errorf("%w: row of an unready write", ErrCorrupt)
		}
		u, err := decodeUnready(record.ID(k[1:]), value)
		if err != nil {
			return false, err
		}
		waiting = append(waiting, u)
		return true, nil
	})
	if err != nil {
		return err
	}
	lacks := make(map[record.ID]int)
	err = v.Scan([]byte{'n'}, nil, true, func(k, _ []byte) (bool, error) { // descending: highest version first
		path, version, ok := parseSlotKey(k)
		if !ok {
			return false, fmt.Errorf("%w: want row", ErrCorrupt)
		}
		sl, err := loadSlot(v, path, version)
		if err != nil {
			return false, err
		}
		s.wants.load(path, sl)
		lacks[version.Write] = int(version.Index)
		return true, nil
	})
	for _, u := range waiting {
		i, lacking := lacks[u.id]
		if u.lacks = i; !lacking { // it was ready, but postponed, when the agent stopped, or its wants were
			s.postpone(u)
		}
		if !fault.Planted("forget-unready") {
			s.rememberUnready(u)
		}
	}
	return err
}

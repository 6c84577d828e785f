package crdtstore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"syncagent/acl"
	"syncagent/crdtstore/fault"
	"syncagent/crdtstore/record"
)

// policiesKept is how many policy texts are kept beside the one in force and those that revoke keys.
const policiesKept = 10

// policyMark is the row that says which policies the rows are judged by, or being put right by.
var policyMark = []byte("mp")

// ErrPolicy wraps the reason why a policy text was not taken.
var ErrPolicy = errors.New("policy not accepted")

type policyRequest struct {
	signed *acl.Signed
	done   chan error
}

// SetPolicy takes a signed policy text. It returns nil when the text is kept, whether or not it is the one in force
// now (the highest serial is), or older than all that are kept, and waits until that is decided and durable. Errors wrap
// ErrPolicy.
func (s *Store) SetPolicy(ctx context.Context, text []byte) error {
	p, err := s.checkPolicy(text)
	if err != nil {
		return err
	}
	req := &policyRequest{p, make(chan error, 1)}
	if err := s.send(ctx, req); err != nil {
		return err
	}
	outcome, err := await(ctx, s, req.done)
	return errors.Join(err, outcome)
}

// checkPolicy reads a text that must be of this network and signed by an admin that is pinned here.
func (s *Store) checkPolicy(text []byte) (*acl.Signed, error) {
	p, err := acl.ParseSigned(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPolicy, err)
	}
	if p.Network != s.network {
		return nil, fmt.Errorf("%w: it is for network %s, this agent is in %s", ErrPolicy, p.Network, s.network)
	}
	if _, ok := p.SignedBy(s.network, s.admins); !ok {
		return nil, fmt.Errorf("%w: no signature by an admin key that this agent's config pins", ErrPolicy)
	}
	return p, nil
}

// Policies gives the signed texts to hand on, the one in force first.
func (s *Store) Policies() [][]byte {
	v := s.kv.View()
	defer v.Close()
	var texts [][]byte
	err := v.Scan([]byte{'p'}, nil, true, func(_, value []byte) (bool, error) {
		texts = append(texts, bytes.Clone(value))
		return true, nil
	})
	if err != nil {
		s.log.Error("policies unreadable", "error", err)
		return nil
	}
	return texts
}

// PolicyTaken tells when this agent took a kept text, by agent time; the zero time if that is not known.
func (s *Store) PolicyTaken(hash [32]byte) time.Time {
	v := s.kv.View()
	defer v.Close()
	raw, ok, err := v.Get(takenKey(hash))
	if err != nil || !ok || len(raw) != 8 {
		return time.Time{}
	}
	return time.UnixMilli(int64(be.Uint64(raw))).UTC()
}

// effective gives the text in force, nil if there is none: the highest of those that are not older than the floor. Older
// ones are kept for their revoke lines.
func (s *Store) effective(texts []*acl.Signed) *acl.Signed {
	in := acl.Effective(append(slices.Clone(texts), s.floor))
	if in == s.floor { // no text is newer; the floor itself may be among them
		for _, p := range texts {
			if p.Serial == s.floor.Serial && p.Hash == s.floor.Hash {
				return p
			}
		}
		return nil
	}
	return in
}

// fingerprint names a set of policy texts.
func fingerprint(texts []*acl.Signed) [32]byte {
	hashes := make([][]byte, len(texts))
	for i, p := range texts {
		hashes[i] = p.Hash[:]
	}
	slices.SortFunc(hashes, bytes.Compare)
	return sha256.Sum256(bytes.Join(hashes, nil))
}

// switchPolicy is a turn of its own: one small commit, after which every read judges by the new policy. The rows are
// put right by later turns.
func (s *Store) switchPolicy(req *policyRequest) error {
	if err := s.conclude(); err != nil { // turns and policies are told in their order
		return err
	}
	for i, p := range s.texts {
		if p.Hash == req.signed.Hash {
			return s.addSignatures(i, req)
		}
	}
	before := s.effective(s.texts)
	texts := append(slices.Clone(s.texts), req.signed)
	in := s.effective(texts)
	r := newRows()
	kept := s.pruneTexts(texts, in, r)
	if !slices.Contains(kept, req.signed) { // peers have it until they know ours, and nothing follows from it
		req.done <- nil
		return nil
	}
	if before != nil && before.Serial == req.signed.Serial {
		s.alarm("policy-twins", fmt.Sprintf("two policies with serial %d exist; the one with the higher hash is in force; "+
			"apply one with a higher serial", before.Serial))
	} else if before != nil && in.Serial > before.Serial {
		s.alarm("policy-twins", "")
	}
	r.set(policyKey(req.signed.Serial, req.signed.Hash), req.signed.Encode())
	r.set(takenKey(req.signed.Hash), u64(uint64(s.tick())))
	print := fingerprint(kept)
	r.set(policyMark, print[:])
	c := s.counters
	c.agentTime = s.tick()
	c.voided = c.agentTime
	c.judgeAnew()
	c.addFeed(r, s.run, []feedItem{{kind: feedPolicy}})
	r.set(countersKey, c.encode())
	fault.Point("policy.before-commit")
	if err := s.kv.Commit(r); err != nil {
		return err
	}
	fault.Point("policy.after-commit")
	if err := s.kv.Sync(); err != nil {
		return err
	}
	fault.Point("policy.after-sync")
	s.paths.clear() // what may not be read any more has no place in memory
	s.rowsBy = s.judgesOfRows()
	s.texts, s.counters = kept, c
	all := kept
	if fault.Planted("forget-revocations") {
		all = []*acl.Signed{in}
	}
	s.enforce(acl.Compile(s.network, in, all))
	s.committed.Store(c.feed)
	s.stats.Store(s.newStats(s.last))
	s.ring()
	if in == nil {
		req.done <- fmt.Errorf("%w: serial %d is not above %d, which was in force when this host joined; put a higher `serial` line into the text", ErrPolicy,
			req.signed.Serial, s.floor.Serial)
		return nil
	}
	if s.onPolicy != nil && in != before {
		s.onPolicy()
	}
	req.done <- nil
	return nil
}

// enforce puts a policy in force for readers and writers. One that asks for a format which this program does not know
// ends its writes: others would read what it writes, but not it what they write.
func (s *Store) enforce(p *acl.Policy) {
	before := s.Policy().Format()
	s.force.Store(&inForce{p, s.counters.generation})
	switch f := p.Format(); {
	case f > record.Format:
		s.alarm("old-version", fmt.Sprintf("the policy asks for format %d; this agent knows %d and writes nothing", f, record.Format))
	case before > record.Format:
		s.alarm("old-version", "")
	}
}

// addSignatures notes who else signed a text that is kept already: when the first admin is no longer pinned, the second
// one's signature holds it up.
func (s *Store) addSignatures(i int, req *policyRequest) error {
	merged := *s.texts[i]
	merged.Signatures = slices.Clone(merged.Signatures)
	for _, sig := range req.signed.Signatures {
		one := merged
		one.Signatures = []acl.Signature{sig}
		_, good := one.SignedBy(s.network, s.admins)
		if good && !slices.ContainsFunc(merged.Signatures, func(o acl.Signature) bool { return o.Admin == sig.Admin }) {
			merged.Signatures = append(merged.Signatures, sig)
		}
	}
	if len(merged.Signatures) > len(s.texts[i].Signatures) {
		slices.SortFunc(merged.Signatures, func(a, b acl.Signature) int { return record.CompareKeys(a.Admin, b.Admin) })
		r := newRows()
		r.set(policyKey(merged.Serial, merged.Hash), merged.Encode())
		if err := s.kv.Commit(r); err != nil {
			return err
		}
		if err := s.kv.Sync(); err != nil {
			return err
		}
		s.texts = slices.Clone(s.texts)
		s.texts[i] = &merged
	}
	req.done <- nil
	return nil
}

// pruneTexts keeps the text in force, the last ten, and all that revoke a key: a revocation counts for ever.
func (s *Store) pruneTexts(texts []*acl.Signed, in *acl.Signed, r *rows) []*acl.Signed {
	slices.SortFunc(texts, func(a, b *acl.Signed) int {
		if a.Serial != b.Serial {
			if a.Serial > b.Serial {
				return -1
			}
			return 1
		}
		return bytes.Compare(b.Hash[:], a.Hash[:])
	})
	var kept []*acl.Signed
	for i, p := range texts {
		if p == in || i <= policiesKept || p.File.Revokes() {
			kept = append(kept, p)
			continue
		}
		r.delete(policyKey(p.Serial, p.Hash))
		r.delete(takenKey(p.Hash))
	}
	return kept
}

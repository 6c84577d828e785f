package acl

import (
	"math"
	"slices"
	"strings"

	"syncagent/crdtstore/record"
)

// Policy judges. Compile makes it from the text in force. It never changes, is safe for concurrent use, and denies
// everything when it is nil.
type Policy struct {
	file    *File
	hash    [32]byte
	sys     record.Tag // of /.sys, which the prefix / does not cover
	root    node       // of the prefix /
	byTag   map[record.Tag]*node
	byPath  map[string]*node
	keys    map[record.PublicKey]*principal
	names   map[string]*principal // aliases, and names in certificates
	known   map[record.PublicKey]struct{}
	revoked map[record.PublicKey]struct{}
	keeps   map[record.Version]struct{}
	members []record.PublicKey // ascending
}

// forever is the time up to which writes of a key count that is not retired.
const forever = math.MaxInt64

// wholeWrite stands in keeps for all slots of a write. No slot has it: a write has at most 1,024.
const wholeWrite = 0xffff

// principal is somebody whom rules name: an identity, or a name in certificates of API clients.
type principal struct {
	alias    string
	key      record.PublicKey
	number   uint32
	groups   []uint32 // ascending
	identity bool     // * stands for it
	member   bool
	revoked  bool
	until    int64 // Unix milliseconds up to which its writes are judged by the rules; forever unless retired
}

// live tells whether the rules give rights for what is done now.
func (w *principal) live() bool { return w != nil && !w.revoked && w.until == forever }

// node is what the rules of one prefix grant. A node stands at one depth only, so that a slot cannot get rights by
// carrying the tag of a prefix in another place.
type node struct {
	depth       int
	read, write grants
	everyMember bool // read has all members: most often so where it matters, and spares asking for each
}

// grants is a set of principals. Groups and * stay what they are, so that a policy of many rules for many identities
// stays small.
type grants struct {
	all    bool
	groups []uint32 // ascending
	single []uint32 // ascending
}

func (g *grants) has(w *principal) bool {
	if g.all && w.identity {
		return true
	}
	if _, ok := slices.BinarySearch(g.single, w.number); ok {
		return true
	}
	few, many := w.groups, g.groups
	if len(few) > len(many) {
		few, many = many, few
	}
	for _, n := range few {
		if _, ok := slices.BinarySearch(many, n); ok {
			return true
		}
	}
	return false
}

func (n *node) allows(w *principal, op Op) bool {
	if op == Read {
		return n.read.has(w)
	}
	return n.write.has(w)
}

// may judges by the rules alone: whether w has op, Read or Write, at a place with these tags.
func (p *Policy) may(w *principal, tags []record.Tag, op Op) bool {
	if len(tags) == 0 {
		return false
	}
	if tags[0] != p.sys && p.root.allows(w, op) {
		return true
	}
	for i := range tags {
		if n := p.byTag[tags[i]]; n != nil && n.depth == i+1 && n.allows(w, op) {
			return true
		}
	}
	return false
}

// mayPath is may for a place with a name. "/" is the place of the rules for everything; what is no path is nobody's.
func (p *Policy) mayPath(w *principal, path string, op Op) bool {
	if path == "/" {
		return p.root.allows(w, op)
	}
	if len(path) > record.MaxPath || path == "" || path[0] != '/' || !cleanSegments(path) {
		return false
	}
	if !record.Reserved(path) && p.root.allows(w, op) {
		return true
	}
	for end, depth := 1, 1; end <= len(path); end++ {
		if end < len(path) && path[end] != '/' {
			continue
		}
		if n := p.byPath[path[:end]]; n != nil && n.depth == depth && n.allows(w, op) {
			return true
		}
		depth++
	}
	return false
}

// cleanSegments refuses the segments that change what a path means to those who resolve it. Paths are checked where
// they come in; this is the second lock.
func cleanSegments(path string) bool {
	for rest, more := path[1:], true; more; {
		var s string
		s, rest, more = strings.Cut(rest, "/")
		if s == "" || s == "." || s == ".." {
			return false
		}
	}
	return true
}

func (p *Policy) principal(k record.PublicKey) *principal {
	if p == nil {
		return nil
	}
	return p.keys[k]
}

// MayRead tells whether k may be sent the entry of a slot with these tags.
func (p *Policy) MayRead(k record.PublicKey, tags []record.Tag) bool {
	w := p.principal(k)
	return w.live() && p.may(w, tags, Read)
}

// MayWrite tells whether k may write now to the path with these tags. For writes of the past ask Allowed.
func (p *Policy) MayWrite(k record.PublicKey, tags []record.Tag) bool {
	w := p.principal(k)
	return w.live() && p.may(w, tags, Write)
}

// MayReadPath is MayRead for a path, which must be valid. For "/" it tells whether k may read everything but /.sys.
func (p *Policy) MayReadPath(k record.PublicKey, path string) bool {
	w := p.principal(k)
	return w.live() && p.mayPath(w, path, Read)
}

// MayWritePath is MayWrite for a path, as MayReadPath.
func (p *Policy) MayWritePath(k record.PublicKey, path string) bool {
	w := p.principal(k)
	return w.live() && p.mayPath(w, path, Write)
}

// MaySubjectRead tells whether an API client whose certificate bears the name subject, "cn:NAME" or "spiffe://...", may
// read path. Such names have the rights that rules give them by name; * and groups are for identities.
func (p *Policy) MaySubjectRead(subject, path string) bool {
	if p == nil {
		return false
	}
	w := p.names[subject]
	return w != nil && !w.identity && p.mayPath(w, path, Read)
}

// Allowed tells whether a slot counts: v is its version, tags are its tags, author signed its write. The rules must let
// the author write there, and no revoke or retired line may void the version; or a keep line names it, which an admin
// signed after a look at it, so that neither rules nor revocations matter.
func (p *Policy) Allowed(author record.PublicKey, tags []record.Tag, v record.Version) bool {
	w := p.principal(author)
	if w != nil && !w.revoked && v.HLC.Milli() <= w.until && p.may(w, tags, Write) {
		return true
	}
	return p.kept(v)
}

// SameReads tells whether a and b may read the same. It looks at every rule, so it is for now and then.
func (p *Policy) SameReads(a, b record.PublicKey) bool {
	v, w := p.principal(a), p.principal(b)
	if !v.live() || !w.live() {
		return v.live() == w.live()
	}
	all := p.root.read.has(v)
	if all != p.root.read.has(w) {
		return false
	}
	for path, n := range p.byPath {
		if all && !record.Reserved(path) {
			continue // both have it by the rule for everything
		}
		if n.read.has(v) != n.read.has(w) {
			return false
		}
	}
	return true
}

func (p *Policy) kept(v record.Version) bool {
	if p == nil || len(p.keeps) == 0 {
		return false
	}
	if _, ok := p.keeps[v]; ok {
		return true
	}
	v.Index = wholeWrite
	_, ok := p.keeps[v]
	return ok
}

// MembersMayRead tells whether every member may be sent the entry of a slot with these tags; false if there is none.
// It is slower than the others, by the number of members, where only several rules together let all of them read.
func (p *Policy) MembersMayRead(tags []record.Tag) bool {
	if p == nil || len(p.members) == 0 || len(tags) == 0 {
		return false
	}
	if tags[0] != p.sys && p.root.everyMember {
		return true
	}
	for i := range tags {
		if n := p.byTag[tags[i]]; n != nil && n.depth == i+1 && n.everyMember {
			return true
		}
	}
	for _, k := range p.members {
		if !p.MayRead(k, tags) {
			return false
		}
	}
	return true
}

// Member tells whether k may replicate.
func (p *Policy) Member(k record.PublicKey) bool {
	w := p.principal(k)
	return w != nil && w.member
}

// Members gives all identities that may replicate, in ascending order. The slice is the caller's.
func (p *Policy) Members() []record.PublicKey {
	if p == nil {
		return nil
	}
	return slices.Clone(p.members)
}

// Known tells whether the policy names k at all: as an identity, or as former, retired or revoked.
func (p *Policy) Known(k record.PublicKey) bool {
	if p == nil {
		return false
	}
	_, ok := p.known[k]
	return ok
}

// Live tells whether k is an identity that can have rights now: neither revoked nor retired.
func (p *Policy) Live(k record.PublicKey) bool { return p.principal(k).live() }

// Revoked tells whether any text revokes k.
func (p *Policy) Revoked(k record.PublicKey) bool {
	if p == nil {
		return false
	}
	_, ok := p.revoked[k]
	return ok
}

// Alias gives the name of k, empty if no identity line names it. A revoked or retired key keeps its name.
func (p *Policy) Alias(k record.PublicKey) string {
	if w := p.principal(k); w != nil {
		return w.alias
	}
	return ""
}

// KeyOf gives the key of an alias.
func (p *Policy) KeyOf(alias string) (record.PublicKey, bool) {
	if p == nil {
		return record.PublicKey{}, false
	}
	w := p.names[alias]
	if w == nil || !w.identity {
		return record.PublicKey{}, false
	}
	return w.key, true
}

// Serial gives the serial of the text in force, 0 if there is none.
func (p *Policy) Serial() uint64 {
	if p == nil {
		return 0
	}
	return p.file.Serial
}

// Hash gives the SHA-256 of the text in force, zero if there is none.
func (p *Policy) Hash() [32]byte {
	if p == nil {
		return [32]byte{}
	}
	return p.hash
}

// Format gives the highest block format that may be written: 1 unless the text says otherwise, 0 without a text.
func (p *Policy) Format() uint32 {
	switch {
	case p == nil:
		return 0
	case p.file.Format == 0:
		return 1
	}
	return p.file.Format
}

// File gives the parsed text in force, nil if there is none. It must not be changed.
func (p *Policy) File() *File {
	if p == nil {
		return nil
	}
	return p.file
}

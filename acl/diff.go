package acl

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"syncagent/crdtstore/record"
)

// RightChange is what somebody may do under one policy and not under another, at a prefix and below.
type RightChange struct {
	Subject string // alias, else peer ID, or the name in a certificate
	Path    string // empty for peer
	Gained  Op
	Lost    Op
	Kept    Op // of what is lost at the prefix above
}

// Diff gives the rights that come and go between two policies, by subject and prefix, without those that follow from a
// prefix above. Either may be nil.
func Diff(before, after *Policy) []RightChange {
	paths := prefixes(before, after)
	var changes []RightChange
	for _, who := range subjects(before, after) {
		if gained, lost := changed(who.peer(before), who.peer(after)); gained|lost != 0 {
			changes = append(changes, RightChange{Subject: who.name, Gained: gained, Lost: lost})
		}
		told := map[string]RightChange{}
		for _, path := range paths {
			has := who.at(after, path)
			gained, lost := changed(who.at(before, path), has)
			told[path] = RightChange{Gained: gained, Lost: lost}
			above := nearest(told, path)
			c := RightChange{who.name, path, gained &^ above.Gained, lost &^ above.Lost, has & above.Lost}
			if c.Gained|c.Lost|c.Kept != 0 {
				changes = append(changes, c)
			}
		}
	}
	return changes
}

func changed(before, after Op) (gained, lost Op) { return after &^ before, before &^ after }

// nearest gives what was found at the closest prefix above path, nothing if there is none. The rules for everything do
// not reach what is reserved.
func nearest(told map[string]RightChange, path string) RightChange {
	for i := strings.LastIndexByte(path, '/'); i > 0; i = strings.LastIndexByte(path[:i], '/') {
		if r, ok := told[path[:i]]; ok {
			return r
		}
	}
	if path == "/" || record.Reserved(path) {
		return RightChange{}
	}
	return told["/"]
}

// prefixes gives every path that a rule of any of the policies is about, and "/", ascending.
func prefixes(policies ...*Policy) []string {
	all := map[string]struct{}{"/": {}}
	for _, p := range policies {
		if p != nil {
			for path := range p.byPath {
				all[path] = struct{}{}
			}
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// subject is an identity or a name in certificates.
type subject struct {
	name string
	key  record.PublicKey // zero for names in certificates
}

func subjects(policies ...*Policy) []subject {
	names := map[subject]struct{}{}
	seen := map[record.PublicKey]struct{}{}
	for _, p := range slices.Backward(policies) { // what an identity is called after the change is its name
		if p == nil {
			continue
		}
		for name, w := range p.names {
			if !w.identity {
				names[subject{name: name}] = struct{}{}
				continue
			}
			if _, ok := seen[w.key]; !ok {
				seen[w.key] = struct{}{}
				names[subject{name, w.key}] = struct{}{}
			}
		}
	}
	return slices.SortedFunc(maps.Keys(names), func(a, b subject) int {
		return cmp.Or(cmp.Compare(a.name, b.name), record.CompareKeys(a.key, b.key))
	})
}

func (s subject) peer(p *Policy) (has Op) {
	if p.Member(s.key) {
		has = Peer
	}
	return has
}

func (s subject) at(p *Policy, path string) (has Op) {
	if s.key.IsZero() {
		if p.MaySubjectRead(s.name, path) {
			has = Read
		}
		return has
	}
	if p.MayReadPath(s.key, path) {
		has |= Read
	}
	if p.MayWritePath(s.key, path) {
		has |= Write
	}
	return has
}

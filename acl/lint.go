package acl

import (
	"fmt"
	"slices"

	"syncagent/crdtstore/record"
)

// Lint gives what an admin should know about a valid text before signing it: the warnings of the parser, and what the
// text as a whole grants too widely or not at all.
func Lint(f *File) []Warning {
	warnings := slices.Clone(f.Warnings)
	p := CompileFile(f.Network, f) // no decision about a path depends on the network
	for _, r := range f.Rules {
		if r.Path == "/" && r.Op == Read|Write && !isExternal(r.Subject) {
			warnings = append(warnings, Warning{
				r.Line, r.Subject + " may read and write everything",
				"give it the paths that it needs; a stolen host can do what its identity may",
			})
		}
	}
	for _, id := range f.Identities {
		switch {
		case p.Revoked(id.Key):
			warnings = append(warnings, Warning{id.Line, id.Alias + " is revoked: its rules grant nothing", ""})
		case !p.hasRule(id):
			warnings = append(warnings, Warning{id.Line, "no rule names " + id.Alias, "add a rule, or put it into a group"})
		}
	}
	slices.SortStableFunc(warnings, func(a, b Warning) int { return a.Line - b.Line })
	return append(warnings, p.lintMembers()...)
}

func (p *Policy) lintMembers() []Warning {
	if len(p.members) == 0 {
		return []Warning{{0, "no identity is a member: nobody replicates", "add a rule like `@hosts peer`"}}
	}
	readers := 0
	for _, k := range p.members {
		if p.MayReadPath(k, "/") {
			readers++
		}
	}
	if readers >= 2 {
		return nil
	}
	return []Warning{{
		0, fmt.Sprintf("%d of %d members may read /", readers, len(p.members)),
		"at least two hosts should hold everything, or what only one held is lost with it",
	}}
}

// hasRule tells whether any rule is about the identity.
func (p *Policy) hasRule(id Identity) bool {
	w := p.keys[id.Key]
	return slices.ContainsFunc(p.file.Rules, func(r Rule) bool { return p.standsFor(r.Subject, w) })
}

// standsFor tells whether a subject of a rule or test means w.
func (p *Policy) standsFor(subject string, w *principal) bool {
	switch {
	case subject == "*":
		return w.identity
	case subject[0] != '@':
		return subject == w.alias
	}
	return slices.ContainsFunc(p.file.Groups, func(g Group) bool {
		return g.Name == subject && slices.Contains(g.Members, w.alias)
	})
}

// TestFailure is a test line that does not hold.
type TestFailure struct {
	Line int
	Text string // what was expected, what is the case
}

func (f TestFailure) String() string { return fmt.Sprintf("line %d: %s", f.Line, f.Text) }

// RunTests checks the test lines of the text in force. `test allow` holds if all whom the line names have every right
// it names, `test deny` if none of them has any. A line that names nobody known fails: it would hold for a typing error.
func (p *Policy) RunTests() []TestFailure {
	if p == nil {
		return nil
	}
	var failures []TestFailure
	for _, t := range p.file.Tests {
		if text := p.runTest(t); text != "" {
			failures = append(failures, TestFailure{t.Line, text})
		}
	}
	return failures
}

// runTest gives what is wrong, empty if the test holds.
func (p *Policy) runTest(t Test) string {
	what := fmt.Sprintf("%s %s", t.Op, t.Path)
	if t.Op == Peer {
		what = "replicate"
	}
	if isExternal(t.Subject) {
		switch {
		case t.Op != Read:
			return t.Subject + " can only be allowed to read"
		case p.MaySubjectRead(t.Subject, t.Path) != t.Allow:
			return verdict(t.Subject, what, !t.Allow)
		}
		return ""
	}
	found := false
	for _, id := range p.file.Identities {
		if !p.standsFor(t.Subject, p.keys[id.Key]) {
			continue
		}
		found = true
		if every, one := p.holds(id.Key, t); t.Allow && !every || !t.Allow && one {
			return verdict(id.Alias, what, !t.Allow)
		}
	}
	if !found {
		return quote(t.Subject) + " names nobody known"
	}
	return ""
}

func verdict(who, what string, may bool) string {
	if may {
		return who + " may " + what + ", expected deny"
	}
	return who + " may not " + what + ", expected allow"
}

// holds tells whether k has every, and whether it has one, of the rights that the test is about.
func (p *Policy) holds(k record.PublicKey, t Test) (every, one bool) {
	every = true
	add := func(op Op, has bool) {
		if t.Op&op != 0 {
			every, one = every && has, one || has
		}
	}
	add(Peer, p.Member(k))
	add(Read, p.MayReadPath(k, t.Path))
	add(Write, p.MayWritePath(k, t.Path))
	return every, one
}

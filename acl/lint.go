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
	if isExternal(t.Subject) {
		var has Op
		if p.MaySubjectRead(t.Subject, t.Path) {
			has = Read
		}
		return t.verdict(t.Subject, has)
	}
	found := false
	for _, id := range p.file.Identities {
		if !p.standsFor(t.Subject, p.keys[id.Key]) {
			continue
		}
		found = true
		if text := t.verdict(id.Alias, p.rights(id.Key, t.Path)); text != "" {
			return text
		}
	}
	if !found {
		return quote(t.Subject) + " names nobody known"
	}
	return ""
}

// rights gives what k may do at path, and whether it is a member.
func (p *Policy) rights(k record.PublicKey, path string) (has Op) {
	if p.MayReadPath(k, path) {
		has |= Read
	}
	if p.MayWritePath(k, path) {
		has |= Write
	}
	if p.Member(k) {
		has |= Peer
	}
	return has
}

// verdict gives what is wrong for somebody who has these rights, empty if nothing is.
func (t Test) verdict(who string, has Op) string {
	place := t.Op.String()
	if t.Path != "" {
		place += " " + t.Path
	}
	switch {
	case t.Allow && t.Op&^has != 0:
		return fmt.Sprintf("%s may not %s: expected allow %s", who, verb(t.Op&^has), place)
	case !t.Allow && t.Op&has != 0:
		return fmt.Sprintf("%s may %s: expected deny %s", who, verb(t.Op&has), place)
	}
	return ""
}

func verb(op Op) string {
	switch op {
	case Peer:
		return "replicate"
	case Read | Write:
		return "read and write"
	}
	return op.String()
}

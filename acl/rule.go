package acl

import (
	"strings"

	"syncagent/crdtstore/record"
)

// selfSegment stands for the alias of the identity that is judged.
const selfSegment = "{self}"

const ruleForm = "identity path operation"

func (p *parser) rule() {
	subject := p.fields[0]
	path, op, ok := p.access(1)
	if !ok || !p.subject(subject) {
		return
	}
	if isExternal(subject.text) && (op != Read || hasSelf(path)) {
		p.fail(subject.at, "give the client an identity key for more", "a name in a certificate can be allowed to read a path, nothing else")
		return
	}
	p.file.Rules = append(p.file.Rules, Rule{subject.text, path, op, p.num})
}

// subject checks the form of who a rule or test is about. A name that is no alias is nobody known, which is for
// check to say.
func (p *parser) subject(f field) bool {
	var msg string
	switch {
	case isExternal(f.text):
		if err := checkExternal(f.text); err != nil {
			msg = err.Error()
		}
	case f.text[0] == '@' && !isGroupName(f.text):
		msg = quote(f.text) + " is no group"
	case f.text[0] == '/':
		msg = "the line begins with a path"
	}
	if msg != "" {
		p.fail(f.at, "want `"+ruleForm+"`", "%s", msg)
	}
	return msg == ""
}

// access reads `path operation` or `peer` from field i to the end of the line.
func (p *parser) access(i int) (path string, op Op, ok bool) {
	if p.fields[i].text == "peer" {
		return "", Peer, p.words("identity peer", i+1)
	}
	if !p.words(ruleForm, i+2) {
		return "", 0, false
	}
	f := p.fields[i+1]
	if op = opNames[f.text]; op == 0 || op == Peer {
		hint := "use read, write or rw"
		if op == Peer {
			hint = "want `identity peer`, without a path"
		}
		p.fail(f.at, hint, "unknown operation %s", quote(f.text))
		return "", 0, false
	}
	f = p.fields[i]
	path, err := record.CleanPrefix(f.text)
	if err != nil {
		p.fail(f.at, "", "%s", err)
		return "", 0, false
	}
	return path, op, p.segments(f, path)
}

// segments looks at what could be taken for a pattern.
func (p *parser) segments(f field, path string) bool {
	for s := range strings.SplitSeq(path[1:], "/") {
		switch {
		case s == selfSegment:
		case strings.Contains(s, selfSegment):
			p.fail(f.at+strings.Index(f.text, s), "for example /hosts/{self}", "{self} must be a whole segment")
			return false
		case s == "*" || s == "**" || strings.HasPrefix(s, "{") && strings.HasSuffix(s, "}"):
			p.warn(p.num, "a path covers everything below it; {self} is the only pattern",
				"segment %s is taken as it stands", quote(s))
		}
	}
	return true
}

func hasSelf(path string) bool { return strings.Contains(path, selfSegment) }

// expandSelf puts an alias in place of {self}. Only whole segments can be {self}, see segments.
func expandSelf(path, alias string) string { return strings.ReplaceAll(path, selfSegment, alias) }

func (p *parser) test() {
	verdict := p.fields[1]
	if verdict.text != "allow" && verdict.text != "deny" {
		p.fail(verdict.at, "want `"+statements["test"].form+"`", "unknown outcome %s", quote(verdict.text))
		return
	}
	subject := p.fields[2]
	if first := p.fields[3].text; first[0] != '/' && first != "peer" {
		p.fail(p.fields[3].at, "a path begins with /", "%s is not a path", quote(first))
		return
	}
	path, op, ok := p.access(3)
	if !ok || !p.subject(subject) {
		return
	}
	if hasSelf(path) {
		p.fail(p.fields[3].at, "write the name", "a test is about one path")
		return
	}
	p.file.Tests = append(p.file.Tests, Test{verdict.text == "allow", subject.text, path, op, p.num})
}

// check does what needs all lines.
func (p *parser) check() {
	fail := func(line int, hint, format string, args ...any) {
		p.num, p.raw = line, ""
		p.fail(0, hint, format, args...)
	}
	sizes := map[string]int{} // upper bounds: who is listed twice counts twice
	for _, g := range p.file.Groups {
		sizes[g.Name] += len(g.Members)
		for _, m := range g.Members {
			if p.aliases[m] == 0 {
				p.warn(g.Line, "add `identity "+m+" PEERID`", "%s names nobody known", m)
			}
		}
	}
	selves := 0
	for _, r := range p.file.Rules {
		n, known := sizes[r.Subject]
		switch {
		case isExternal(r.Subject), r.Subject == "*":
			known, n = true, len(p.file.Identities)
		case r.Subject[0] != '@':
			known, n = p.aliases[r.Subject] > 0, 1
		}
		if !known {
			p.warn(r.Line, "add an identity or group line", "%s names nobody known: the rule grants nothing", quote(r.Subject))
		}
		if !hasSelf(r.Path) {
			continue
		}
		if selves += n; selves > MaxSelf {
			fail(r.Line, "give one rule to a directory above", "rules with {self} make more than %d paths", MaxSelf)
			break
		}
	}
	for k, line := range p.former {
		if at := p.keys[k]; at > 0 {
			fail(line, "remove one of the lines", "this key is an identity on line %d: it cannot be former", at)
		}
	}
	for _, r := range p.file.Retired {
		if p.keys[r.Key] == 0 {
			p.warn(r.Line, "keep its identity line and its rules", "no line names this key, so no rule allows what it wrote")
		}
	}
}

package acl

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"syncagent/crdtstore/record"
)

// Parse reads a policy text. Signature lines at its end are left out of account: ParseSigned reads them.
// The error is a SyntaxErrors with up to 100 faults.
func Parse(text []byte) (*File, error) {
	body, _ := split(text)
	p := parser{
		file:    &File{},
		aliases: map[string]int{},
		keys:    map[record.PublicKey]int{},
		former:  map[record.PublicKey]int{},
		retired: map[record.PublicKey]int{},
		once:    map[string]int{},
	}
	if len(body) > MaxText {
		p.num = 1
		p.fail(0, "use groups and shorter lists of kept versions", "%d bytes, the limit is %d", len(body), MaxText)
		return nil, p.faults
	}
	for rest := string(body); rest != "" && len(p.faults) < maxFaults; {
		p.num++
		p.raw, rest = nextLine(rest)
		p.line()
	}
	p.check()
	if len(p.faults) > 0 {
		slices.SortStableFunc(p.faults, func(a, b *SyntaxError) int { return a.Line - b.Line })
		return nil, p.faults
	}
	slices.SortStableFunc(p.file.Warnings, func(a, b Warning) int { return a.Line - b.Line })
	return p.file, nil
}

// parser reads one line after the other, then checks what needs all of them. Its maps hold line numbers.
type parser struct {
	file   *File
	faults SyntaxErrors

	num    int
	raw    string
	fields []field

	aliases map[string]int
	keys    map[record.PublicKey]int // of identities
	former  map[record.PublicKey]int
	retired map[record.PublicKey]int
	once    map[string]int // words that may stand on one line only
	keeps   int
}

func (p *parser) fail(at int, hint, format string, args ...any) {
	col := 1
	if at <= len(p.raw) {
		col += utf8.RuneCountInString(p.raw[:at])
	}
	p.faults = append(p.faults, &SyntaxError{p.num, col, fmt.Sprintf(format, args...), hint})
}

func (p *parser) warn(line int, hint, format string, args ...any) {
	p.file.Warnings = append(p.file.Warnings, Warning{line, fmt.Sprintf(format, args...), hint})
}

// statement is a kind of line that is not a rule.
type statement struct {
	form  string // for messages
	words int    // fields, the keyword included; negative: at least
	once  bool
	parse func(p *parser)
}

var statements map[string]statement

func init() { // the functions refer to the table for their messages
	statements = map[string]statement{
		"syncagent-policy": {"syncagent-policy 1", 2, true, (*parser).version},
		"network":          {"network ID", 2, true, (*parser).network},
		"serial":           {"serial NUMBER", 2, true, (*parser).serial},
		"format":           {"format NUMBER", 2, true, (*parser).format},
		"identity":         {"identity NAME PEERID", 3, false, (*parser).identity},
		"group":            {"group @NAME IDENTITY...", -2, false, (*parser).group},
		"revoke":           {"revoke PEERID", 2, false, (*parser).revoke},
		"former":           {"former PEERID", 2, false, (*parser).formerKey},
		"retired":          {"retired PEERID TIME", 3, false, (*parser).retiredKey},
		"keep":             {"keep VERSION", 2, false, (*parser).keep},
		"test":             {"test allow|deny IDENTITY PATH OPERATION", -4, false, (*parser).test},
	}
}

func (p *parser) line() {
	if at, msg, hint := checkCharacters(p.raw); at >= 0 {
		p.fail(at, hint, "%s", msg)
		return
	}
	p.fields = fieldsOf(p.raw)
	if len(p.fields) == 0 {
		return
	}
	first := p.fields[0]
	st, known := statements[first.text]
	switch {
	case first.text == "deny":
		p.fail(first.at, "a policy only allows: narrow the rule that allows too much", "deny is reserved")
	case isRule(p.fields):
		p.rule()
	case first.text == "signature":
		p.fail(first.at, "remove it: the tool signs the text anew", "signature line inside the text")
	case !known:
		p.unknown()
	case !p.words(st.form, st.words):
	case st.once && p.once[first.text] > 0:
		p.fail(first.at, "remove one of the lines", "%s stands on line %d already", first.text, p.once[first.text])
	default:
		p.once[first.text] = p.num
		st.parse(p)
	}
}

// words checks the number of fields.
func (p *parser) words(form string, n int) bool {
	switch {
	case n < 0 && len(p.fields) >= -n, len(p.fields) == n:
		return true
	case n > 0 && len(p.fields) > n:
		p.fail(p.fields[n].at, "want `"+form+"`; a comment begins with #", "unexpected %s", quote(p.fields[n].text))
	default:
		p.fail(len(strings.TrimRight(p.raw, " \t")), "want `"+form+"`", "the line is too short")
	}
	return false
}

func (p *parser) unknown() {
	f := p.fields
	if len(f) > 1 && len(f) <= 3 && opNames[f[len(f)-1].text] > 0 {
		p.fail(f[1].at, "a path begins with /", "%s is not a path", quote(f[1].text))
		return
	}
	p.fail(f[0].at, "a rule is `identity path operation` or `identity peer`", "%s begins no known line", quote(f[0].text))
}

func (p *parser) version() {
	if f := p.fields[1]; f.text != "1" {
		p.fail(f.at, "this program reads version 1: upgrade it", "unknown version %s of the policy language", quote(f.text))
	}
}

func (p *parser) network() {
	id, err := record.ParseNetworkID(p.fields[1].text)
	if err != nil || id == (record.NetworkID{}) {
		p.fail(p.fields[1].at, "`syncagent id` shows it; leave the line out and the tool adds it",
			"%s is no network ID", quote(p.fields[1].text))
		return
	}
	p.file.Network = id
}

// number reads a decimal number in its shortest form.
func (p *parser) number(most uint64) uint64 {
	f := p.fields[1]
	n, err := strconv.ParseUint(f.text, 10, 64)
	if err != nil || n == 0 || n > most || strconv.FormatUint(n, 10) != f.text {
		p.fail(f.at, "", "%s: want a number from 1 to %d", quote(f.text), most)
		return 0
	}
	return n
}

func (p *parser) serial() { p.file.Serial = p.number(MaxSerial) }
func (p *parser) format() { p.file.Format = uint32(p.number(1<<32 - 1)) }

// key reads a peer ID from field i.
func (p *parser) key(i int) (record.PublicKey, bool) {
	k, err := parseKey(p.fields[i].text)
	if err != nil {
		p.fail(p.fields[i].at, "`syncagent id` shows it", "%s", err)
	}
	return k, err == nil
}

func (p *parser) identity() {
	name := p.fields[1]
	if err := CheckAlias(name.text); err != nil {
		p.fail(name.at, "choose another name", "%s", err)
		return
	}
	key, ok := p.key(2)
	if !ok {
		return
	}
	if line := p.aliases[name.text]; line > 0 {
		p.fail(name.at, "remove one of the lines or choose another name", "%s is named on line %d already", name.text, line)
		return
	}
	if line := p.keys[key]; line > 0 {
		p.fail(p.fields[2].at, "a key has one name: remove one of the lines", "this key is named on line %d already", line)
		return
	}
	p.aliases[name.text], p.keys[key] = p.num, p.num
	p.file.Identities = append(p.file.Identities, Identity{name.text, key, p.num})
}

func (p *parser) group() {
	name := p.fields[1]
	if !isGroupName(name.text) {
		p.fail(name.at, "a group is @ and a name", "%s is no group", quote(name.text))
		return
	}
	g := Group{Name: name.text, Line: p.num}
	for _, f := range p.fields[2:] {
		if err := CheckAlias(f.text); err != nil {
			p.fail(f.at, "a group lists names of identities", "%s cannot be in a group", quote(f.text))
			return
		}
		g.Members = append(g.Members, f.text)
	}
	p.file.Groups = append(p.file.Groups, g)
}

func (p *parser) revoke() {
	if k, ok := p.key(1); ok {
		p.file.Revoked = append(p.file.Revoked, KeyLine{k, p.num})
	}
}

func (p *parser) formerKey() {
	if k, ok := p.key(1); ok {
		p.former[k] = p.num
		p.file.Former = append(p.file.Former, KeyLine{k, p.num})
	}
}

func (p *parser) retiredKey() {
	k, ok := p.key(1)
	if !ok {
		return
	}
	until, err := time.Parse(time.RFC3339, p.fields[2].text)
	if err != nil || until.UnixMilli() < 0 {
		p.fail(p.fields[2].at, "like 2026-11-01T00:00:00Z", "%s is no time", quote(p.fields[2].text))
		return
	}
	if line := p.retired[k]; line > 0 {
		p.fail(p.fields[1].at, "remove one of the lines", "this key is retired on line %d already", line)
		return
	}
	p.retired[k] = p.num
	p.file.Retired = append(p.file.Retired, Retired{k, until.UTC(), p.num})
}

func (p *parser) keep() {
	if p.keeps++; p.keeps > MaxKeeps {
		if p.keeps == MaxKeeps+1 { // one fault for all of them
			p.fail(0, "leave the index off to keep a whole write, or have a trusted identity write the values again",
				"more than %d keep lines", MaxKeeps)
		}
		return
	}
	v, whole, err := record.ParseVersion(p.fields[1].text)
	if err != nil {
		p.fail(p.fields[1].at, "`syncagent history PATH` shows versions", "%s is no version", quote(p.fields[1].text))
		return
	}
	p.file.Keeps = append(p.file.Keeps, Keep{v, whole, p.num})
}

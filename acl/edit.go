package acl

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"syncagent/crdtstore/record"
)

// InitialPolicy gives the first text of a network, unsigned: one host, and rules under which every admitted host
// replicates, reads and writes everything.
func InitialPolicy(network record.NetworkID, name string, key record.PublicKey) []byte {
	return fmt.Appendf(nil, `syncagent-policy 1
network  %s
serial   1
format   1

# Hosts. "syncagent acl admit 'identity NAME PEERID'" adds one here and to the group.
%s
group    @hosts %s

# Every host of the group replicates, and reads and writes everything. To narrow that, replace the last rule, for
# example by
#   @hosts      /hosts/{self}  rw       each host writes below its own name
#   @hosts      /certs         read     all of them read the certificates
#   NAME        /certs         write    one of them writes these
# and keep two hosts that may read / so that no data is on one host alone. Then run "syncagent acl check".
@hosts   peer
@hosts   /  rw
`, network, Identity{Alias: name, Key: key}, name)
}

// document is a text as lines with their ends, for edits that leave all else as it is.
type document struct{ lines []string }

func newDocument(text []byte) *document {
	d := &document{}
	for line := range bytes.Lines(Unsigned(text)) {
		d.lines = append(d.lines, string(line))
	}
	return d
}

func (d *document) bytes() []byte { return []byte(strings.Join(d.lines, "")) }

// end gives the line end that the text uses.
func (d *document) end() string {
	if len(d.lines) > 0 && strings.HasSuffix(d.lines[0], "\r\n") {
		return "\r\n"
	}
	return "\n"
}

// insert puts a line before the line number at.
func (d *document) insert(at int, line string) {
	d.endLine(at - 1)
	d.lines = slices.Insert(d.lines, at, line+d.end())
}

// endLine gives the last line its end, if it has none or half of one.
func (d *document) endLine(i int) {
	if i >= 0 && !strings.HasSuffix(d.lines[i], "\n") {
		d.lines[i] = strings.TrimSuffix(d.lines[i], "\r") + d.end()
	}
}

// statement gives the fields of a line that begins with word and is no rule.
func (d *document) statement(i int, word string) []field {
	fields := fieldsOf(strings.TrimRight(d.lines[i], "\r\n"))
	if len(fields) == 0 || fields[0].text != word || isRule(fields) {
		return nil
	}
	return fields
}

// last gives the number of the last line that begins with word, and second if that is not empty; -1 if there is none.
func (d *document) last(word, second string) int {
	for i := len(d.lines) - 1; i >= 0; i-- {
		f := d.statement(i, word)
		if f != nil && (second == "" || len(f) > 1 && f[1].text == second) {
			return i
		}
	}
	return -1
}

// SetHeader gives the unsigned text with this network and serial. Lines that are there get the new value and keep their
// place and comment; missing ones, and the line of the language's version, are added at the top. The text need not be valid.
func SetHeader(text []byte, network record.NetworkID, serial uint64) []byte {
	d := newDocument(text)
	at := 0 // below the last header line so far
	for _, h := range []struct{ word, value string }{
		{"syncagent-policy", "1"}, {"network", network.String()}, {"serial", strconv.FormatUint(serial, 10)},
	} {
		i := d.last(h.word, "")
		switch {
		case i < 0:
			d.insert(at, fmt.Sprintf("%-8s %s", h.word, h.value))
			at++
			continue
		case h.word == "syncagent-policy": // another version is for Parse to refuse
		default:
			d.setValue(i, h.word, h.value)
		}
		at = i + 1
	}
	return d.bytes()
}

func (d *document) setValue(i int, word, value string) {
	f := d.statement(i, word)
	line := d.lines[i]
	if len(f) < 2 {
		stop := f[0].at + len(word)
		d.lines[i] = line[:stop] + " " + value + line[stop:]
		return
	}
	d.lines[i] = line[:f[1].at] + value + line[f[1].at+len(f[1].text):]
}

// Admit gives the unsigned text with a further identity, and its name in group unless that is empty. The line is what
// the joining host printed: `identity NAME PEERID`. Comments and layout stay; a former line of the key goes. What is
// there already is not added twice. It fails for an invalid text, a name or key that is taken, a revoked or retired
// key, and a group that no line defines. The serial is the caller's to raise, see SetHeader.
func Admit(text []byte, identityLine, group string) ([]byte, error) {
	id, err := ParseIdentity(identityLine)
	if err != nil {
		return nil, err
	}
	text = Unsigned(text)
	f, err := Parse(text)
	if err != nil {
		return nil, err
	}
	if group != "" && !f.HasGroup(group) {
		return nil, fmt.Errorf("policy has no group %s: add a line `group %s %s`", quote(group), group, id.Alias)
	}
	present, err := f.admits(id)
	if err != nil {
		return nil, err
	}
	d := newDocument(text)
	for i := len(d.lines) - 1; i >= 0; i-- {
		if s := d.statement(i, "former"); len(s) == 2 && s[1].text == id.Key.String() {
			d.lines = slices.Delete(d.lines, i, i+1)
		}
	}
	if !present {
		d.addIdentity(id)
	}
	if group != "" && !f.lists(group, id.Alias) {
		d.addMember(group, id.Alias)
	}
	text = d.bytes()
	if _, err := Parse(text); err != nil {
		return nil, fmt.Errorf("admit %s: %w", id.Alias, err)
	}
	return text, nil
}

// admits tells whether the text has the identity already, and why it must not get it.
func (f *File) admits(id Identity) (present bool, err error) {
	for _, o := range f.Identities {
		switch {
		case o.Alias == id.Alias && o.Key == id.Key:
			present = true
		case o.Alias == id.Alias:
			return false, fmt.Errorf("the name %s belongs to %s (line %d): choose another", id.Alias, o.Key, o.Line)
		case o.Key == id.Key:
			return false, fmt.Errorf("%s is admitted as %s (line %d): a key has one name", id.Key, o.Alias, o.Line)
		}
	}
	for _, k := range f.Revoked {
		if k.Key == id.Key {
			return false, fmt.Errorf("%s is revoked for ever (line %d): the host needs a new identity", id.Key, k.Line)
		}
	}
	for _, k := range f.Retired {
		if k.Key == id.Key {
			return false, fmt.Errorf("%s is retired (line %d): the host needs a new identity", id.Key, k.Line)
		}
	}
	return present, nil
}

// lists tells whether a line of the group has the alias.
func (f *File) lists(group, alias string) bool {
	return slices.ContainsFunc(f.Groups, func(g Group) bool { return g.Name == group && slices.Contains(g.Members, alias) })
}

// addIdentity puts the line below the last of its kind, else below the header, in the style of the line above.
func (d *document) addIdentity(id Identity) {
	at := d.last("identity", "")
	if at < 0 {
		at = max(d.last("syncagent-policy", ""), d.last("network", ""), d.last("serial", ""), d.last("format", ""))
	}
	d.insert(at+1, id.String())
}

// addMember adds the alias to the last line of the group, before its comment.
func (d *document) addMember(group, alias string) {
	i := d.last("group", group)
	f := d.statement(i, "group")
	end := f[len(f)-1]
	stop := end.at + len(end.text)
	d.lines[i] = d.lines[i][:stop] + " " + alias + d.lines[i][stop:]
}

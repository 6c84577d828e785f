package acl

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"syncagent/crdtstore/record"
)

// ErrTooManyKeeps is wrapped when a text would keep more versions than MaxKeeps.
var ErrTooManyKeeps = fmt.Errorf("more than %d kept versions", MaxKeeps)

// Find gives the key that a peer ID or an alias of the text means.
func (f *File) Find(keyOrAlias string) (record.PublicKey, error) {
	for _, id := range f.Identities {
		if id.Alias == keyOrAlias {
			return id.Key, nil
		}
	}
	if CheckAlias(keyOrAlias) == nil && !strings.HasPrefix(keyOrAlias, "12D3KooW") {
		return record.PublicKey{}, fmt.Errorf("no identity is named %s", keyOrAlias)
	}
	return parseKey(keyOrAlias)
}

// AliasOf gives the name of a key, empty if it has none.
func (f *File) AliasOf(key record.PublicKey) string {
	for _, id := range f.Identities {
		if id.Key == key {
			return id.Alias
		}
	}
	return ""
}

// Revoke gives the unsigned text with all writes of the key voided but the kept versions. The identity line becomes the
// revoke line, and its name leaves the groups and is free for another key: rules that name it give nothing to anybody
// until then. Tests of the name become comments, for they would fail. Comments and layout stay. Tests of groups may fail
// afterwards; a revocation does not wait for that. It fails for an invalid text and more than MaxKeeps kept versions.
func Revoke(text []byte, key record.PublicKey, keeps []Keep) ([]byte, error) {
	text = Unsigned(text)
	f, err := Parse(text)
	if err != nil {
		return nil, err
	}
	d := newDocument(text)
	alias := f.AliasOf(key)
	line := "revoke   " + key.String()
	if alias != "" {
		line += "  # was " + alias
	}
	at := d.replace("identity", 2, key.String(), line)
	d.remove("former", key.String())
	d.remove("retired", key.String())
	if alias != "" {
		d.removeMember(alias)
		d.removeTests(alias)
	}
	if revoked := slices.ContainsFunc(f.Revoked, func(k KeyLine) bool { return k.Key == key }); at < 0 && !revoked {
		at = d.append(line)
	} else if at < 0 {
		at = d.last("revoke", key.String())
	}
	if err := d.keep(f, at+1, keeps); err != nil {
		return nil, err
	}
	return d.checked("revoke")
}

// AddKeeps gives the unsigned text with further kept versions.
func AddKeeps(text []byte, keeps []Keep) ([]byte, error) {
	text = Unsigned(text)
	f, err := Parse(text)
	if err != nil {
		return nil, err
	}
	d := newDocument(text)
	at := d.last("keep", "") + 1
	if at == 0 {
		at = len(d.lines)
	}
	if err := d.keep(f, at, keeps); err != nil {
		return nil, err
	}
	return d.checked("keep")
}

// Retire gives the unsigned text with the key retired: it is known to be destroyed, has no rights any more, and what it
// wrote up to then stays. Its identity line and rules stay, for they say what it might write.
func Retire(text []byte, key record.PublicKey, until time.Time) ([]byte, error) {
	text = Unsigned(text)
	f, err := Parse(text)
	switch {
	case err != nil:
		return nil, err
	case f.AliasOf(key) == "":
		return nil, fmt.Errorf("no identity line names %s: only a known key can be retired", key)
	case slices.ContainsFunc(f.Retired, func(r Retired) bool { return r.Key == key }):
		return nil, fmt.Errorf("%s is retired already", key)
	}
	d := newDocument(text)
	d.insert(d.last("identity", f.AliasOf(key))+1, fmt.Sprintf("retired  %s %s", key, until.UTC().Format(time.RFC3339)))
	return d.checked("retire")
}

// KeepFormer gives the unsigned text with what must not be forgotten of the one before: revoke lines, which count for
// ever, as Revoke writes them, and a former line for each key that before names and text does not. Agents that meet old
// blocks of such a key then know it, and do not take them for a stranger's.
func KeepFormer(text []byte, before *File) ([]byte, error) {
	text = Unsigned(text)
	if before == nil {
		return text, nil
	}
	f, err := Parse(text)
	if err != nil {
		return nil, err
	}
	for _, k := range before.Revoked {
		said := slices.ContainsFunc(f.Revoked, func(o KeyLine) bool { return o.Key == k.Key })
		if said && f.AliasOf(k.Key) == "" {
			continue
		}
		if text, err = Revoke(text, k.Key, nil); err != nil {
			return nil, err
		}
		if f, err = Parse(text); err != nil {
			return nil, err
		}
	}
	known := map[record.PublicKey]bool{}
	for _, id := range f.Identities {
		known[id.Key] = true
	}
	for _, lines := range [][]KeyLine{f.Former, f.Revoked} {
		for _, k := range lines {
			known[k.Key] = true
		}
	}
	for _, r := range f.Retired {
		known[r.Key] = true
	}
	d := newDocument(text)
	name := func(k record.PublicKey, alias string) {
		if known[k] {
			return
		}
		known[k] = true
		line := "former   " + k.String()
		if alias != "" {
			line += "  # was " + alias
		}
		d.append(line)
	}
	for _, id := range before.Identities {
		name(id.Key, id.Alias)
	}
	for _, k := range before.Former {
		name(k.Key, "")
	}
	for _, r := range before.Retired {
		name(r.Key, "")
	}
	return d.checked("keep former keys")
}

// checked gives the text if it is still one.
func (d *document) checked(what string) ([]byte, error) {
	text := d.bytes()
	if _, err := Parse(text); err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return text, nil
}

// append adds a line at the end and gives its number.
func (d *document) append(line string) int {
	d.insert(len(d.lines), line)
	return len(d.lines) - 1
}

// replace puts another statement in place of the one whose field number is value; a comment stays below as it was. It
// gives the number of the line, -1 if there is none.
func (d *document) replace(word string, field int, value, line string) int {
	for i := range d.lines {
		if f := d.statement(i, word); len(f) > field && f[field].text == value {
			d.lines[i] = line + d.end()
			return i
		}
	}
	return -1
}

// remove deletes the statements whose first value is this.
func (d *document) remove(word, value string) {
	for i := len(d.lines) - 1; i >= 0; i-- {
		if f := d.statement(i, word); len(f) > 1 && f[1].text == value {
			d.lines = slices.Delete(d.lines, i, i+1)
		}
	}
}

// removeMember takes an alias out of all groups. A group stays, if need be empty.
func (d *document) removeMember(alias string) {
	for i := range d.lines {
		f := d.statement(i, "group")
		for n := len(f) - 1; n >= 2; n-- {
			if f[n].text != alias {
				continue
			}
			end := f[n].at + len(alias)
			start := f[n-1].at + len(f[n-1].text)
			d.lines[i] = d.lines[i][:start] + d.lines[i][end:]
		}
	}
}

// removeTests makes comments of the tests of an alias.
func (d *document) removeTests(alias string) {
	for i := range d.lines {
		if f := d.statement(i, "test"); len(f) > 2 && f[2].text == alias {
			d.lines[i] = "# " + alias + " is revoked: " + d.lines[i]
		}
	}
}

// keep adds keep lines before the line number at, without those that are there.
func (d *document) keep(f *File, at int, keeps []Keep) error {
	have := map[Keep]bool{}
	for _, k := range f.Keeps {
		have[Keep{Version: k.Version, Whole: k.Whole}] = true
	}
	var lines []string
	for _, k := range keeps {
		k.Line = 0
		if have[k] {
			continue
		}
		have[k] = true
		version := k.Version.String()
		if k.Whole {
			version = k.Version.WriteString()
		}
		lines = append(lines, "keep     "+version+d.end())
	}
	if n := len(f.Keeps) + len(lines); n > MaxKeeps {
		return fmt.Errorf("%w (%d)", ErrTooManyKeeps, n)
	}
	if len(lines) == 0 {
		return nil
	}
	d.endLine(at - 1)
	d.lines = slices.Insert(d.lines, at, lines...)
	return nil
}

// ParseKeeps reads a list of versions to keep: the first word of each line, as `syncagent acl revoke --since` prints
// them. Empty lines and what follows a # do not count.
func ParseKeeps(text []byte) ([]Keep, error) {
	var keeps []Keep
	rest := string(text)
	for n := 1; rest != ""; n++ {
		var line string
		line, rest = nextLine(rest)
		fields := fieldsOf(line)
		if len(fields) == 0 {
			continue
		}
		v, whole, err := record.ParseVersion(fields[0].text)
		if err != nil {
			return nil, fmt.Errorf("line %d: %s is no version", n, quote(fields[0].text))
		}
		keeps = append(keeps, Keep{Version: v, Whole: whole})
	}
	return keeps, nil
}

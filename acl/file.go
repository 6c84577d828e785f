package acl

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"syncagent/crdtstore/record"
)

// Limits of a policy text, protocol constants: all agents must agree on what a valid text is.
const (
	MaxText   = 1 << 20   // bytes of the text without its signatures
	MaxKeeps  = 10_000    // keep lines
	MaxSelf   = 1 << 18   // pairs of a {self} rule and an identity that it names
	MaxSerial = 1<<53 - 1 // exact in every JSON reader
	MaxAlias  = 63        // bytes of an alias
)

// Op is what a rule allows: a set of Read, Write and Peer.
type Op uint8

// The operations. Write does not imply Read. Peer stands alone.
const (
	Read Op = 1 << iota
	Write
	Peer
)

var opNames = map[string]Op{"read": Read, "r": Read, "write": Write, "w": Write, "rw": Read | Write, "peer": Peer}

func (o Op) String() string {
	switch o {
	case Read:
		return "read"
	case Write:
		return "write"
	case Read | Write:
		return "rw"
	case Peer:
		return "peer"
	}
	return fmt.Sprintf("Op(%d)", uint8(o))
}

// File is a parsed policy text. Line numbers count from 1.
type File struct {
	Network    record.NetworkID // zero if the text does not say
	Serial     uint64           // zero if the text does not say
	Format     uint32           // zero if the text does not say
	Identities []Identity
	Groups     []Group // one for each group line: lines of one name add up
	Rules      []Rule
	Revoked    []KeyLine
	Former     []KeyLine
	Retired    []Retired
	Keeps      []Keep
	Tests      []Test
	Warnings   []Warning // in the order of lines
}

// Identity gives a key its alias.
type Identity struct {
	Alias string
	Key   record.PublicKey
	Line  int
}

// String gives the line that `acl admit` takes.
func (id Identity) String() string { return "identity " + id.Alias + " " + id.Key.String() }

// Group is one group line.
type Group struct {
	Name    string // with its @
	Members []string
	Line    int
}

// Rule allows Subject to do Op at Path and below.
type Rule struct {
	Subject string // alias, @group, *, cn:NAME or spiffe://...
	Path    string // clean prefix, may hold {self} segments; empty for peer
	Op      Op
	Line    int
}

// KeyLine is a revoke or former line.
type KeyLine struct {
	Key  record.PublicKey
	Line int
}

// Retired is a key that is known to be destroyed: its writes up to Until are judged as before.
type Retired struct {
	Key   record.PublicKey
	Until time.Time
	Line  int
}

// Keep names a version that counts, whatever the rules say. Whole keeps all slots of the write; the index is zero then.
type Keep struct {
	Version record.Version
	Whole   bool
	Line    int
}

// Test is an expectation about the other lines.
type Test struct {
	Allow   bool
	Subject string
	Path    string // empty for peer
	Op      Op
	Line    int
}

// Revokes tells whether the text has a revoke line. Such texts are kept for ever.
func (f *File) Revokes() bool { return len(f.Revoked) > 0 }

// HasGroup tells whether a line defines the group. The name has its @.
func (f *File) HasGroup(name string) bool {
	return slices.ContainsFunc(f.Groups, func(g Group) bool { return g.Name == name })
}

// keywords cannot be aliases, so that no line can be read in two ways.
var keywords = []string{
	"syncagent-policy", "network", "serial", "format", "identity", "group", "peer", "read", "r", "write", "w", "rw",
	"cn", "spiffe", "revoke", "keep", "retired", "former", "test", "allow", "deny", "signature", "self",
}

// CheckAlias returns an error unless name can be the alias of an identity: 1 to 63 of A-Z a-z 0-9 . _ -, first a letter
// or digit, no word of the policy language.
func CheckAlias(name string) error {
	switch {
	case !isName(name):
		return fmt.Errorf("name %s: want 1 to %d of A-Z a-z 0-9 . _ - that begin with a letter or digit", quote(name), MaxAlias)
	case slices.Contains(keywords, name):
		return fmt.Errorf("name %q is a word of the policy language", name)
	}
	return nil
}

func isName(s string) bool {
	if s == "" || len(s) > MaxAlias || !isAlphanumeric(s[0]) {
		return false
	}
	for i := range len(s) {
		if !isAlphanumeric(s[i]) && s[i] != '.' && s[i] != '_' && s[i] != '-' {
			return false
		}
	}
	return true
}

func isAlphanumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

func isGroupName(s string) bool { return strings.HasPrefix(s, "@") && isName(s[1:]) }

// isExternal tells subjects that are names in certificates of API clients from those that are identities.
func isExternal(subject string) bool {
	return strings.HasPrefix(subject, "cn:") || strings.HasPrefix(subject, "spiffe:")
}

// IsSubject tells whether a rule could name subject: "cn:NAME" or "spiffe://DOMAIN/PATH", as one word.
func IsSubject(subject string) bool {
	at, _, _ := checkCharacters(subject)
	return at < 0 && isExternal(subject) && checkExternal(subject) == nil && !strings.ContainsAny(subject, " \t")
}

// checkExternal refuses names that no certificate can have. A SPIFFE ID has a trust domain; see its standard, section 2.
func checkExternal(subject string) error {
	if name, ok := strings.CutPrefix(subject, "cn:"); ok {
		if name == "" || name == "*" {
			return errors.New("cn: needs one common name")
		}
		return nil
	}
	domain, _, _ := strings.Cut(strings.TrimPrefix(subject, "spiffe://"), "/")
	if !strings.HasPrefix(subject, "spiffe://") || domain == "" || strings.Contains(subject, "*") {
		return errors.New("want spiffe://domain/path")
	}
	return nil
}

// parseKey reads a peer ID in its one canonical text form.
func parseKey(s string) (record.PublicKey, error) {
	if len(s) > 128 {
		return record.PublicKey{}, fmt.Errorf("peer ID %s: want one like 12D3KooW", quote(s))
	}
	k, err := record.ParsePublicKey(s)
	if err != nil {
		return k, err
	}
	if k.String() != s {
		return k, fmt.Errorf("peer ID %q: write it as %s", s, k)
	}
	return k, nil
}

// ParseIdentity reads the line `identity NAME PEERID` that a host prints when it joins.
func ParseIdentity(line string) (Identity, error) {
	line = strings.TrimSpace(line)
	if at, msg, _ := checkCharacters(line); at >= 0 {
		return Identity{}, fmt.Errorf("identity line: %s", msg)
	}
	fields := fieldsOf(line)
	if len(fields) != 3 || fields[0].text != "identity" {
		return Identity{}, fmt.Errorf("identity line %s: want `identity NAME PEERID`", quote(line))
	}
	if err := CheckAlias(fields[1].text); err != nil {
		return Identity{}, err
	}
	key, err := parseKey(fields[2].text)
	if err != nil {
		return Identity{}, err
	}
	return Identity{Alias: fields[1].text, Key: key}, nil
}

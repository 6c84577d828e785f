package acl

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"syncagent/crdtstore/record"
)

func TestParseEveryLineKind(t *testing.T) {
	v := version(5, "w", 3)
	f := mustParse(t, strings.Join([]string{
		"syncagent-policy 1",
		"# a comment with \uFFFD in it, then an empty line",
		"",
		"network\t" + testNetwork.String(),
		"  serial   42  ",
		"format 2 # with a comment",
		"identity web1 $web1",
		"identity web2 $web2\r",
		"group @web web1",
		"group @web\tweb2 ghost",
		"group @none",
		"@web peer",
		"@web /hosts/{self} rw",
		"web1 /certs/ w",
		"* / r",
		"* /a#b read",
		"cn:grafana /metrics read",
		"spiffe://example.org/web /metrics r",
		"revoke $thief",
		"retired $web2 2026-11-01T01:00:00+01:00",
		"former $gone",
		"keep " + v.String(),
		"keep " + v.WriteString(),
		"test allow web1 /hosts/web1/facts write",
		"test deny @web peer",
	}, "\n"))
	want := &File{
		Network: testNetwork, Serial: 42, Format: 2,
		Identities: []Identity{{"web1", key("web1"), 7}, {"web2", key("web2"), 8}},
		Groups:     []Group{{"@web", []string{"web1"}, 9}, {"@web", []string{"web2", "ghost"}, 10}, {"@none", nil, 11}},
		Rules: []Rule{
			{"@web", "", Peer, 12},
			{"@web", "/hosts/{self}", Read | Write, 13},
			{"web1", "/certs", Write, 14},
			{"*", "/", Read, 15},
			{"*", "/a#b", Read, 16},
			{"cn:grafana", "/metrics", Read, 17},
			{"spiffe://example.org/web", "/metrics", Read, 18},
		},
		Revoked:  []KeyLine{{key("thief"), 19}},
		Retired:  []Retired{{key("web2"), time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC), 20}},
		Former:   []KeyLine{{key("gone"), 21}},
		Keeps:    []Keep{{v, false, 22}, {record.Version{HLC: v.HLC, Write: v.Write}, true, 23}},
		Tests:    []Test{{true, "web1", "/hosts/web1/facts", Write, 24}, {false, "@web", "", Peer, 25}},
		Warnings: []Warning{{10, "ghost names nobody known", "add `identity ghost PEERID`"}},
	}
	if !reflect.DeepEqual(f, want) {
		t.Errorf("got\n%+v\nwant\n%+v", f, want)
	}
}

func TestParseErrors(t *testing.T) {
	const id = "identity web1 $web1\n"
	self := "group @all" + strings.Repeat(" web1", 1<<10) + "\n"
	for _, c := range []struct {
		name, text string
		line, col  int
		msg        string
	}{
		{"unknown version", "syncagent-policy 2", 1, 18, `unknown version "2"`},
		{"version without number", "syncagent-policy", 1, 17, "too short"},
		{"network", "network xyz", 1, 9, "no network ID"},
		{"network upper case", "network " + strings.ToUpper(testNetwork.String()), 1, 9, "no network ID"},
		{"zero network", "network " + record.NetworkID{}.String(), 1, 9, "no network ID"},
		{"two networks", "network " + testNetwork.String() + "\n\nnetwork " + testNetwork.String(), 3, 1, "on line 1 already"},
		{"serial zero", "serial 0", 1, 8, "want a number"},
		{"serial sign", "serial +1", 1, 8, "want a number"},
		{"serial leading zero", "serial 01", 1, 8, "want a number"},
		{"serial too large", "serial 9007199254740992", 1, 8, "want a number"},
		{"serial twice", "serial 1\nserial 1", 2, 1, "on line 1 already"},
		{"serial with more", "serial 1 2", 1, 10, `unexpected "2"`},
		{"format", "format 4294967296", 1, 8, "want a number"},
		{"identity short", "identity web1  ", 1, 14, "too short"},
		{"identity long", id[:len(id)-1] + " x", 1, 68, `unexpected "x"`},
		{"identity bad key", "identity web1 12D3KooW", 1, 15, "peer ID"},
		{"identity key in another form", "identity web1 k51qzi5uqu5dgutdk6i1ynyzgkqngpha5xpgia3a5qqp4jsh0u4csozksxel2r", 1, 15, "peer ID"},
		{"identity weak key", "identity web1 " + record.PublicKey{1}.String(), 1, 15, "small order"},
		{"identity group name", "identity @web $web1", 1, 10, "want 1 to 63"},
		{"identity long name", "identity " + strings.Repeat("a", 64) + " $web1", 1, 10, "want 1 to 63"},
		{"identity star", "identity * $web1", 1, 10, "want 1 to 63"},
		{"identity dots", "identity .. $web1", 1, 10, "want 1 to 63"},
		{"identity slash", "identity a/b $web1", 1, 10, "want 1 to 63"},
		{"identity self", "identity {self} $web1", 1, 10, "want 1 to 63"},
		{"identity not ASCII", "identity wéb $web1", 1, 10, "want 1 to 63"},
		{"identity named twice", id + id, 2, 10, "on line 1 already"},
		{"alias bound twice", id + "identity web1 $web2", 2, 10, "web1 is named on line 1"},
		{"key bound twice", id + "identity web2 $web1", 2, 15, "this key is named on line 1"},
		{"group without @", "group web web1", 1, 7, "is no group"},
		{"group without name", "group", 1, 6, "too short"},
		{"group in group", "group @a @b", 1, 10, "cannot be in a group"},
		{"star in group", "group @a *", 1, 10, "cannot be in a group"},
		{"deny", "deny web1 /x read", 1, 1, "deny is reserved"},
		{"deny like a rule", "deny /x read", 1, 1, "deny is reserved"},
		{"deny as operation", "web1 /x deny", 1, 9, `unknown operation "deny"`},
		{"unknown line", "ident web1 $web1", 1, 1, "begins no known line"},
		{"one word", "\tweb1", 1, 2, "begins no known line"},
		{"relative path", "web1 certs read", 1, 6, `"certs" is not a path`},
		{"rule without operation", "web1 /certs", 1, 12, "too short"},
		{"operation", "web1 /certs raed # x", 1, 13, `unknown operation "raed"`},
		{"operation upper case", "web1 /certs READ", 1, 13, `unknown operation "READ"`},
		{"peer with path", "web1 /certs peer", 1, 13, `unknown operation "peer"`},
		{"path after peer", "web1 peer /certs", 1, 11, "unexpected"},
		{"more after operation", "web1 /certs read write", 1, 18, "unexpected"},
		{"path with ..", "web1 /certs/../x read", 1, 6, "segment"},
		{"path with empty segment", "web1 /certs//x read", 1, 6, "empty segment"},
		{"path with two slashes at the end", "web1 /certs// read", 1, 6, "empty segment"},
		{"two slashes", "web1 // read", 1, 6, "bad path"},
		{"path too long", "web1 /" + strings.Repeat("a", 1<<20-100) + " read", 1, 6, "the limit is 1024"},
		{"{self} in a segment", "web1 /hosts/x{self} rw", 1, 13, "{self} must be a whole segment"},
		{"{self} twice in a segment", "web1 /{self}{self} rw", 1, 7, "{self} must be a whole segment"},
		{"{self} for a certificate", "cn:a /hosts/{self} read", 1, 1, "name in a certificate"},
		{"certificate that writes", "cn:a /x rw", 1, 1, "name in a certificate"},
		{"certificate that replicates", "cn:a peer", 1, 1, "name in a certificate"},
		{"empty common name", "cn: /x read", 1, 1, "needs one common name"},
		{"any common name", "cn:* /x read", 1, 1, "needs one common name"},
		{"spiffe without slashes", "spiffe:a /x read", 1, 1, "want spiffe://domain/path"},
		{"spiffe without domain", "spiffe:///a /x read", 1, 1, "want spiffe://domain/path"},
		{"group name in a rule", "@ /x read", 1, 1, "is no group"},
		{"path first", "/x /y read", 1, 1, "begins with a path"},
		{"revoke by name", "revoke web1", 1, 8, "peer ID"},
		{"former", "former", 1, 7, "too short"},
		{"former and identity", "former $web1\n" + id, 1, 1, "is an identity on line 2"},
		{"retired without time", "retired $web1", 1, 61, "too short"},
		{"retired time", "retired $web1 yesterday", 1, 62, "is no time"},
		{"retired before 1970", "retired $web1 1969-01-01T00:00:00Z", 1, 62, "is no time"},
		{"retired twice", id + "retired $web1 2026-01-01T00:00:00Z\nretired $web1 2027-01-01T00:00:00Z", 3, 9, "retired on line 2"},
		{"keep", "keep 0", 1, 6, "is no version"},
		{"test outcome", "test maybe web1 /x read", 1, 6, "unknown outcome"},
		{"test short", "test allow web1", 1, 16, "too short"},
		{"test path", "test allow web1 x read", 1, 17, "is not a path"},
		{"test operation", "test allow web1 /x reed", 1, 20, "unknown operation"},
		{"test {self}", "test allow web1 /x/{self} read", 1, 17, "one path"},
		{"signature inside", "serial 1\nsignature a b\nweb1 peer", 2, 1, "inside the text"},
		{"byte order mark", "\uFEFFserial 1", 1, 1, "byte order mark"},
		{"byte order mark in a comment", "# \uFEFF", 1, 3, "byte order mark"},
		{"NUL", "web1 /é\x00 read", 1, 8, "control character U+0000"},
		{"escape in a comment", "# \x1b[2J", 1, 3, "control character U+001B"},
		{"C1 control", "# \u009b", 1, 3, "control character U+009B"},
		{"carriage return inside", "web1 peer\rweb2 peer", 1, 10, "control character U+000D"},
		{"two carriage returns", "web1 peer\r\r\n", 1, 10, "control character U+000D"},
		{"reordering", "# \u202e", 1, 3, "changes the order"},
		{"line separator", "# x\u2028web1 / rw", 1, 4, "changes the order"},
		{"not UTF-8", "# \xff", 1, 3, "not valid UTF-8"},
		{"too large", strings.Repeat("#\n", 1<<19) + "#", 1, 1, "the limit is 1048576"},
		{"too many keeps", strings.Repeat("keep "+version(1, "", 0).String()+"\n", MaxKeeps+2), MaxKeeps + 1, 1, "more than 10000"},
		{"too many paths by {self}", id + self + strings.Repeat("@all /x/{self} read\n", 257), 259, 1, "more than 262144 paths"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := Parse([]byte(fill(c.text)))
			var e *SyntaxError
			if !errors.As(err, &e) || f != nil {
				t.Fatalf("got %v, want a syntax error", err)
			}
			if n := len(err.(SyntaxErrors)); n != 1 {
				t.Errorf("%d faults, want 1: %v", n, err)
			}
			if e.Line != c.line || e.Col != c.col || !strings.Contains(e.Msg, c.msg) {
				t.Errorf("got %v\nwant line %d, column %d: ...%s...", e, c.line, c.col, c.msg)
			}
			if len(e.Error()) > 400 {
				t.Errorf("message of %d bytes", len(e.Error()))
			}
		})
	}
}

func TestParseNamesAllFaults(t *testing.T) {
	_, err := Parse([]byte(fill("former $b\nserial x\nweb1 peer\nidentity b $b\nweb1 /x reed\n")))
	want := "line 1, column 1: this key is an identity on line 4: it cannot be former (remove one of the lines)\n" +
		"line 2, column 8: \"x\": want a number from 1 to 9007199254740991\n" +
		"line 5, column 9: unknown operation \"reed\" (use read, write or rw)"
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	_, err = Parse([]byte(strings.Repeat("nonsense\n", 1000)))
	if faults := err.(SyntaxErrors); len(faults) != maxFaults {
		t.Errorf("%d faults, want %d", len(faults), maxFaults)
	}
}

// Words of the language are no names, but files of replds may use them as such: a line is a rule by its second field.
func TestParseKeywords(t *testing.T) {
	for _, word := range keywords {
		if CheckAlias(word) == nil {
			t.Errorf("%q passes for an alias", word)
		}
		if _, err := Parse([]byte(fill("identity " + word + " $web1"))); err == nil {
			t.Errorf("identity %s is accepted", word)
		}
		f, err := Parse([]byte(word + " /certs read\n" + word + " peer\n"))
		if word == "deny" {
			if err == nil {
				t.Error("deny begins a rule")
			}
			continue
		}
		if err != nil || len(f.Rules) != 2 || len(f.Warnings) != 2 {
			t.Errorf("rules of %q: %v", word, err)
		}
	}
	for word := range statements {
		if CheckAlias(word) == nil {
			t.Errorf("statement %q passes for an alias", word)
		}
	}
	for word := range opNames {
		if CheckAlias(word) == nil {
			t.Errorf("operation %q passes for an alias", word)
		}
	}
	for _, name := range []string{"a", "7", "web-1.example_org", "Peer", "selfie", strings.Repeat("a", 63)} {
		if err := CheckAlias(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestParseWarnings(t *testing.T) {
	for _, c := range []struct {
		text string
		want string
	}{
		{"web1 /certs read", `line 1: "web1" names nobody known: the rule grants nothing`},
		{"@web peer", `line 1: "@web" names nobody known`},
		{"user@host /certs read", `line 1: "user@host" names nobody known`},
		{"\n* /certs/* read", `line 2: segment "*" is taken as it stands`},
		{"* /certs/{host} read", `line 1: segment "{host}" is taken as it stands`},
		{"group @web web1", "line 1: web1 names nobody known"},
		{"retired $web1 2026-01-01T00:00:00Z", "line 1: no line names this key"},
		{"ghost /x read\ngroup @g nobody", `[line 1: "ghost" names`},
		{"cn:x /certs read", ""},
		{"identity web1 $web1\nweb1 /certs read\ngroup @none\n@none /x read", ""},
	} {
		got := fmt.Sprint(mustParse(t, c.text).Warnings)
		if c.want == "" && got != "[]" || !strings.Contains(got, c.want) {
			t.Errorf("%q: warnings %s, want %q", c.text, got, c.want)
		}
	}
}

// A file of replds (README of the project, "Authentication") parses as it is.
func TestParseReplds(t *testing.T) {
	f := mustParse(t, "# replds ACL\nserver1 peer\nserver2 peer\n\nclient /certs read\nmaster /certs w\nhost.example.com / r\n")
	if len(f.Rules) != 5 || len(f.Warnings) != 5 {
		t.Errorf("%d rules, %d warnings", len(f.Rules), len(f.Warnings))
	}
}

func TestParseIdentity(t *testing.T) {
	want := Identity{Alias: "web1", Key: key("web1")}
	for _, line := range []string{want.String(), " " + want.String() + "\n", fill("identity\tweb1  $web1\r\n")} {
		if got, err := ParseIdentity(line); err != nil || got != want {
			t.Errorf("%q: %v, %v", line, got, err)
		}
	}
	for _, line := range []string{
		"", "web1", "identity web1", fill("identity web1 $web1\n* / rw"), fill("identity peer $web1"), fill("web1 $web1"),
		fill("identity web1 $web1 # x\x1b"), "identity web1 " + record.PublicKey{}.String(),
	} {
		if _, err := ParseIdentity(line); err == nil {
			t.Errorf("%q is accepted", line)
		}
	}
}

package acl

import (
	"slices"
	"testing"

	"syncagent/crdtstore/record"
)

const example = `
format   1
identity web1   $web1
identity web2   $web2
identity deploy $deploy
identity db1    $db1
group    @web   web1 web2
@web        peer
@web        /hosts/{self}    rw
deploy      /certs           write
@web        /certs/web       read
*           /public          read
cn:grafana  /metrics         read
spiffe://example.org/mon /metrics/host read
db1         /                rw
db1         peer
test allow web1 /hosts/web1/facts write
test deny  web1 /certs/web/tls.key write
`

func TestRules(t *testing.T) {
	p := policy(t, example)
	for _, c := range []struct{ who, path, want string }{
		{"web1", "/hosts/web1", "rw"},
		{"web1", "/hosts/web1/facts", "rw"},
		{"web1", "/hosts/web2/facts", ""},
		{"web1", "/hosts/web11", ""},
		{"web1", "/hosts", ""},
		{"web1", "/hosts/{self}", ""},
		{"web2", "/hosts/web2/a/b/c", "rw"},
		{"deploy", "/certs", "w"},
		{"deploy", "/certs/a/b", "w"},
		{"deploy", "/certs2", ""},
		{"deploy", "/cert", ""},
		{"deploy", "/Certs", ""},
		{"deploy", "/x/certs", ""},
		{"web1", "/certs/web/tls.key", "r"},
		{"web1", "/certs/web2/tls.key", ""},
		{"web1", "/certs", ""},
		{"deploy", "/public/x", "r"},
		{"stranger", "/public/x", ""},
		{"web1", "/metrics/host", ""},
		{"db1", "/x", "rw"},
		{"db1", "/hosts/web1", "rw"},
		{"db1", "/.sys", ""},
		{"db1", "/.sys/x", ""},
		{"db1", "/.system", "rw"},
		{"db1", "/x/.sys", "rw"},
	} {
		if got := may(t, p, key(c.who), c.path); got != c.want {
			t.Errorf("%s at %s: %q, want %q", c.who, c.path, got, c.want)
		}
	}
}

func TestSysNeedsItsOwnRule(t *testing.T) {
	p := policy(t, "identity a $a\na / rw\na /.sys/status read\n* /.sys/open r\n")
	for path, want := range map[string]string{
		"/.sys": "", "/.sys/status": "r", "/.sys/status/x": "r", "/.sys/open": "r", "/.sys/other": "", "/other": "rw",
	} {
		if got := may(t, p, key("a"), path); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	p = policy(t, "identity a $a\na /.sys rw\n")
	if got := may(t, p, key("a"), "/.sys/deep/down"); got != "rw" {
		t.Errorf("rule for all of /.sys: %q", got)
	}
}

func TestMembers(t *testing.T) {
	p := policy(t, example+"revoke $web2\n")
	for who, want := range map[string]bool{"web1": true, "web2": false, "db1": true, "deploy": false, "stranger": false} {
		if p.Member(key(who)) != want {
			t.Errorf("member %s: %v", who, !want)
		}
	}
	want := []record.PublicKey{key("web1"), key("db1")}
	slices.SortFunc(want, record.CompareKeys)
	got := p.Members()
	if !slices.Equal(got, want) {
		t.Errorf("members %v, want %v", got, want)
	}
	got[0] = record.PublicKey{}
	if !slices.Equal(p.Members(), want) {
		t.Error("the caller changed the policy through its slice")
	}
	if !policy(t, "identity a $a\n* peer\n").Member(key("a")) {
		t.Error("* peer makes no member")
	}
}

func TestMembersMayRead(t *testing.T) {
	const three = "identity a $a\nidentity b $b\nidentity c $c\ngroup @ab a b\n@ab peer\n"
	for _, c := range []struct {
		name, rules, path string
		want              bool
	}{
		{"nobody", "", "/x", false},
		{"star", "* /x read", "/x/y", true},
		{"group", "@ab /x read", "/x/y", true},
		{"group at another place", "@ab /x read", "/z", false},
		{"one by one", "a /x r\nb /x r", "/x", true},
		{"in two depths", "a / r\nb /x/y r", "/x/y/z", true},
		{"only one", "a / r\nb /x/y r", "/x", false},
		{"everything", "@ab / r", "/x", true},
		{"/ is not /.sys", "@ab / r", "/.sys/x", false},
		{"/.sys by name", "* /.sys r", "/.sys/x", true},
		{"write only", "@ab / w", "/x", false},
		{"self", "@ab /h/{self} r", "/h/a", false},
		{"revoked member does not count", "a / r\nrevoke $b", "/x", true},
		{"retired member does not count", "a / r\nretired $b 2026-01-01T00:00:00Z", "/x", true},
		{"no members", "* / r\nrevoke $a\nrevoke $b", "/x", false},
	} {
		if got := policy(t, three+c.rules+"\n").MembersMayRead(testNetwork.Tags(c.path)); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	if policy(t, three+"* / r").MembersMayRead(nil) {
		t.Error("a slot without tags is readable")
	}
}

// A tag counts only at the depth of its prefix: a slot cannot collect rights by carrying tags of other places.
func TestTagsCountAtTheirDepth(t *testing.T) {
	p := policy(t, "identity a $a\na peer\na /home rw\na /home/a/b rw\n")
	home, certs := testNetwork.TagOf("/home"), testNetwork.Tags("/certs/web/key")
	for name, tags := range map[string][]record.Tag{
		"nothing": {}, "one place deeper": {certs[0], home, certs[2]}, "at the end": {certs[0], certs[1], home},
		"deep tag first": {testNetwork.TagOf("/home/a/b")},
	} {
		if p.MayWrite(key("a"), tags) || p.MayRead(key("a"), tags) || p.MembersMayRead(tags) ||
			p.Allowed(key("a"), tags, version(1, "w", 0)) {
			t.Errorf("%s: allowed", name)
		}
	}
}

func TestAllowed(t *testing.T) {
	const base = "identity a $a\nidentity b $b\na /x rw\nb /x read\n"
	v := version(1_000_000, "w", 7)
	end := "1970-01-01T00:16:40Z" // 1,000,000 ms
	sibling, other := version(1_000_000, "w", 8), version(1_000_000, "other", 7)
	for _, c := range []struct {
		name, lines, author, path string
		v                         record.Version
		want                      bool
	}{
		{"may write", "", "a", "/x/y", v, true},
		{"other path", "", "a", "/y", v, false},
		{"may only read", "", "b", "/x/y", v, false},
		{"unknown", "", "c", "/x/y", v, false},
		{"revoked", "revoke $a", "a", "/x/y", v, false},
		{"another is revoked", "revoke $b", "a", "/x/y", v, true},
		{"revoked and kept", "revoke $a\nkeep " + v.String(), "a", "/x/y", v, true},
		{"sibling slot of a kept one", "revoke $a\nkeep " + v.String(), "a", "/x/y", sibling, false},
		{"other write than the kept one", "revoke $a\nkeep " + v.String(), "a", "/x/y", other, false},
		{"whole write kept", "revoke $a\nkeep " + v.WriteString(), "a", "/x/y", sibling, true},
		{"other write than the whole one", "revoke $a\nkeep " + v.WriteString(), "a", "/x/y", other, false},
		{"kept without a rule", "keep " + v.String(), "c", "/y", v, true},
		{"kept though retired before", "retired $a 1970-01-01T00:00:00Z\nkeep " + v.String(), "a", "/x/y", v, true},
		{"retired later", "retired $a " + end, "a", "/x/y", v, true},
		{"retired later, path not allowed", "retired $a " + end, "a", "/y", v, false},
		{"retired a moment before", "retired $a 1970-01-01T00:16:39.999Z", "a", "/x/y", v, false},
		{"retired and revoked", "retired $a " + end + "\nrevoke $a", "a", "/x/y", v, false},
		{"retired without identity", "retired $c " + end, "c", "/x/y", v, false},
		{"former", "former $c", "c", "/x/y", v, false},
	} {
		if got := policy(t, base+c.lines+"\n").Allowed(key(c.author), testNetwork.Tags(c.path), c.v); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// Who is revoked or retired has no rights now, whatever the rules say.
func TestRevokedAndRetiredHaveNoRights(t *testing.T) {
	for _, line := range []string{"revoke $a", "retired $a 2099-01-01T00:00:00Z"} {
		p := policy(t, "identity a $a\n* / rw\n* peer\n"+line+"\n")
		if may(t, p, key("a"), "/x") != "" || p.Member(key("a")) || len(p.Members()) > 0 || p.MayReadPath(key("a"), "/") {
			t.Errorf("%s: has rights", line)
		}
		if p.Alias(key("a")) != "a" || !p.Known(key("a")) {
			t.Errorf("%s: the name is gone", line)
		}
	}
}

// A revoke line counts in whatever text it stands; a keep line only in the text in force.
func TestRevokeLinesOfAllTextsCount(t *testing.T) {
	v := version(1, "w", 0)
	const base = "identity a $a\nidentity b $b\n* / rw\n* peer\n"
	old := signed(t, 1, base+"revoke $a\nkeep "+v.String()+"\n")
	inForce := signed(t, 2, base)
	tags := testNetwork.Tags("/x")
	p := Compile(testNetwork, inForce, []*Signed{old, inForce})
	if p.Allowed(key("a"), tags, v) || p.Member(key("a")) || p.MayRead(key("a"), tags) || !p.Revoked(key("a")) {
		t.Error("the newer text, which lacks the revocation, undid it")
	}
	foreign := mustSigned(t, Sign([]byte("network "+record.NetworkID{7}.String()+"\nserial 1\n"+fill("revoke $b\n")), testNetwork, private("admin")))
	p = Compile(testNetwork, inForce, []*Signed{old, inForce, foreign})
	if !p.Allowed(key("b"), tags, v) || p.Revoked(key("b")) {
		t.Error("b lost its rights")
	}
	p = Compile(testNetwork, old, nil)
	if p.Allowed(key("a"), tags, version(2, "w", 0)) || !p.Allowed(key("a"), tags, v) {
		t.Error("the lines of the text in force do not count")
	}
}

func TestOtherNetwork(t *testing.T) {
	s := signed(t, 1, "identity a $a\n* / rw\n")
	other := record.NetworkID{9}
	if p := Compile(other, s, nil); p != nil {
		t.Error("a policy of another network judges")
	}
	p := policy(t, "identity a $a\na /x rw\n")
	if p.MayRead(key("a"), other.Tags("/x")) {
		t.Error("tags of another network match")
	}
}

func TestSubjects(t *testing.T) {
	p := policy(t, example+"ghost /metrics read\n@undefined /metrics read\n")
	for _, c := range []struct {
		subject, path string
		want          bool
	}{
		{"cn:grafana", "/metrics", true},
		{"cn:grafana", "/metrics/host/cpu", true},
		{"cn:grafana", "/metrics2", false},
		{"cn:grafana", "/public", false}, // * is any identity, and a certificate is none
		{"cn:Grafana", "/metrics", false},
		{"grafana", "/metrics", false},
		{"web1", "/certs/web", false}, // a certificate must not name an identity
		{"@web", "/certs/web", false},
		{"*", "/public", false},
		{"ghost", "/metrics", false}, // a rule that names nobody known
		{"@undefined", "/metrics", false},
		{"", "/public", false},
		{"spiffe://example.org/mon", "/metrics/host", true},
		{"spiffe://example.org/mon", "/metrics", false},
		{"spiffe://example.org/mon/x", "/metrics/host", false},
	} {
		if got := p.MaySubjectRead(c.subject, c.path); got != c.want {
			t.Errorf("%q reads %s: %v", c.subject, c.path, got)
		}
	}
	if _, ok := p.KeyOf("cn:grafana"); ok {
		t.Error("a certificate has a key")
	}
	if p := policy(t, "cn:a / read\n"); !p.MaySubjectRead("cn:a", "/x") || p.MaySubjectRead("cn:a", "/.sys") {
		t.Error("/ for a certificate")
	}
}

func TestPathsThatAreNone(t *testing.T) {
	p := policy(t, "identity a $a\n* / rw\n* /x rw\n* /.sys/x rw\n")
	for _, path := range []string{"", "x", "//", "/x/", "/x//y", "/x/../y", "/..", "/.", "/x/.", "/.sys/x/../y"} {
		if p.MayReadPath(key("a"), path) || p.MayWritePath(key("a"), path) {
			t.Errorf("%q is allowed", path)
		}
	}
	if !p.MayReadPath(key("a"), "/") {
		t.Error("/ is denied")
	}
}

func TestNilPolicyDenies(t *testing.T) {
	var p *Policy
	tags := testNetwork.Tags("/x")
	k := key("a")
	_, named := p.KeyOf("a")
	if p.Member(k) || p.MayRead(k, tags) || p.MayWrite(k, tags) || p.MembersMayRead(tags) || p.Known(k) || p.Revoked(k) ||
		p.Allowed(k, tags, record.Version{}) || p.MayReadPath(k, "/x") || p.MayWritePath(k, "/x") ||
		p.MaySubjectRead("cn:a", "/x") || named || p.Alias(k) != "" || p.Serial() != 0 || p.Hash() != [32]byte{} ||
		p.Format() != 0 || p.File() != nil || len(p.Members()) != 0 || len(p.RunTests()) != 0 {
		t.Error("a nil policy allows something")
	}
	if Compile(testNetwork, nil, nil) != nil || Effective(nil) != nil {
		t.Error("a policy out of nothing")
	}
}

func TestNames(t *testing.T) {
	s := signed(t, 42, "identity a $a\nformer $b\nrevoke $c\nretired $d 2026-01-01T00:00:00Z\nformat 3\n")
	p := Compile(testNetwork, s, nil)
	for name, want := range map[string]bool{"a": true, "b": true, "c": true, "d": true, "e": false} {
		if p.Known(key(name)) != want {
			t.Errorf("known %s: %v", name, !want)
		}
	}
	if k, ok := p.KeyOf("a"); !ok || k != key("a") || p.Alias(k) != "a" || p.Alias(key("b")) != "" {
		t.Error("alias and key do not fit")
	}
	if p.Serial() != 42 || p.Hash() != s.Hash || p.Format() != 3 || p.File() != s.File {
		t.Error("serial, hash, format or file")
	}
	if got := policy(t, "").Format(); got != 1 {
		t.Errorf("format without a line: %d", got)
	}
}

func TestJudgingDoesNotAllocate(t *testing.T) {
	p := policy(t, example+"revoke $x\nkeep "+version(1, "w", 0).String()+"\n")
	tags := testNetwork.Tags("/certs/web/a/b")
	k, v := key("web1"), version(2, "w", 0)
	if n := testing.AllocsPerRun(100, func() {
		p.MayRead(k, tags)
		p.MayWrite(k, tags)
		p.Allowed(k, tags, v)
		p.MembersMayRead(tags)
		p.MayReadPath(k, "/certs/web/a/b")
		p.MayWritePath(k, "/certs/web/a/b")
		p.MaySubjectRead("cn:grafana", "/metrics/x")
		p.Member(k)
		p.Alias(k)
		p.Known(k)
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

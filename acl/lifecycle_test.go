package acl

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

// edited runs an edit on a text with $names and gives the result with them.
func edited(t *testing.T, edit func([]byte) ([]byte, error), text string) string {
	t.Helper()
	out, err := edit([]byte(fill(text)))
	if err != nil {
		t.Fatal(err)
	}
	got := string(out)
	for _, name := range []string{"web1", "web2", "web3", "old"} {
		got = strings.ReplaceAll(got, key(name).String(), "$"+name)
	}
	return got
}

func TestRevokeEdits(t *testing.T) {
	v := version(1000, "w", 2)
	keep := Keep{Version: v}
	whole := Keep{Version: version(1000, "x", 0), Whole: true}
	for _, c := range []struct {
		name, text string
		keeps      []Keep
		want       string
	}{
		{
			"an identity in groups",
			"# top\nidentity web1 $web1\nidentity web2 $web2 # spare\ngroup @a web1 web2\t# both\ngroup @b web2\n@a /x rw\n", nil,
			"# top\nidentity web1 $web1\nrevoke   $web2  # was web2\ngroup @a web1\t# both\ngroup @b\n@a /x rw\n",
		},
		{"a stranger", "identity web1 $web1", nil, "identity web1 $web1\nrevoke   $web2\n"},
		{"once more", "revoke $web2\n", nil, "revoke $web2\n"},
		{"former and retired", "former $web2\nidentity web1 $web1\n", nil, "identity web1 $web1\nrevoke   $web2\n"},
		{"retired", "identity web2 $web2\nretired $web2 2026-01-01T00:00:00Z\n", nil, "revoke   $web2  # was web2\n"},
		{
			"with versions to keep", "identity web2 $web2\nkeep " + v.String() + "\n", []Keep{keep, whole, whole},
			"revoke   $web2  # was web2\nkeep     " + whole.Version.WriteString() + "\nkeep " + v.String() + "\n",
		},
		{
			"carriage returns", "identity web1 $web1\r\nidentity web2 $web2\r\n", []Keep{keep},
			"identity web1 $web1\r\nrevoke   $web2  # was web2\r\nkeep     " + v.String() + "\r\n",
		},
		{
			"tests", "identity web2 $web2\ntest deny web2 /x read\ntest deny * /x read\n", nil,
			"revoke   $web2  # was web2\n# web2 is revoked: test deny web2 /x read\ntest deny * /x read\n",
		},
		{"a name twice in a group", "identity web2 $web2\ngroup @a web2 web2\n", nil, "revoke   $web2  # was web2\ngroup @a\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := edited(t, func(b []byte) ([]byte, error) { return Revoke(b, key("web2"), c.keeps) }, c.text)
			if got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
			if !CompileFile(testNetwork, mustParse(t, got)).Revoked(key("web2")) {
				t.Error("the text does not revoke the key")
			}
		})
	}
}

func TestRevokeTakesAllRightsButWhatIsKept(t *testing.T) {
	text := fill("identity web1 $web1\nidentity web2 $web2\ngroup @a web1 web2\n@a peer\n@a /x rw\nweb2 /y rw\n")
	v := version(1000, "w", 0)
	out, err := Revoke([]byte(text), key("web2"), []Keep{{Version: v}})
	if err != nil {
		t.Fatal(err)
	}
	p := CompileFile(testNetwork, mustParse(t, string(out)))
	tags := testNetwork.Tags("/x")
	if p.Member(key("web2")) || may(t, p, key("web2"), "/x") != "" || may(t, p, key("web2"), "/y") != "" {
		t.Error("a revoked key has rights")
	}
	if !p.Allowed(key("web2"), tags, v) || p.Allowed(key("web2"), tags, version(1000, "other", 0)) {
		t.Error("kept versions alone must count")
	}
	if may(t, p, key("web1"), "/x") != "rw" {
		t.Error("others lost rights")
	}
	// The name is free, and a new key under it can be admitted.
	out, err = Admit(out, Identity{Alias: "web2", Key: key("web3")}.String(), "@a")
	if err != nil {
		t.Fatal(err)
	}
	if p = CompileFile(testNetwork, mustParse(t, string(out))); may(t, p, key("web3"), "/y") != "rw" {
		t.Error("the replacement does not have the rights of the name")
	}
}

func TestKeepsAreLimited(t *testing.T) {
	keeps := make([]Keep, MaxKeeps+1)
	for i := range keeps {
		keeps[i].Version = version(int64(i), "w", 0)
	}
	if _, err := Revoke(nil, key("web2"), keeps); !errors.Is(err, ErrTooManyKeeps) {
		t.Errorf("revoke: %v", err)
	}
	if _, err := AddKeeps(nil, keeps); !errors.Is(err, ErrTooManyKeeps) {
		t.Errorf("keep: %v", err)
	}
	text, err := AddKeeps([]byte("* /x r"), keeps[:MaxKeeps])
	if err != nil || len(mustParse(t, string(text)).Keeps) != MaxKeeps {
		t.Errorf("the limit itself: %v", err)
	}
}

func TestParseKeeps(t *testing.T) {
	v, w := version(1000, "w", 2), version(1000, "x", 0)
	got, err := ParseKeeps([]byte("# reviewed\n" + v.String() + "  /a path\r\n\n" + w.WriteString() + " # all of it"))
	if want := []Keep{{Version: v}, {Version: w, Whole: true}}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := ParseKeeps([]byte(v.String() + "\nnonsense")); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("nonsense: %v", err)
	}
}

func TestRetire(t *testing.T) {
	until := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	retire := func(b []byte) ([]byte, error) { return Retire(b, key("web2"), until) }
	got := edited(t, retire, "identity web2 $web2\nweb2 /x rw\nweb2 peer\n")
	if want := "identity web2 $web2\nretired  $web2 2026-11-01T00:00:00Z\nweb2 /x rw\nweb2 peer\n"; got != want {
		t.Fatalf("got\n%s", got)
	}
	p := CompileFile(testNetwork, mustParse(t, got))
	tags := testNetwork.Tags("/x")
	if p.Member(key("web2")) || p.MayWrite(key("web2"), tags) {
		t.Error("a retired key has rights")
	}
	if !p.Allowed(key("web2"), tags, version(until.UnixMilli(), "w", 0)) || p.Allowed(key("web2"), tags, version(until.UnixMilli()+1, "w", 0)) {
		t.Error("writes up to the time count, later ones do not")
	}
	for _, text := range []string{"", "identity web2 $web2\nretired $web2 2026-11-01T00:00:00Z\n"} {
		if _, err := retire([]byte(fill(text))); err == nil {
			t.Errorf("retired by %q", text)
		}
	}
}

func TestKeepFormer(t *testing.T) {
	before := mustParse(t, "identity web1 $web1\nidentity web2 $web2\nrevoke $web3\nformer $old\n")
	got := edited(t, func(b []byte) ([]byte, error) { return KeepFormer(b, before) }, "identity web1 $web1\n* /x r")
	if want := "identity web1 $web1\n* /x r\nrevoke   $web3\nformer   $web2  # was web2\nformer   $old\n"; got != want {
		t.Errorf("got\n%s", got)
	}
	same := "identity web1 $web1\nrevoke $web2\nformer $old\nrevoke $web3\n"
	back := edited(t, func(b []byte) ([]byte, error) { return KeepFormer(b, before) }, "identity web2 $web2\nidentity web3 $web3\n")
	if want := "identity web2 $web2\nrevoke   $web3  # was web3\nformer   $web1  # was web1\nformer   $old\n"; back != want {
		t.Errorf("a text from before a revocation: got\n%s", back)
	}
	if got := edited(t, func(b []byte) ([]byte, error) { return KeepFormer(b, before) }, same); got != same {
		t.Errorf("got\n%s", got)
	}
}

func TestFind(t *testing.T) {
	f := mustParse(t, "identity web1 $web1\n")
	if k, err := f.Find("web1"); err != nil || k != key("web1") {
		t.Errorf("by name: %v", err)
	}
	if k, err := f.Find(key("web2").String()); err != nil || k != key("web2") {
		t.Errorf("by key: %v", err)
	}
	for _, s := range []string{"web2", "", "12D3KooWx", "@web"} {
		if _, err := f.Find(s); err == nil {
			t.Errorf("%q means a key", s)
		}
	}
}

func TestDiff(t *testing.T) {
	const names = "identity web1 $web1\nidentity web2 $web2\n"
	for _, c := range []struct{ name, before, after, want string }{
		{"inherited below", "web1 /a rw\nweb1 /a/b rw\nweb1 /a/b/c read", "", "web1 /a -rw"},
		{"reserved, deep", "", "web1 / read\nweb1 /.sys/x/y read", "web1 / +read; web1 /.sys/x/y +read"},
		{"nothing", "* /a rw", "* /a read\n* /a write", ""},
		{"a prefix", "", "web1 /a rw", "web1 /a +rw"},
		{"moved down", "web1 /a rw", "web1 /a/b read", "web1 /a -rw; web1 /a/b keeps read"},
		{"all to some", "* / rw", "* / read\nweb1 /a write", "web1 / -write; web1 /a keeps write; web2 / -write"},
		{"member", "web1 peer", "web2 peer", "web1 peer -peer; web2 peer +peer"},
		{"self", "", "* /h/{self} write", "web1 /h/web1 +write; web2 /h/web2 +write"},
		{"certificate", "cn:x /a read", "cn:x /a/b read", "cn:x /a -read; cn:x /a/b keeps read"},
		{"reserved", "", "web1 /.sys read", "web1 /.sys +read"},
		{"everything is not reserved", "web1 /.sys read", "web1 /.sys read\nweb1 / read", "web1 / +read"},
		{"revoked", "web1 /a rw\nweb1 peer", "web1 /a rw\nweb1 peer\nrevoke $web1", "web1 peer -peer; web1 /a -rw"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, d := range Diff(policy(t, names+c.before), policy(t, names+c.after)) {
				s := d.Subject + " " + d.Path
				if d.Path == "" {
					s += "peer"
				}
				if d.Gained != 0 {
					s += " +" + d.Gained.String()
				}
				if d.Lost != 0 {
					s += " -" + d.Lost.String()
				}
				if d.Kept != 0 {
					s += " keeps " + d.Kept.String()
				}
				got = append(got, s)
			}
			if got := strings.Join(got, "; "); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestImportReplds(t *testing.T) {
	out, needs, err := ImportReplds([]byte("# hosts\nweb1 /certs rw # its own\nweb1 peer\nweb2\t/certs/ r\nweb2 peer\n* /public read\na/b /x r\ngroup /y w\n"))
	if err != nil {
		t.Fatal(err)
	}
	f := mustParse(t, string(out))
	if len(f.Rules) != 7 || f.Rules[1].Op != Peer || f.Rules[0].Path != "/certs" {
		t.Errorf("rules: %+v", f.Rules)
	}
	for _, want := range []string{"# identity web1 PEERID\n", "# identity web2 PEERID\n", "\nweb1 /certs rw # its own\n", "# hosts\n"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	all := strings.Join(needs, "\n")
	for _, want := range []string{"web1", "web2", `"a/b"`, `"group"`, "nobody may read /"} {
		if !strings.Contains(all, want) {
			t.Errorf("does not say %q: %s", want, all)
		}
	}
	// With the identity lines it says, the text means what it meant.
	named := strings.NewReplacer("# identity web1 PEERID", "identity web1 $web1", "# identity web2 PEERID", "identity web2 $web2").Replace(string(out))
	p := policy(t, strings.Replace(named, "syncagent-policy 1\n", "", 1))
	if may(t, p, key("web1"), "/certs/x") != "rw" || may(t, p, key("web2"), "/certs/x") != "r" || !p.Member(key("web2")) {
		t.Error("rights changed")
	}
	if _, _, err := ImportReplds([]byte("web1 /x rwx\n")); err == nil {
		t.Error("a fault passed")
	}
}

package acl

import (
	"strings"
	"testing"

	"syncagent/crdtstore/record"
)

func TestInitialPolicy(t *testing.T) {
	text := InitialPolicy(testNetwork, "web1", key("web1"))
	s := mustSigned(t, Sign(text, testNetwork, private("admin")))
	if len(s.File.Warnings) > 0 || s.Serial != 1 || s.File.Format != 1 {
		t.Errorf("%+v", s.File)
	}
	for _, line := range []string{"group    @hosts web1", "@hosts   peer", "@hosts   /  rw"} {
		if !strings.Contains(string(text), "\n"+line+"\n") {
			t.Errorf("no line %q", line)
		}
	}
	p := Compile(testNetwork, s, nil)
	if may(t, p, key("web1"), "/x") != "rw" || !p.Member(key("web1")) || p.MayReadPath(key("web1"), "/.sys") {
		t.Error("the first host cannot do everything, or more")
	}
	narrowed := text // what the comment advises must be valid
	for _, line := range strings.Split(string(text), "\n") {
		if rule, ok := strings.CutPrefix(line, "#   "); ok {
			rule, _, _ = strings.Cut(strings.Replace(rule, "NAME", "web1", 1), "    each")
			narrowed = append(narrowed, strings.Join(strings.Fields(rule)[:3], " ")+"\n"...)
		}
	}
	if f, err := Parse(narrowed); err != nil || len(f.Rules) != 5 || len(f.Warnings) > 0 {
		t.Errorf("rules of the comment: %v", err)
	}
}

func TestAdmit(t *testing.T) {
	line := Identity{Alias: "web2", Key: key("web2")}.String()
	for _, c := range []struct{ name, text, group, want string }{
		{
			"first policy",
			"# top\nidentity web1 $web1 # first\n\ngroup @hosts web1\t# all\n@hosts peer\n", "@hosts",
			"# top\nidentity web1 $web1 # first\nidentity web2 $web2\n\ngroup @hosts web1 web2\t# all\n@hosts peer\n",
		},
		{
			"no group",
			"identity web1 $web1\n# end", "",
			"identity web1 $web1\nidentity web2 $web2\n# end",
		},
		{
			"no identity yet, header",
			"# c\nsyncagent-policy 1\nserial 1\n\n* / r\n", "",
			"# c\nsyncagent-policy 1\nserial 1\nidentity web2 $web2\n\n* / r\n",
		},
		{"empty text", "", "", "identity web2 $web2\n"},
		{"no end of line", "group @g\nidentity web1 $web1", "@g", "group @g web2\nidentity web1 $web1\nidentity web2 $web2\n"},
		{
			"last line of the group",
			"group @g a\r\ngroup @g b\r\nidentity a $a\r\nidentity b $b\r\ngroup @h a\r\n", "@g",
			"group @g a\r\ngroup @g b web2\r\nidentity a $a\r\nidentity b $b\r\nidentity web2 $web2\r\ngroup @h a\r\n",
		},
		{"there already", "identity web2 $web2\ngroup @g web2\ngroup @g\n", "@g", "identity web2 $web2\ngroup @g web2\ngroup @g\n"},
		{"there, but not in the group", "identity web2 $web2\ngroup @g\n", "@g", "identity web2 $web2\ngroup @g web2\n"},
		{"came back", "former $a\nformer $web2 # old\nformer $b\n", "", "identity web2 $web2\nformer $a\nformer $b\n"},
		{"rule of somebody named identity", "* / r\nidentity /x read\n", "", "identity web2 $web2\n* / r\nidentity /x read\n"},
	} {
		got, err := Admit([]byte(fill(c.text)), line, c.group)
		if err != nil || string(got) != fill(c.want) {
			t.Errorf("%s: %v, got\n%s\nwant\n%s", c.name, err, got, fill(c.want))
		}
		signed := Sign([]byte(fill(c.text)), testNetwork, private("admin"))
		if again, err := Admit(signed, line, c.group); err != nil || strings.Contains(string(again), "signature") {
			t.Errorf("%s, signed: %v\n%s", c.name, err, again)
		}
		if again, err := Admit(got, line, c.group); err != nil || string(again) != string(got) {
			t.Errorf("%s: admitting twice changes the text: %v\n%s", c.name, err, again)
		}
	}
}

func TestAdmitRefuses(t *testing.T) {
	web2 := Identity{Alias: "web2", Key: key("web2")}.String()
	for _, c := range []struct{ name, text, line, group, msg string }{
		{"broken text", "deny", web2, "", "deny is reserved"},
		{"broken line", "", "web2", "", "want `identity NAME PEERID`"},
		{"more than a line", "", web2 + "\n* / rw", "", "control character"},
		{"name is taken", "identity web2 $other", web2, "", "belongs to"},
		{"key is taken", "identity web1 $web2", web2, "", "is admitted as web1"},
		{"revoked", "revoke $web2", web2, "", "revoked for ever (line 1)"},
		{"retired", "retired $web2 2026-01-01T00:00:00Z", web2, "", "is retired"},
		{"no such group", "group @web", web2, "@hosts", "no group"},
		{"group in a rule only", "@hosts peer", web2, "@hosts", "no group"},
		{"text becomes too large", strings.Repeat("#", MaxText-20) + "\n", web2, "", "the limit is"},
	} {
		if _, err := Admit([]byte(fill(c.text)), c.line, c.group); err == nil || !strings.Contains(err.Error(), c.msg) {
			t.Errorf("%s: %v, want ...%s...", c.name, err, c.msg)
		}
	}
}

func TestSetHeader(t *testing.T) {
	top := "syncagent-policy 1\nnetwork  " + testNetwork.String() + "\nserial   8\n"
	other := record.NetworkID{3}.String()
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", top},
		{"none", "* / r", top + "* / r"},
		{"all", "syncagent-policy 1\nnetwork  " + other + "\nserial   7\n", top},
		{
			"comments and order stay",
			"# c\nserial 7 # old\n\n\tnetwork " + other + " # n\n",
			"syncagent-policy 1\n# c\nserial 8 # old\n\n\tnetwork " + testNetwork.String() + " # n\n",
		},
		{"serial missing", "# c\nsyncagent-policy 1\n* / r\n", "# c\n" + top + "* / r\n"},
		{"no value", "syncagent-policy 1\r\nnetwork\r\nserial # x\r\n", "syncagent-policy 1\r\nnetwork " + testNetwork.String() + "\r\nserial 8 # x\r\n"},
		{"names of replds", "serial peer\nnetwork /x read\n", top + "serial peer\nnetwork /x read\n"},
	} {
		got := string(SetHeader([]byte(c.text), testNetwork, 8))
		if got != c.want {
			t.Errorf("%s: got\n%q\nwant\n%q", c.name, got, c.want)
		}
		f := mustParse(t, got)
		if f.Network != testNetwork || f.Serial != 8 {
			t.Errorf("%s: %+v", c.name, f)
		}
		if again := string(SetHeader([]byte(got), testNetwork, 8)); again != got {
			t.Errorf("%s: setting again gives %q", c.name, again)
		}
	}
	if got := SetHeader([]byte("syncagent-policy 2\n"), testNetwork, 1); !strings.HasPrefix(string(got), "syncagent-policy 2\n") {
		t.Error("a text of a later version is passed off as one of ours")
	}
}

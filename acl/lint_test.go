package acl

import (
	"fmt"
	"strings"
	"testing"
)

func TestLint(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       []string // in order, each the beginning of a warning
	}{
		{
			"first policy", string(InitialPolicy(testNetwork, "web1", key("web1"))),
			[]string{"line 17: @hosts may read and write everything", "1 of 1 members may read /"},
		},
		{"empty", "", []string{"no identity is a member"}},
		{
			"good", "identity a $a\nidentity b $b\nidentity c $c\ngroup @db a b\n* peer\n@db / read\n* /x/{self} rw\n",
			nil,
		},
		{"one reader", "identity a $a\nidentity b $b\n* peer\na / read\n", []string{"1 of 2 members may read /"}},
		{"a reader that is no member", "identity a $a\nidentity b $b\na peer\na / r\nb / r\n", []string{"1 of 1 members may read /"}},
		{
			"nobody's rule", "identity a $a\nidentity b $b\nidentity c $c\ngroup @g c\na peer\nb peer\na / r\nb / r\n",
			[]string{"line 3: no rule names c"},
		},
		{
			"revoked", "identity a $a\nidentity b $b\n* peer\n* / r\nrevoke $b\n",
			[]string{"line 2: b is revoked", "1 of 1 members may read /"},
		},
		{
			"star and parser's warnings in order", "identity a $a\nghost peer\n* peer\n* / rw\nidentity b $b\n",
			[]string{"line 2: \"ghost\" names nobody", "line 4: * may read and write everything"},
		},
	} {
		got := Lint(mustParse(t, c.text))
		if len(got) != len(c.want) {
			t.Errorf("%s: %v, want %q", c.name, got, c.want)
			continue
		}
		for i := range got {
			if !strings.HasPrefix(got[i].String(), c.want[i]) {
				t.Errorf("%s: %q, want %q", c.name, got[i], c.want[i])
			}
		}
	}
}

func TestRunTests(t *testing.T) {
	const rules = "identity a $a\nidentity b $b\nidentity c $c\ngroup @ab a b\ngroup @none\n" +
		"@ab /x read\na /x write\n* /h/{self} rw\na peer\ncn:g /m r\n"
	for line, want := range map[string]string{
		"test allow a /x read":          "",
		"test allow a /x/y rw":          "",
		"test allow b /x rw":            "b may not write: expected allow rw /x",
		"test deny b /x rw":             "b may read: expected deny rw /x",
		"test deny b /x write":          "",
		"test deny a /x2 rw":            "",
		"test allow @ab /x read":        "",
		"test allow @ab /x write":       "b may not write: expected allow write /x",
		"test deny @ab /x write":        "a may write: expected deny write /x",
		"test allow * /x read":          "c may not read: expected allow read /x",
		"test deny * /y rw":             "",
		"test allow a /h/a/z rw":        "",
		"test deny a /h/b rw":           "",
		"test allow a peer":             "",
		"test deny b peer":              "",
		"test deny a peer":              "a may replicate: expected deny peer",
		"test allow cn:g /m/x read":     "",
		"test deny cn:g /m read":        "cn:g may read: expected deny read /m",
		"test allow cn:g /x read":       "cn:g may not read: expected allow read /x",
		"test allow cn:g /m write":      "cn:g may not write: expected allow write /m",
		"test deny cn:unknown /m read":  "",
		"test deny ghost /x read":       `"ghost" names nobody known`,
		"test deny @none /x read":       `"@none" names nobody known`,
		"test allow @undefined /x read": `"@undefined" names nobody known`,
		"test deny a /.sys/x rw":        "",
		"test deny a /h/a rw":           "a may read and write: expected deny rw /h/a",
	} {
		got := policy(t, rules+line+"\n").RunTests()
		switch {
		case want == "" && len(got) > 0:
			t.Errorf("%s: %v", line, got)
		case want != "" && (len(got) != 1 || got[0].Text != want || got[0].Line != 14):
			t.Errorf("%s: %v, want %s", line, got, want)
		}
	}
	if got := fmt.Sprint(policy(t, rules+"test deny a /x r\ntest deny a /x w\n").RunTests()); strings.Count(got, "line 1") != 2 {
		t.Errorf("two failures: %s", got)
	}
}

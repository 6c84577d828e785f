package acl

import (
	"testing"
)

// FuzzRevoke holds that a revocation of any key makes a valid text of any valid text, takes all rights of the key and
// none of others, and is there already the second time.
func FuzzRevoke(f *testing.F) {
	f.Add(fill(example))
	f.Add(fill("identity web2 $web2\ngroup @a web2 web2\nweb2 peer\n@a /x rw\ntest allow web2 /x read"))
	f.Add(fill("identity\tweb2\t$web2 # c\r\ngroup @a web2\t\r\nretired $web2 2026-01-01T00:00:00Z\r\n"))
	f.Add(fill("former $web2\nidentity web1 $web1\n* / rw\nrevoke $web1"))
	f.Add("group peer x\nrevoke /x r\nidentity /y rw\n")
	f.Fuzz(func(t *testing.T, text string) {
		before, err := Parse([]byte(text))
		if err != nil || len(text) > MaxText-1024 {
			return
		}
		who := key("web2")
		if len(before.Identities) > 0 {
			who = before.Identities[len(text)%len(before.Identities)].Key
		}
		out, err := Revoke([]byte(text), who, nil)
		if err != nil {
			t.Fatalf("%v\n%q", err, text)
		}
		after, err := Parse(out)
		if err != nil {
			t.Fatal(err)
		}
		p, q := CompileFile(testNetwork, before), CompileFile(testNetwork, after)
		if !q.Revoked(who) || q.Member(who) || q.MayReadPath(who, "/") {
			t.Errorf("the key has rights in %q", out)
		}
		for _, change := range Diff(p, q) {
			if change.Gained != 0 || change.Subject != before.AliasOf(who) && change.Subject != who.String() {
				t.Errorf("%+v: from %q to %q", change, text, out)
			}
		}
		if again, err := Revoke(out, who, nil); err != nil || string(again) != string(out) {
			t.Errorf("a second time: %v, %q", err, again)
		}
		if len(after.Rules) != len(before.Rules) || len(after.Identities) > len(before.Identities) {
			t.Errorf("lines of others changed: %q to %q", text, out)
		}
	})
}

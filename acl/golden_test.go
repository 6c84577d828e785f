package acl

import (
	"os"
	"testing"

	"syncagent/crdtstore/record"
)

// The formats are frozen: what these files hold must stay readable, and must come out the same.
func TestGolden(t *testing.T) {
	for name, made := range map[string]string{
		"testdata/policy.golden": string(Sign(Sign([]byte(header(42)+fill(example)), testNetwork, private("admin")), testNetwork, private("second"))),
		"testdata/token.golden":  mustToken(t, testToken(), "admin") + "\n",
	} {
		want, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if made != string(want) {
			t.Errorf("%s: now made as\n%s", name, made)
		}
	}
	b, err := os.ReadFile("testdata/policy.golden")
	if err != nil {
		t.Fatal(err)
	}
	for _, admin := range []string{"admin", "second"} {
		if _, ok := mustSigned(t, b).SignedBy(testNetwork, []record.PublicKey{key(admin)}); !ok {
			t.Errorf("the signature of %s does not count", admin)
		}
	}
}

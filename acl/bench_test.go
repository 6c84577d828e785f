package acl

import (
	"fmt"
	"strings"
	"testing"

	"syncagent/crdtstore/record"
)

// large makes a text of 10,000 rules with paths of up to four segments for 1,000 identities in 50 groups.
func large() string {
	var b strings.Builder
	b.WriteString(header(1))
	groups := make([][]string, 50)
	for i := range 1000 {
		name := fmt.Sprintf("host%d", i)
		fmt.Fprintf(&b, "identity %s %s\n", name, key(name))
		groups[i%50] = append(groups[i%50], name)
	}
	for i, g := range groups {
		fmt.Fprintf(&b, "group @g%d %s\n", i, strings.Join(g, " "))
	}
	b.WriteString("* peer\n* /public read\n* /hosts/{self} rw\n")
	for i := range 9997 {
		who := fmt.Sprintf("host%d", i%1000)
		switch i % 4 {
		case 0:
			who = fmt.Sprintf("@g%d", i%50)
		case 1:
			who = "*"
		}
		fmt.Fprintf(&b, "%s /app%d/env%d/service%d/x %s\n", who, i%10, i%100, i/4, []string{"read", "write", "rw"}[i%3])
	}
	return b.String()
}

func largePolicy(b *testing.B) (*Policy, []record.Tag) {
	b.Helper()
	s, err := ParseSigned(Sign([]byte(large()), testNetwork, private("admin")))
	if err != nil {
		b.Fatal(err)
	}
	return Compile(testNetwork, s, nil), testNetwork.Tags("/app3/env3/service500/x")
}

func BenchmarkParse(b *testing.B) {
	text := []byte(large())
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, err := Parse(text); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCompile(b *testing.B) {
	s, err := ParseSigned(Sign([]byte(large()), testNetwork, private("admin")))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		Compile(testNetwork, s, nil)
	}
}

func BenchmarkCompileManySelves(b *testing.B) {
	text := large()
	for i := range 200 {
		text += fmt.Sprintf("* /data%d/{self} read\n", i)
	}
	f, err := Parse([]byte(text))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		CompileFile(testNetwork, f)
	}
}

func BenchmarkJudge(b *testing.B) {
	p, tags := largePolicy(b)
	k, v := key("host999"), version(1, "w", 0)
	path := "/app3/env3/service500/x"
	for _, q := range []struct {
		name string
		ask  func()
	}{
		{"MayRead", func() { p.MayRead(k, tags) }},
		{"Allowed", func() { p.Allowed(k, tags, v) }},
		{"MayReadPath", func() { p.MayReadPath(k, path) }},
		{"MembersMayRead", func() { p.MembersMayRead(tags) }},
		{"Member", func() { p.Member(k) }},
	} {
		b.Run(q.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				q.ask()
			}
		})
	}
}

func BenchmarkParseToken(b *testing.B) {
	s := mustToken(b, testToken(), "admin")
	for b.Loop() {
		if _, err := ParseToken(s); err != nil {
			b.Fatal(err)
		}
	}
}

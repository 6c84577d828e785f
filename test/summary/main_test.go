package main

import (
	"strings"
	"testing"
)

func TestSummary(t *testing.T) {
	for _, tc := range []struct {
		name, in string
		ok       bool
		want     []string
		wantNot  string
	}{
		{
			"all passed",
			`{"Action":"output","Package":"p","Test":"TestA","Output":"chatter\n"}
{"Action":"pass","Package":"p","Test":"TestA/sub"}
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p","Elapsed":1.25}`,
			true,
			[]string{"ok   p 1.2 s", "tests: 1 passed, 0 failed, 0 skipped"},
			"chatter",
		},
		{
			"one failed and one skipped",
			`{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"output","Package":"p","Test":"TestA","Output":"want 1, got 2\n"}
{"Action":"fail","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestB","Output":"needs root\n"}
{"Action":"skip","Package":"p","Test":"TestB"}
{"Action":"fail","Package":"p"}`,
			false,
			[]string{"want 1, got 2", "needs root", "FAIL p", "tests: 0 passed, 1 failed, 1 skipped"},
			"=== RUN",
		},
		{
			"a package that does not build",
			`{"Action":"build-output","ImportPath":"p","Output":"p.go:1: oops\n"}
{"Action":"output","Package":"p","Output":"FAIL p [build failed]\n"}
{"Action":"fail","Package":"p","FailedBuild":"p"}
{"Action":"pass","Package":"q","Test":"TestA"}`,
			false,
			[]string{"oops", "build failed", "1 passed, 0 failed, 0 skipped; 1 packages broken"},
			"",
		},
		{
			"a panic beside tests that passed",
			`{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestB","Output":"panic: oops\n"}
{"Action":"fail","Package":"p"}`,
			false,
			[]string{"panic: oops", "1 packages broken"},
			"",
		},
		{"no test at all is no success", `make: *** no rule`, false, []string{"make: *** no rule", "tests: 0 passed"}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out strings.Builder
			ok, err := summarize(strings.NewReader(tc.in), &out)
			if err != nil || ok != tc.ok {
				t.Errorf("got %v, %v; want %v", ok, err, tc.ok)
			}
			for _, w := range tc.want {
				if !strings.Contains(out.String(), w) {
					t.Errorf("missing %q in:\n%s", w, out.String())
				}
			}
			if tc.wantNot != "" && strings.Contains(out.String(), tc.wantNot) {
				t.Errorf("unwanted %q in:\n%s", tc.wantNot, out.String())
			}
		})
	}
}

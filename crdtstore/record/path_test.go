package record

import (
	"errors"
	"strings"
	"testing"
)

func goodPaths() []string {
	return []string{
		"/a", "/a/b", "/certs/web/tls.key", "/.hidden", "/...", "/a..b", "/ ", "/a b/ c", "/ä/日本/🙂", "/\u00a0", "/~\\:*?\"<>|",
		"/.sys", "/.sys/x", "/" + strings.Repeat("s", MaxSegment),
		strings.Repeat("/s", MaxSegments),
		strings.Repeat("/"+strings.Repeat("s", 127), 8), // 1024 bytes
	}
}

func TestCheckPath(t *testing.T) {
	for _, p := range goodPaths() {
		if err := CheckPath(p); err != nil {
			t.Errorf("%v", err)
		}
	}
	for p, reason := range map[string]string{
		"":                             "begin with /",
		"a":                            "begin with /",
		"a/b":                          "begin with /",
		" /a":                          "begin with /",
		"/":                            "empty segment",
		"//":                           "empty segment",
		"//a":                          "empty segment",
		"/a/":                          "empty segment",
		"/a//b":                        "empty segment",
		"/.":                           `segment "."`,
		"/..":                          `segment ".."`,
		"/a/./b":                       `segment "."`,
		"/a/../b":                      `segment ".."`,
		"/a/..":                        `segment ".."`,
		"/a\x00b":                      "control character U+0000",
		"/a\n":                         "control character U+000A",
		"/\x1f":                        "control character U+001F",
		"/\x7f":                        "control character U+007F",
		"/\u0080":                      "control character U+0080",
		"/\u009f":                      "control character U+009F",
		"/\x80":                        "UTF-8",
		"/\xc0\xaf":                    "UTF-8", // an over-long slash
		"/\xed\xa0\x80":                "UTF-8", // a surrogate
		"/\xf4\x90\x80\x80":            "UTF-8", // past U+10FFFF
		"/" + strings.Repeat("s", 256): "segment of 256 bytes",
		"/" + strings.Repeat("ä", 128): "segment of 256 bytes",
		strings.Repeat("/s", 33):       "33 segments",
		strings.Repeat("/"+strings.Repeat("s", 127), 8) + "s": "limit is 1024",
		strings.Repeat("x", 1<<20):                            "begin with /",
	} {
		err := CheckPath(p)
		var pathErr *PathError
		if !errors.As(err, &pathErr) || !strings.Contains(err.Error(), reason) {
			t.Errorf("%.80q: got %v, want %s", p, err, reason)
		} else if len(err.Error()) > 400 {
			t.Errorf("%.80q: an error of %d bytes", p, len(err.Error()))
		}
	}
}

func TestCleanPrefix(t *testing.T) {
	for in, want := range map[string]string{
		"": "/", "/": "/", "/a": "/a", "/a/": "/a", "/a/b/": "/a/b",
		"//": "", "/a//": "", "a": "", "/../": "", "/a/./": "",
	} {
		got, err := CleanPrefix(in)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v; want %q", in, got, err, want)
		}
	}
}

func TestCovers(t *testing.T) {
	for _, tc := range []struct {
		prefix, path string
		want         bool
	}{
		{"/", "/a", true},
		{"/a", "/a", true},
		{"/a", "/a/b", true},
		{"/a", "/ab", false},
		{"/a", "/a.b", false},
		{"/a/b", "/a", false},
		{"/a/b", "/a/bc/d", false},
		{"/b", "/a/b", false},
	} {
		if got := Covers(tc.prefix, tc.path); got != tc.want {
			t.Errorf("Covers(%q, %q) = %v", tc.prefix, tc.path, got)
		}
	}
	for path, want := range map[string]bool{"/.sys": true, "/.sys/a": true, "/.system": false, "/a/.sys": false, "/.Sys": false} {
		if Reserved(path) != want {
			t.Errorf("Reserved(%q) = %v", path, !want)
		}
	}
}

// TestTags holds that a slot's tags are those of the prefixes, so that a rule on a prefix is one comparison.
func TestTags(t *testing.T) {
	network, other := fixedNetwork(), NetworkID(fixedHash("network", 1))
	tags := network.Tags("/certs/web/tls.key")
	for i, prefix := range []string{"/certs", "/certs/web", "/certs/web/tls.key"} {
		if tags[i] != network.TagOf(prefix) {
			t.Errorf("tag %d is not that of %s", i, prefix)
		}
	}
	if len(tags) != 3 {
		t.Errorf("%d tags", len(tags))
	}
	seen := map[Tag]string{}
	for _, p := range goodPaths() {
		for _, n := range []NetworkID{network, other} {
			key := n.PathKey(p)
			if q, twice := seen[key]; twice {
				t.Errorf("%q and %q have one tag", p, q)
			}
			seen[key] = n.String() + p
		}
	}

	s := Slot{Tags: tags}
	for path, want := range map[string]bool{
		"/certs/web/tls.key": true, "/certs/web/tls": false, "/certs/web": false, "/certs/web/tls.key/x": false, "/x/web/tls.key": false,
	} {
		if s.Matches(network, path) != want {
			t.Errorf("Matches(%q) = %v", path, !want)
		}
	}
	if s.Matches(other, "/certs/web/tls.key") {
		t.Error("matches in another network")
	}
	// The last tag alone does not place a slot: an author could claim a prefix where it may write.
	forged := Slot{Tags: []Tag{network.TagOf("/free"), network.TagOf("/certs/web"), tags[2]}}
	if forged.Matches(network, "/certs/web/tls.key") {
		t.Error("a slot with the first tag of another prefix matches")
	}
}

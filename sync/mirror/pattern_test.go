package mirror

import "testing"

func TestPatterns(t *testing.T) {
	for _, c := range []struct {
		include, exclude []string
		path             string
		want             bool
	}{
		{nil, nil, "a/b", true},
		{nil, []string{"*.tmp"}, "a/b.tmp", false},
		{nil, []string{"*.tmp"}, "a/b.tmp/c", false},
		{nil, []string{"*.tmp"}, "a/b.tmpx", true},
		{nil, []string{"/a"}, "a/b", false},
		{nil, []string{"/a"}, "b/a", true},
		{nil, []string{"a/*/c"}, "a/x/c/d", false},
		{nil, []string{"a/*/c"}, "a/x/y/c", true},
		{nil, []string{"a/**/c"}, "a/x/y/c", false},
		{nil, []string{"a/**/c"}, "a/c", false},
		{nil, []string{"a/**"}, "a", true},
		{nil, []string{"a/**"}, "a/b", false},
		{nil, []string{"cache/"}, "x/cache/y", false},
		{[]string{"*.pem"}, nil, "x/y.pem", true},
		{[]string{"*.pem"}, nil, "x/y.key", false},
		{[]string{"web/**"}, []string{"*.key"}, "web/a.key", false},
		{[]string{"web/**"}, []string{"*.key"}, "web/a.pem", true},
		{[]string{"[a-c]?"}, nil, "b1", true},
		{[]string{"[a-c]?"}, nil, "d1", false},
	} {
		f, err := newFilter(c.include, c.exclude)
		if err != nil {
			t.Fatal(err)
		}
		if got := f.takes(c.path); got != c.want {
			t.Errorf("include %q exclude %q: %s is taken: %v", c.include, c.exclude, c.path, got)
		}
	}
	for _, bad := range []string{"", "/", "a//b", "../a", "[", "a/[x"} {
		if CheckPattern(bad) == nil {
			t.Errorf("pattern %q was accepted", bad)
		}
	}
}

package mirror

import (
	"errors"
	"fmt"
	"path"
	"strings"
)

// filter says which paths a mirror looks at. Patterns are matched by segments, as path.Match does, and "**" stands for
// any number of segments. A pattern without a slash matches a name anywhere; one with a slash is meant from the root.
// What matches stands for all below it. Exclude wins over include; without include all that is not excluded is meant.
type filter struct{ include, exclude [][]string }

// CheckPattern says what is wrong with a pattern of Options.Include or Options.Exclude.
func CheckPattern(pattern string) error {
	_, err := parsePattern(pattern)
	return err
}

func newFilter(include, exclude []string) (f filter, err error) {
	for _, list := range []struct {
		texts []string
		to    *[][]string
	}{{include, &f.include}, {exclude, &f.exclude}} {
		for _, text := range list.texts {
			p, err := parsePattern(text)
			if err != nil {
				return f, err
			}
			*list.to = append(*list.to, p)
		}
	}
	return f, nil
}

// parsePattern gives the segments of a pattern, all from the root.
func parsePattern(text string) ([]string, error) {
	trimmed := strings.Trim(text, "/")
	if trimmed == "" {
		return nil, errors.New("an empty pattern")
	}
	segments := strings.Split(trimmed, "/")
	for _, s := range segments {
		if s == "" || s == "." || s == ".." {
			return nil, fmt.Errorf("pattern %q: it has a segment that is no file name", text)
		}
		if _, err := path.Match(s, "x"); err != nil {
			return nil, fmt.Errorf("pattern %q: %w", text, err)
		}
	}
	if !strings.Contains(strings.TrimSuffix(text, "/"), "/") {
		segments = append([]string{"**"}, segments...)
	}
	return segments, nil
}

// takes tells whether the mirror looks at the relative path.
func (f *filter) takes(rel string) bool {
	if len(f.include)+len(f.exclude) == 0 {
		return true
	}
	segments := strings.Split(rel, "/")
	return (len(f.include) == 0 || matchAny(f.include, segments)) && !matchAny(f.exclude, segments)
}

// skipsDir tells that nothing in the directory or below it can be taken.
func (f *filter) skipsDir(rel string) bool {
	return len(f.exclude) > 0 && matchAny(f.exclude, strings.Split(rel, "/"))
}

func matchAny(patterns [][]string, segments []string) bool {
	for _, p := range patterns {
		if covers(p, segments) {
			return true
		}
	}
	return false
}

// covers tells whether the pattern matches the path or a directory above it.
func covers(pattern, segments []string) bool {
	if len(pattern) == 0 {
		return true
	}
	if pattern[0] == "**" {
		for i := range len(segments) + 1 {
			// A trailing "**" means what is below, not the directory itself.
			if len(pattern) == 1 && i > 0 || len(pattern) > 1 && covers(pattern[1:], segments[i:]) {
				return true
			}
		}
		return false
	}
	if len(segments) == 0 {
		return false
	}
	ok, err := path.Match(pattern[0], segments[0])
	return err == nil && ok && covers(pattern[1:], segments[1:])
}

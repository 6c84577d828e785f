package record

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Limits of a path, protocol constants.
const (
	MaxPath     = 1024 // bytes
	MaxSegment  = 255  // bytes
	MaxSegments = 32
)

// PathError says what is wrong with a path. It is always the caller's fault.
type PathError struct{ Path, Reason string }

func (e *PathError) Error() string { return fmt.Sprintf("bad path %q: %s", e.Path, e.Reason) }

// CheckPath returns a *PathError unless path can name an entry: "/" segment ("/" segment)*, valid UTF-8 without
// control characters, no empty, "." or ".." segment, within the limits. Paths are compared byte by byte.
func CheckPath(path string) error {
	bad := func(format string, args ...any) error {
		shown := path
		if len(shown) > 64 {
			shown = shown[:64] + "..."
		}
		return &PathError{shown, fmt.Sprintf(format, args...)}
	}
	switch {
	case path == "" || path[0] != '/':
		return bad("it must begin with /")
	case len(path) > MaxPath:
		return bad("%d bytes, the limit is %d", len(path), MaxPath)
	case !utf8.ValidString(path):
		return bad("not valid UTF-8")
	}
	for _, r := range path {
		if r < 0x20 || r >= 0x7f && r <= 0x9f {
			return bad("control character %U", r)
		}
	}
	if n := strings.Count(path, "/"); n > MaxSegments {
		return bad("%d segments, the limit is %d", n, MaxSegments)
	}
	for s := range strings.SplitSeq(path[1:], "/") {
		switch {
		case s == "":
			return bad("empty segment")
		case s == "." || s == "..":
			return bad("segment %q is not allowed", s)
		case len(s) > MaxSegment:
			return bad("segment of %d bytes, the limit is %d", len(s), MaxSegment)
		}
	}
	return nil
}

// CleanPrefix checks a prefix and gives its canonical form: "/" for everything, else a path without the one trailing
// slash that a prefix may have.
func CleanPrefix(prefix string) (string, error) {
	if prefix == "/" || prefix == "" {
		return "/", nil
	}
	p := strings.TrimSuffix(prefix, "/")
	if err := CheckPath(p); err != nil {
		return "", err
	}
	return p, nil
}

// Covers tells whether path is prefix itself or below it. Prefixes end at segment borders: /certs does not cover
// /certs2. Prefix must be clean.
func Covers(prefix, path string) bool {
	if prefix == "/" {
		return true
	}
	return strings.HasPrefix(path, prefix) && (len(path) == len(prefix) || path[len(prefix)] == '/')
}

// Reserved tells whether path lies in the subtree /.sys, which the product keeps for itself.
func Reserved(path string) bool { return Covers("/.sys", path) }

// Tag stands for one prefix of a path without naming it: the first 16 bytes of a hash over network and prefix.
type Tag [16]byte

// TagOf hashes one prefix: the path up to and with some segment.
func (n NetworkID) TagOf(prefix string) (t Tag) {
	h := sha256.New()
	h.Write([]byte("syncagent path v1\n"))
	h.Write(n[:])
	h.Write([]byte(prefix))
	var sum [32]byte
	copy(t[:], h.Sum(sum[:0]))
	return t
}

// Tags gives the tag of every prefix of path, shortest first; the last is the path key. Path must be valid.
func (n NetworkID) Tags(path string) []Tag {
	tags := make([]Tag, 0, strings.Count(path, "/"))
	for i := 1; i <= len(path); i++ {
		if i == len(path) || path[i] == '/' {
			tags = append(tags, n.TagOf(path[:i]))
		}
	}
	return tags
}

// PathKey is the last of path's tags.
func (n NetworkID) PathKey(path string) Tag { return n.TagOf(path) }

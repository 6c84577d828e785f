package acl

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// maxFaults bounds what Parse reports of one text.
const maxFaults = 100

// SyntaxError is one fault of a policy text, with its place and, where we know it, what to do.
type SyntaxError struct {
	Line, Col int // from 1; columns are characters
	Msg, Hint string
}

func (e *SyntaxError) Error() string {
	s := fmt.Sprintf("line %d, column %d: %s", e.Line, e.Col, e.Msg)
	if e.Hint != "" {
		s += " (" + e.Hint + ")"
	}
	return s
}

// SyntaxErrors are all faults of a text, in the order of its lines. It unwraps to each *SyntaxError.
type SyntaxErrors []*SyntaxError //nolint:errname // a list of errors, named as the one it holds

func (e SyntaxErrors) Error() string {
	lines := make([]string, len(e))
	for i := range e {
		lines[i] = e[i].Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives each fault to errors.As.
func (e SyntaxErrors) Unwrap() []error {
	errs := make([]error, len(e))
	for i := range e {
		errs[i] = e[i]
	}
	return errs
}

// Warning is a line that is valid but probably not what its author wanted, or a property of the whole text (Line 0).
type Warning struct {
	Line      int // from 1
	Msg, Hint string
}

func (w Warning) String() string {
	s := w.Msg
	if w.Line > 0 {
		s = fmt.Sprintf("line %d: %s", w.Line, s)
	}
	if w.Hint != "" {
		s += " (" + w.Hint + ")"
	}
	return s
}

// field is a word of a line and the byte where it begins.
type field struct {
	text string
	at   int
}

// fieldsOf splits a line at spaces and tabs and leaves out its comment.
func fieldsOf(line string) (fields []field) {
	for i := 0; i < len(line); {
		if isSpace(line[i]) {
			i++
			continue
		}
		if line[i] == '#' { // only here does a word begin: /a#b is a path
			break
		}
		start := i
		for i < len(line) && !isSpace(line[i]) {
			i++
		}
		fields = append(fields, field{line[start:i], start})
	}
	return fields
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' }

// isRule tells rules from other lines by their second field, so that a file of replds stays valid even if it names
// somebody "group".
func isRule(fields []field) bool {
	return len(fields) > 1 && (fields[1].text[0] == '/' || fields[1].text == "peer")
}

// nextLine cuts the first line off text. The line comes without its end, which may be CR LF.
func nextLine(text string) (line, rest string) {
	line, rest, _ = strings.Cut(text, "\n")
	return strings.TrimSuffix(line, "\r"), rest
}

// checkCharacters finds the first character that must not be in a line, comments included: a text is shown on
// terminals and read by the admin who signs it, so nothing in it may hide or move other parts of it (CVE-2021-42574).
func checkCharacters(line string) (at int, msg, hint string) {
	for i, r := range line {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(line[i:], "\uFFFD"):
			return i, "not valid UTF-8", "save the file as UTF-8"
		case r == '\uFEFF':
			return i, "byte order mark", "save the file as UTF-8 without a byte order mark"
		case r < 0x20 && r != '\t', r >= 0x7f && r <= 0x9f:
			return i, fmt.Sprintf("control character %U", r), "remove it"
		case r == '\u2028', r == '\u2029', r >= '\u202a' && r <= '\u202e', r >= '\u2066' && r <= '\u2069':
			return i, fmt.Sprintf("character %U that changes the order in which text is shown", r), "remove it"
		}
	}
	return -1, "", ""
}

// quote shows a word of a text, shortened so that a line of a megabyte gives a message one can read.
func quote(s string) string {
	const most = 64
	if len(s) > most {
		cut := most
		for cut > 0 && !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = s[:cut] + "..."
	}
	return fmt.Sprintf("%q", s)
}

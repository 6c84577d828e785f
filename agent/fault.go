package agent

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Fault is one thing wrong with the configuration.
type Fault struct {
	Line, Column int    // in the file; 0 when the value did not come from it
	Source       string // what set the value instead: an environment variable or a flag
	Key          string // key path such as "api.http" or "mirrors[1].dir"; may be empty
	Message      string
}

func (f Fault) String() string {
	var b strings.Builder
	if f.Line > 0 {
		fmt.Fprintf(&b, "[%d:%d] ", f.Line, f.Column)
	}
	if f.Source != "" {
		fmt.Fprintf(&b, "%s: ", f.Source)
	} else if f.Key != "" {
		fmt.Fprintf(&b, "%s: ", f.Key)
	}
	b.WriteString(f.Message)
	return b.String()
}

// Faults are all things wrong with a configuration, in the order of the file.
type Faults []Fault

func (fs Faults) sort() {
	slices.SortStableFunc(fs, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}

// faultsError wraps faults, one a line when there are several.
func faultsError(file string, faults Faults) error {
	if len(faults) == 0 {
		return nil
	}
	faults.sort()
	named := file != ""
	if !named {
		file = "configuration"
	}
	e := &Error{Code: CodeBadConfig, Hint: "docs/reference.md has every key and its default"}
	if named {
		e.Hint = "syncagent config check --config " + file + " tests it; " + e.Hint
	}
	if len(faults) == 1 {
		e.Message = fmt.Sprintf("%s: %s", file, faults[0])
		return e
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d faults", file, len(faults))
	for _, f := range faults {
		fmt.Fprintf(&b, "\n  %s", f)
	}
	e.Message = b.String()
	return e
}

// nearest gives the candidate that word was probably meant to be, or "".
func nearest(word string, candidates []string) string {
	best, distance := "", len(word)/3+2 // as many slips as are likely in a word of this length, plus one
	for _, c := range candidates {
		if d := editDistance(word, c); d < distance {
			best, distance = c, d
		}
	}
	return best
}

// editDistance counts the insertions, deletions and replacements that make b of a (Levenshtein).
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, diagonal+1, row[j]+1)
		}
	}
	return row[len(b)]
}

package test

import (
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

func TestGuarantees(t *testing.T) {
	faults, err := checkGuarantees(os.DirFS(".."))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range faults {
		t.Error(f)
	}
}

var (
	testName  = regexp.MustCompile(`\bTestG[0-9]+_\w+`)
	number    = regexp.MustCompile(`^G[0-9]+$`)
	testFunc  = regexp.MustCompile(`(?m)^func (TestG[0-9]+_\w+)\(`)
	guarantee = regexp.MustCompile(`(?ms)^- \*\*(G[0-9]+)\*\* (.*?)\n(?:- \*\*G|\n)`)
)

// checkGuarantees holds ARCHITECTURE.md to the tests: it states G1 to G12, the tests that it names below a guarantee
// exist and bear its number, and a guarantee that has tests names at least one.
func checkGuarantees(tree fs.FS) (faults []string, err error) {
	text, err := fs.ReadFile(tree, "ARCHITECTURE.md")
	if err != nil {
		return nil, err
	}
	exist, err := guaranteeTests(tree)
	if err != nil {
		return nil, err
	}
	stated := map[string]string{}
	for rest := string(text); ; {
		m := guarantee.FindStringSubmatchIndex(rest)
		if m == nil {
			break
		}
		stated[rest[m[2]:m[3]]] = rest[m[4]:m[5]]
		rest = rest[m[5]:]
	}
	for _, g := range strings.Fields("G1 G2 G3 G4 G5 G6 G7 G8 G9 G10 G11 G12") {
		if stated[g] == "" {
			faults = append(faults, g+" is not stated")
			continue
		}
		named := testName.FindAllString(stated[g], -1)
		for _, name := range named {
			if !slices.Contains(numbers(name), g) {
				faults = append(faults, g+" is held by "+name+", which bears another number")
			}
			if !slices.Contains(exist, name) {
				faults = append(faults, name+" is named and does not exist")
			}
		}
		tested := slices.ContainsFunc(exist, func(name string) bool { return slices.Contains(numbers(name), g) })
		if tested && len(named) == 0 {
			faults = append(faults, g+" has tests and names none")
		}
	}
	return faults, nil
}

// numbers gives the guarantees whose numbers a test bears, as in TestG4_G10_Name.
func numbers(test string) (all []string) {
	for _, part := range strings.Split(strings.TrimPrefix(test, "Test"), "_") {
		if !number.MatchString(part) {
			break
		}
		all = append(all, part)
	}
	return all
}

// guaranteeTests finds the tests that bear a number.
func guaranteeTests(tree fs.FS) (names []string, err error) {
	err = fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if slices.Contains(ignored, name) {
				return fs.SkipDir
			}
			return nil
		}
		if ok, _ := path.Match("*_test.go", path.Base(name)); !ok {
			return nil
		}
		src, err := fs.ReadFile(tree, name)
		if err != nil {
			return err
		}
		for _, m := range testFunc.FindAllStringSubmatch(string(src), -1) {
			names = append(names, m[1])
		}
		return nil
	})
	return names, err
}

func TestGuaranteesReports(t *testing.T) {
	var all strings.Builder
	for _, g := range strings.Fields("1 2 3 4 5 6 7 8 9 10 11 12") {
		all.WriteString("- **G" + g + "** Promise.\n")
	}
	good := all.String() + "\nEnd.\n"
	const test = "package a\n\nfunc TestG3_LastWins(t *testing.T) {}\n"
	for name, tc := range map[string]struct{ text, src, want string }{
		"all stated, none tested":    {good, "", ""},
		"named and there":            {strings.Replace(good, "**G3** Promise.", "**G3** Promise.\n  Held by `TestG3_LastWins`.", 1), test, ""},
		"one not stated":             {strings.Replace(good, "**G7**", "**G13**", 1), "", "G7 is not stated"},
		"named and not there":        {strings.Replace(good, "**G3** Promise.", "**G3** Promise. TestG3_Other", 1), "", "TestG3_Other is named and does not exist"},
		"there and none named":       {good, test, "G3 has tests and names none"},
		"two numbers":                {strings.Replace(good, "**G9** Promise.", "**G9** TestG3_G9_Both", 1), "func TestG3_G9_Both(", "G3 has tests and names none"},
		"named below another number": {strings.Replace(good, "**G1** Promise.", "**G1** TestG3_LastWins", 1), test, "G1 is held by TestG3_LastWins"},
	} {
		t.Run(name, func(t *testing.T) {
			faults, err := checkGuarantees(fstest.MapFS{
				"ARCHITECTURE.md": {Data: []byte(tc.text)},
				"a/a_test.go":     {Data: []byte(tc.src)},
			})
			if err != nil {
				t.Fatal(err)
			}
			got := strings.Join(faults, "\n")
			if tc.want == "" && got != "" || !strings.Contains(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

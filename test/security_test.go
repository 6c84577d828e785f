package test

import (
	"io/fs"
	"os"
	"path"
	"regexp"
	"testing"
)

// TestSecurityNamesTests holds SECURITY.md to the tests: every test that it names exists.
func TestSecurityNamesTests(t *testing.T) {
	text, err := os.ReadFile("../SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	exist, err := allTests(os.DirFS(".."))
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile(`\bTest[A-Z]\w+`).FindAllString(string(text), -1)
	if len(named) < 20 {
		t.Errorf("SECURITY.md names %d tests", len(named))
	}
	for _, name := range named {
		if !exist[name] {
			t.Errorf("SECURITY.md names %s, which does not exist", name)
		}
	}
}

// allTests finds the test functions of a source tree.
func allTests(tree fs.FS) (map[string]bool, error) {
	found := map[string]bool{}
	function := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	err := fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if ok, _ := path.Match("*_test.go", path.Base(name)); d.IsDir() || !ok {
			return nil
		}
		src, err := fs.ReadFile(tree, name)
		for _, m := range function.FindAllStringSubmatch(string(src), -1) {
			found[m[1]] = true
		}
		return err
	})
	return found, err
}

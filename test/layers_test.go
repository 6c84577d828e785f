// Package test holds the rules of the source tree itself: which package may import which, what lies where, and that
// ARCHITECTURE.md names tests that exist.
package test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
)

const module = "syncagent/"

// below lists, for every folder that holds packages, what of ours they may import. A folder stands for itself and all
// below it; the longest match counts. This is the diagram of ARCHITECTURE.md.
var below = map[string][]string{
	"cmd/syncagent":    {"agent", "acl", "crdtstore/record", "sync/mirror", "sync/trigger", "configs", "cmd/syncagent"},
	"agent":            {"agent", "crdtstore", "p2p", "acl", "crdtstore/record", "sync/mirror", "sync/trigger", "configs"},
	"crdtstore":        {"crdtstore", "acl", "crdtstore/record", "crdtstore/fault"},
	"crdtstore/record": {},
	"crdtstore/fault":  {},
	"p2p":              {"p2p", "crdtstore/record", "crdtstore/fault"},
	"sync/mirror":      {"sync/mirror", "sync/trigger", "crdtstore/record", "crdtstore/fault"},
	"sync/trigger":     {"sync/trigger", "crdtstore/record", "crdtstore/fault"},
	"acl":              {"acl", "crdtstore/record"},
	"configs":          {},
	"test":             {"test", "agent", "crdtstore", "p2p", "acl", "crdtstore/record", "crdtstore/fault", "sync/mirror", "sync/trigger", "configs"},
}

// owners names the one folder that may import a family of libraries. Tests of whole agents may use the network's: they
// play peers that keep no rule of ours, or put a network in memory below the agents.
var owners = []struct {
	path   string
	owner  string
	except []string // may be imported anywhere
	tests  []string // folders that may import it, too
}{
	{"github.com/ipfs/go-ds-crdt", "crdtstore", nil, nil},
	{"github.com/ipfs/go-datastore", "crdtstore", nil, nil},
	{"github.com/ipfs/boxo", "crdtstore", nil, nil},
	{"github.com/dgraph-io/badger", "crdtstore", nil, nil},
	{"github.com/libp2p", "p2p", []string{"github.com/libp2p/go-libp2p/core/peer", "github.com/libp2p/go-libp2p/core/crypto"}, []string{"test/bench", "test/e2e", "test/virtual"}},
}

// topLevel lists the folders of the repository. Those without a package may hold no Go file.
var topLevel = []string{".ci", "acl", "agent", "cmd", "configs", "crdtstore", "docs", "p2p", "sync", "test", "tools"}

// ignored are folders that no commit holds. Modules of their own are left out, too.
var ignored = []string{".git", "bin", "dist"}

func TestLayers(t *testing.T) {
	faults, err := checkTree(os.DirFS(".."))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range faults {
		t.Error(f)
	}
}

// checkTree parses all Go files of a tree; `go list` would answer from a cache that does not see new files.
func checkTree(tree fs.FS) (faults []string, err error) {
	fail := func(file, format string, args ...any) {
		faults = append(faults, file+": "+fmt.Sprintf(format, args...))
	}
	commented := map[string]bool{} // packages written by hand -> have a package comment
	err = fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if slices.Contains(ignored, name) || d.Name() == "testdata" || name != "." && isModule(tree, name) {
				return fs.SkipDir
			}
			if name != "." && path.Dir(name) == "." && !slices.Contains(topLevel, name) {
				fail(name, "the top-level folders are given; add none")
			}
			return nil
		}
		if path.Ext(name) != ".go" {
			return nil
		}
		src, err := fs.ReadFile(tree, name)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, src, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		for _, imp := range file.Imports {
			if fault := checkImport(path.Dir(name), imp); fault != "" {
				fail(name, "%s", fault)
			}
		}
		if layerOf(path.Dir(name)) == "" {
			fail(name, "no Go files in this folder; packages lie in %s", folders())
		}
		if !ast.IsGenerated(file) {
			commented[path.Dir(name)] = commented[path.Dir(name)] || file.Doc != nil
		}
		return nil
	})
	for dir, ok := range commented {
		if !ok {
			fail(dir, "no package comment: say what the package is, its guarantees and what may block")
		}
	}
	slices.Sort(faults)
	return faults, err
}

func isModule(tree fs.FS, dir string) bool {
	_, err := fs.Stat(tree, path.Join(dir, "go.mod"))
	return err == nil
}

func checkImport(dir string, imp *ast.ImportSpec) string {
	name, err := strconv.Unquote(imp.Path.Value)
	if err != nil {
		return err.Error()
	}
	if ours, ok := strings.CutPrefix(name, module); ok {
		if !slices.Contains(below[layerOf(dir)], layerOf(ours)) {
			return fmt.Sprintf("%s may not import %s", dir, ours)
		}
		return ""
	}
	for _, o := range owners {
		if within(name, o.path) && layerOf(dir) != o.owner && !slices.Contains(o.tests, dir) && !slices.Contains(o.except, name) {
			return fmt.Sprintf("only %s may import %s", o.owner, name)
		}
	}
	return ""
}

// layerOf gives the folder of `below` that a package belongs to, or nothing.
func layerOf(dir string) (layer string) {
	for l := range below {
		if within(dir, l) && len(l) > len(layer) {
			layer = l
		}
	}
	return layer
}

func within(name, folder string) bool { return name == folder || strings.HasPrefix(name, folder+"/") }

func folders() string {
	all := make([]string, 0, len(below))
	for l := range below {
		all = append(all, l)
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// TestLayersReports shows that each kind of violation is reported, and nothing else.
func TestLayersReports(t *testing.T) {
	const doc = "// Package x is here.\npackage x\n"
	for _, tc := range []struct {
		name, file, src, want string
	}{
		{"allowed edges", "agent/a.go", doc + `import _ "syncagent/crdtstore/record"; import _ "syncagent/sync/mirror"`, ""},
		{"core packages of libp2p", "acl/a.go", doc + `import _ "github.com/libp2p/go-libp2p/core/peer"`, ""},
		{"own library", "crdtstore/a.go", doc + `import _ "github.com/dgraph-io/badger/v4"`, ""},
		{"subpackages", "agent/internal/x/a.go", doc + `import _ "syncagent/agent/api/v1"`, ""},
		{"library with a like name", "acl/a.go", doc + `import _ "github.com/ipfs/go-ds-crdt2"`, ""},
		{"generated code", "agent/api/v1/a.go", "// Code generated by hand. DO NOT EDIT.\n\npackage v1", ""},
		{"testdata", "acl/testdata/a.go", "nonsense", ""},

		{"upwards", "crdtstore/a.go", doc + `import _ "syncagent/agent"`, "crdtstore/a.go: crdtstore may not import agent"},
		{"sideways", "p2p/a.go", doc + `import _ "syncagent/acl"`, "p2p/a.go: p2p may not import acl"},
		{"store into network", "p2p/a.go", doc + `import _ "syncagent/crdtstore"`, "p2p may not import crdtstore"},
		{"command past the agent", "cmd/syncagent/a.go", doc + `import _ "syncagent/p2p"`, "cmd/syncagent may not import p2p"},
		{"record imports", "crdtstore/record/a.go", doc + `import _ "syncagent/acl"`, "crdtstore/record may not import acl"},
		{"in tests too", "acl/a_test.go", doc + `import _ "syncagent/crdtstore"`, "acl/a_test.go: acl may not import crdtstore"},
		{"unknown package of ours", "agent/a.go", doc + `import _ "syncagent/util"`, "agent may not import util"},
		{"go-ds-crdt elsewhere", "agent/a.go", doc + `import _ "github.com/ipfs/go-ds-crdt"`, "only crdtstore may import github.com/ipfs/go-ds-crdt"},
		{"go-ds-crdt in record", "crdtstore/record/a.go", doc + `import _ "github.com/ipfs/go-ds-crdt"`, "only crdtstore may import"},
		{"go-datastore elsewhere", "p2p/a.go", doc + `import _ "github.com/ipfs/go-datastore/query"`, "only crdtstore may import"},
		{"badger elsewhere", "sync/mirror/a.go", doc + `import _ "github.com/dgraph-io/badger/v4"`, "only crdtstore may import"},
		{"libp2p elsewhere", "agent/a.go", doc + `import _ "github.com/libp2p/go-libp2p/core/network"`, "only p2p may import"},
		{"pubsub elsewhere", "crdtstore/a.go", doc + `import _ "github.com/libp2p/go-libp2p-pubsub"`, "only p2p may import"},
		{"libp2p in tests of whole agents", "test/e2e/a_test.go", doc + `import _ "github.com/libp2p/go-libp2p"`, ""},
		{"libp2p in other tests", "test/a_test.go", doc + `import _ "github.com/libp2p/go-libp2p"`, "only p2p may import"},
		{"badger in tests of whole agents", "test/e2e/a_test.go", doc + `import _ "github.com/dgraph-io/badger/v4"`, "only crdtstore may import"},
		{"file in sync", "sync/a.go", doc, "sync/a.go: no Go files in this folder"},
		{"file in the root", "a.go", doc, "a.go: no Go files in this folder"},
		{"file in docs", "docs/a.go", doc, "docs/a.go: no Go files in this folder"},
		{"new folder in sync", "sync/push/a.go", doc, "no Go files in this folder"},
		{"new top-level folder", "util/a.go", doc, "util: the top-level folders are given"},
		{"top-level folder without Go", "scripts/a.sh", "", "scripts: the top-level folders are given"},
		{"no package comment", "acl/a.go", "package acl", "acl: no package comment"},
		{"comment apart from the clause", "acl/a.go", "// A remark.\n\npackage acl", "acl: no package comment"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			faults, err := checkTree(fstest.MapFS{tc.file: {Data: []byte(tc.src)}})
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

package configs

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestPackages builds each kind of package of a stand-in for the program, twice, and looks into it.
func TestPackages(t *testing.T) {
	for kind, p := range map[string]struct {
		tools []string
		file  string
		list  func(file string) []string // prints mode, owner and path of what is in it
		rows  []string
	}{
		"deb": {
			tools: []string{"dpkg-deb"}, file: "syncagent_1.2.3_arm64.deb",
			list: func(file string) []string { return []string{"dpkg-deb", "--contents", file} },
			rows: []string{`-rwxr-xr-x root/root .* \./usr/bin/syncagent\n`, `-rw-r--r-- root/root .* \./etc/syncagent/syncagent.yaml\n`},
		},
		"rpm": {
			tools: []string{"rpmbuild", "rpm"}, file: "syncagent-1.2.3-1.aarch64.rpm",
			list: func(file string) []string { return []string{"rpm", "-qplv", file} },
			rows: []string{`-rwxr-xr-x +1 root +root .* /usr/bin/syncagent\n`, `-rw-r--r-- +1 root +root .* /etc/syncagent/syncagent.yaml\n`},
		},
		"tar": {
			tools: []string{"tar", "gzip"}, file: "syncagent-1.2.3-linux-arm64.tar.gz",
			list: func(file string) []string { return []string{"tar", "--numeric-owner", "-tvf", file} },
			rows: []string{`-rwxr-xr-x 0/0 .* \./usr/bin/syncagent\n`},
		},
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			for _, tool := range append(p.tools, "sh", "git") {
				if _, err := exec.LookPath(tool); err != nil {
					t.Skip(tool + " is not installed: no package was built")
				}
			}
			tree := standInTree(t)
			build := func() string {
				output(t, tree, "sh", "configs/package.sh", kind, "v1.2.3", "arm64", "bin/syncagent", "bin/syncagent")
				return read(t, filepath.Join(tree, "dist", p.file))
			}
			first := build()
			if build() != first {
				t.Error("two builds differ")
			}
			list := output(t, tree, p.list("dist/"+p.file)...)
			for _, row := range append(p.rows,
				`/usr/lib/systemd/system/syncagent.service\n`, `/usr/lib/systemd/system/syncagent-mirror@.service\n`,
				`/usr/lib/sysusers.d/syncagent.conf\n`, `/usr/share/man/man1/syncagent.1.gz\n`,
				`/usr/share/bash-completion/completions/syncagent\n`, `/usr/share/zsh/vendor-completions/_syncagent\n`,
				`/usr/share/fish/vendor_completions.d/syncagent.fish\n`, `/usr/share/doc/syncagent/completion.ps1\n`,
				`/usr/share/doc/syncagent/a.md\n`) {
				if !regexp.MustCompile(row).MatchString(list) {
					t.Errorf("no %s in\n%s", row, list)
				}
			}
			if kind == "deb" {
				if info := output(t, tree, "dpkg-deb", "--info", "dist/"+p.file, "conffiles"); info != "/etc/syncagent/syncagent.yaml\n" {
					t.Errorf("conffiles %q", info)
				}
			}
		})
	}
}

// standInTree is a source tree with a program that only writes what a package asks of it.
func standInTree(t *testing.T) string {
	t.Helper()
	tree := t.TempDir()
	if err := os.CopyFS(filepath.Join(tree, "configs"), os.DirFS(".")); err != nil {
		t.Fatal(err)
	}
	files := map[string]string{
		"bin/syncagent": "#!/bin/sh\nif [ $1 = manpage ]; then echo page >$2/syncagent.1; else echo completion; fi\n",
		"docs/a.md":     "text",
		"docs/a.svg":    "<svg/>",
	}
	for _, name := range strings.Fields("README.md CHANGELOG.md ARCHITECTURE.md SECURITY.md LICENSE") {
		files[name] = "text"
	}
	for name, text := range files {
		if err := os.MkdirAll(filepath.Join(tree, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(tree, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return tree
}

// output runs a command in dir and gives what it prints.
func output(t *testing.T, dir string, words ...string) string {
	t.Helper()
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "SOURCE_DATE_EPOCH=1790000000")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", words[0], err, out)
	}
	return string(out)
}

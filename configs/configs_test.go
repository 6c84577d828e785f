package configs

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestUnit holds that the unit parses, and that the service stays as locked up as it is.
func TestUnit(t *testing.T) {
	section, seen := "", map[string]bool{}
	for i, line := range strings.Split(read(t, "syncagent.service"), "\n") {
		switch {
		case line == "" || line[0] == '#':
		case regexp.MustCompile(`^\[(Unit|Service|Install)\]$`).MatchString(line):
			section = line
		case section != "" && regexp.MustCompile(`^[A-Z][A-Za-z]+=`).MatchString(line):
			name, _, _ := strings.Cut(line, "=")
			if seen[section+name] && name != "SystemCallFilter" {
				t.Errorf("line %d: %s is there twice", i+1, name)
			}
			seen[section+name] = true
		default:
			t.Errorf("line %d: %q", i+1, line)
		}
	}
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed: the unit was not rated")
	}
	out, err := exec.Command(analyze, "security", "--offline=true", "--threshold=15", "syncagent.service").CombinedOutput()
	if err != nil {
		t.Errorf("the unit's exposure is over 1.5: %v\n%s", err, out)
	}
}

// TestSysusers holds the line that makes the user.
func TestSysusers(t *testing.T) {
	if !regexp.MustCompile(`(?m)^u syncagent - "syncagent" /var/lib/syncagent /usr/sbin/nologin$`).MatchString(read(t, "syncagent.sysusers")) {
		t.Error("no line for the user syncagent")
	}
}

// TestAlerts holds that each rule is complete; that its metrics exist is held where they are made.
func TestAlerts(t *testing.T) {
	var file struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert, Expr, For    string
				Labels, Annotations map[string]string
			}
		}
	}
	if err := yaml.UnmarshalWithOptions([]byte(read(t, "alerts.yml")), &file, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	if len(file.Groups) != 1 || len(file.Groups[0].Rules) < 8 {
		t.Fatalf("%+v", file)
	}
	for _, r := range file.Groups[0].Rules {
		if !strings.HasPrefix(r.Alert, "Syncagent") || r.Expr == "" || r.Labels["severity"] == "" || r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
			t.Errorf("%+v", r)
		}
	}
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed: the expressions were not parsed")
	}
	if out, err := exec.Command(promtool, "check", "rules", "alerts.yml").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestDashboard holds that panels do not share an ID or a place, and that each asks something.
func TestDashboard(t *testing.T) {
	var d struct {
		Title  string
		Panels []struct {
			ID      int
			Type    string
			Title   string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(read(t, "dashboard.json")), &d); err != nil {
		t.Fatal(err)
	}
	ids, places := map[int]bool{}, map[[2]int]bool{}
	for _, p := range d.Panels {
		place := [2]int{p.GridPos.X, p.GridPos.Y}
		if ids[p.ID] || places[place] || p.Title == "" || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("%+v", p)
		}
		ids[p.ID], places[place] = true, true
		if asks := slices.ContainsFunc(p.Targets, func(q struct{ Expr string }) bool { return q.Expr != "" }); asks == (p.Type == "row") {
			t.Errorf("%s asks %v", p.Title, p.Targets)
		}
	}
	if len(d.Panels) < 15 {
		t.Errorf("%d panels", len(d.Panels))
	}
}

// TestDockerfile holds that the container is built from nothing but the program, and does not run as root.
func TestDockerfile(t *testing.T) {
	got := map[string]string{}
	for line := range strings.Lines(read(t, "Dockerfile")) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		name, rest, _ := strings.Cut(line, " ")
		if !slices.Contains([]string{"FROM", "COPY", "USER", "VOLUME", "ENV", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"}, name) || got[name] != "" {
			t.Errorf("%q", line)
		}
		got[name] = rest
	}
	for name, want := range map[string]string{"FROM": "scratch", "COPY": "bin/syncagent /syncagent", "USER": "65532:65532", "ENTRYPOINT": `["/syncagent"]`} {
		if got[name] != want {
			t.Errorf("%s %q, want %q", name, got[name], want)
		}
	}
	for _, name := range []string{"ENTRYPOINT", "CMD"} {
		var words []string
		if err := json.Unmarshal([]byte(got[name]), &words); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestDaemonSet holds what keeps an agent on Kubernetes the same member, and small in rights.
func TestDaemonSet(t *testing.T) {
	d := yaml.NewDecoder(strings.NewReader(read(t, "k8s/daemonset.yaml")))
	var space, set map[string]any
	if err := d.Decode(&space); err != nil {
		t.Fatal(err)
	}
	if err := d.Decode(&set); err != nil {
		t.Fatal(err)
	}
	if space["kind"] != "Namespace" || set["kind"] != "DaemonSet" {
		t.Fatalf("%v, %v", space["kind"], set["kind"])
	}
	at := func(path string) string {
		file := read(t, "k8s/daemonset.yaml")
		_, second, _ := strings.Cut(file, "\n---\n")
		p, err := yaml.PathString(path)
		if err != nil {
			t.Fatal(err)
		}
		var v any
		if err := p.Read(strings.NewReader(second), &v); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for path, want := range map[string]string{
		"$.spec.template.spec.containers[0].args":                                     `["agent","--config","/data/syncagent.yaml"]`,
		"$.spec.template.spec.containers[0].securityContext.capabilities.drop[0]":     `"ALL"`,
		"$.spec.template.spec.containers[0].securityContext.readOnlyRootFilesystem":   `true`,
		"$.spec.template.spec.initContainers[0].securityContext.capabilities.drop[0]": `"ALL"`,
		"$.spec.template.spec.containers[0].volumeMounts[0].mountPath":                `"/data"`,
		"$.spec.template.spec.volumes[0].hostPath.path":                               `"/var/lib/syncagent"`,
		"$.spec.template.spec.containers[0].readinessProbe.httpGet.path":              `"/readyz"`,
		"$.spec.selector.matchLabels":                                                 `{"app.kubernetes.io/name":"syncagent"}`,
		"$.spec.template.metadata.labels":                                             `{"app.kubernetes.io/name":"syncagent"}`,
	} {
		if got := at(path); got != want {
			t.Errorf("%s is %s, want %s", path, got, want)
		}
	}
}

// TestDeb builds a package of a stand-in for the program, twice, and looks into it.
func TestDeb(t *testing.T) {
	for _, tool := range []string{"dpkg-deb", "dpkg", "git"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(tool + " is not installed: no package was built")
		}
	}
	tree := t.TempDir()
	if err := os.CopyFS(filepath.Join(tree, "configs"), os.DirFS(".")); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"bin/syncagent": "#!/bin/sh\necho completion\n", "README.md": "x", "CHANGELOG.md": "x", "LICENSE": "x", "docs/a.md": "x",
	} {
		if err := os.MkdirAll(filepath.Join(tree, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(tree, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	run := func(name string, args ...string) string {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Dir, cmd.Env = tree, append(os.Environ(), "SOURCE_DATE_EPOCH=1790000000")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
		return string(out)
	}
	build := func() string {
		run("sh", "configs/deb.sh", "v1.2.3")
		files, _ := filepath.Glob(filepath.Join(tree, "dist/syncagent_1.2.3_*.deb"))
		if len(files) != 1 {
			t.Fatalf("made %v", files)
		}
		return files[0]
	}
	deb := build()
	first := read(t, deb)
	if read(t, build()) != first {
		t.Error("two builds differ")
	}
	list := run("dpkg-deb", "--contents", deb)
	for _, want := range []string{
		`-rwxr-xr-x root/root .* \./usr/bin/syncagent\n`, `-rw-r--r-- root/root .* \./usr/lib/systemd/system/syncagent.service\n`,
		`\./usr/lib/sysusers.d/syncagent.conf\n`, `\./etc/syncagent/syncagent.yaml\n`, `\./usr/share/bash-completion/completions/syncagent\n`,
	} {
		if !regexp.MustCompile(want).MatchString(list) {
			t.Errorf("no %s in\n%s", want, list)
		}
	}
	if info := run("dpkg-deb", "--info", deb, "conffiles"); info != "/etc/syncagent/syncagent.yaml\n" {
		t.Errorf("conffiles %q", info)
	}
	if info := run("dpkg-deb", "--field", deb, "Version"); info != "1.2.3\n" {
		t.Errorf("version %q", info)
	}
}

package configs

import (
	"encoding/json"
	"os"
	"os/exec"
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

// TestUnits holds that the units parse, and that the services stay as locked up as they are. The mirror's runs as root.
func TestUnits(t *testing.T) {
	for unit, threshold := range map[string]string{"syncagent.service": "15", "syncagent-mirror@.service": "25"} {
		t.Run(unit, func(t *testing.T) { checkUnit(t, unit, threshold) })
	}
}

func checkUnit(t *testing.T, unit, threshold string) {
	section, seen := "", map[string]bool{}
	for i, line := range strings.Split(read(t, unit), "\n") {
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
	out, err := exec.Command(analyze, "security", "--offline=true", "--threshold="+threshold, "./"+unit).CombinedOutput()
	if err != nil {
		t.Errorf("the unit's exposure is over %s tenths: %v\n%s", threshold, err, out)
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
	cases := read(t, "alerts_test.yml")
	for _, r := range file.Groups[0].Rules {
		if !strings.Contains(cases, `alertname="`+r.Alert+`"`) {
			t.Errorf("no case in alerts_test.yml expects %s", r.Alert)
		}
	}
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed: the rules were not run")
	}
	if out, err := exec.Command(promtool, "test", "rules", "alerts_test.yml").CombinedOutput(); err != nil {
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
		if !slices.Contains([]string{"FROM", "COPY", "USER", "WORKDIR", "VOLUME", "ENV", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"}, name) || got[name] != "" {
			t.Errorf("%q", line)
		}
		got[name] = rest
	}
	for name, want := range map[string]string{"FROM": "scratch", "COPY": "bin/syncagent /syncagent", "USER": "65532:65532", "WORKDIR": "/data", "ENTRYPOINT": `["/syncagent"]`} {
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

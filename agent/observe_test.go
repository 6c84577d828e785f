package agent

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// knownMetrics gives the name of every metric that an agent can have, with its help where it is one of ours.
func knownMetrics(t *testing.T) map[string]string {
	t.Helper()
	known := map[string]string{}
	// Those with a fixed description, also if they have no value yet, from a whole agent.
	a := newTestAgent(t, newTestNetwork(t))
	a.start()
	descs := make(chan *prometheus.Desc)
	go func() {
		a.agent.running.metrics.registry.Describe(descs)
		close(descs)
	}()
	for d := range descs {
		m := regexp.MustCompile(`fqName: "([^"]+)", help: "([^"]*)"`).FindStringSubmatch(d.String())
		known[m[1]] = m[2]
	}
	// Those that depend on what there is, from one that has a peer, a mirror and an alarm.
	s := startServer(t, func(s *server) { s.service.peers, s.service.mirrors = &sampleNetwork{}, sampleMirrors{} })
	s.service.alarms.Raise("paused", "", "m")
	families, err := s.metrics.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		known[f.GetName()] = f.GetHelp()
	}
	return known
}

// TestMetricsAreDocumented holds the table of docs/operations.md to what an agent tells. It prints the table that it wants.
func TestMetricsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	known := knownMetrics(t)
	var rows strings.Builder
	for _, name := range slices.Sorted(maps.Keys(known)) {
		if short, ours := strings.CutPrefix(name, "syncagent_"); ours {
			fmt.Fprintf(&rows, "| `%s` | %s |\n", short, known[name])
		}
	}
	if !strings.Contains(string(text), rows.String()) {
		t.Errorf("the table is not:\n%s", rows.String())
	}
}

// TestAlertsAndDashboardNameMetrics holds that every metric that the alert rules and the dashboard ask for exists.
func TestAlertsAndDashboardNameMetrics(t *testing.T) {
	known := knownMetrics(t)
	asked := 0
	for _, file := range []string{"../configs/alerts.yml", "../configs/dashboard.json"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range regexp.MustCompile(`\b(syncagent|process|go)_[a-z0-9_]+`).FindAllString(string(text), -1) {
			asked++
			for _, part := range []string{"_bucket", "_sum", "_count"} { // of a histogram
				if whole := strings.TrimSuffix(name, part); known[whole] != "" {
					name = whole
				}
			}
			if known[name] == "" {
				t.Errorf("%s asks for %s, which does not exist", file, name)
			}
		}
	}
	if asked < 20 {
		t.Errorf("found %d names", asked)
	}
}

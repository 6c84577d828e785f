package agent

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// TestAlertsAndDashboardNameMetrics holds that every metric that the alert rules and the dashboard ask for exists.
func TestAlertsAndDashboardNameMetrics(t *testing.T) {
	known := map[string]bool{}
	// Those with a fixed description, also if they have no value yet, from a whole agent.
	a := newTestAgent(t, newTestNetwork(t))
	a.start()
	descs := make(chan *prometheus.Desc)
	go func() {
		a.agent.running.metrics.registry.Describe(descs)
		close(descs)
	}()
	for d := range descs {
		known[regexp.MustCompile(`fqName: "([^"]+)"`).FindStringSubmatch(d.String())[1]] = true
	}
	// Those that depend on what there is, from one that has a peer, a mirror and an alarm.
	s := startServer(t, func(s *server) { s.service.peers, s.service.mirrors = &sampleNetwork{}, sampleMirrors{} })
	s.service.alarms.Raise("paused", "", "m")
	families, err := s.metrics.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		known[f.GetName()] = true
	}
	asked := 0
	for _, file := range []string{"../configs/alerts.yml", "../configs/dashboard.json"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range regexp.MustCompile(`\b(syncagent|process|go)_[a-z0-9_]+`).FindAllString(string(text), -1) {
			asked++
			for _, part := range []string{"_bucket", "_sum", "_count"} { // of a histogram
				if whole := strings.TrimSuffix(name, part); known[whole] {
					name = whole
				}
			}
			if !known[name] {
				t.Errorf("%s asks for %s, which does not exist", file, name)
			}
		}
	}
	if asked < 20 {
		t.Errorf("found %d names", asked)
	}
}

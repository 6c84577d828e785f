package agent

import (
	"encoding/binary"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// metrics counts what the API does. The rest is read when somebody asks, by the collector.
type metrics struct {
	registry    *prometheus.Registry
	requests    *prometheus.CounterVec
	seconds     *prometheus.HistogramVec
	watches     prometheus.Gauge
	turnedAway  prometheus.Counter
	replication prometheus.Histogram
}

func newMetrics(version string) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "syncagent_api_requests_total", Help: "API requests answered, by method and code (ok or an error code).",
		}, []string{"method", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "syncagent_api_seconds", Help: "Time to answer API requests, streams excepted.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10},
		}, []string{"method"}),
		replication: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "syncagent_replication_delay_seconds",
			Help:    "From the clock reading of a write on another agent to its commit here, by both clocks.",
			Buckets: []float64{.001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 5, 30, 300, 3600},
		}),
		watches: prometheus.NewGauge(prometheus.GaugeOpts{Name: "syncagent_watches", Help: "Open watches."}),
		turnedAway: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "syncagent_api_connections_refused_total", Help: "Connections to the API closed at once because too many were open.",
		}),
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "syncagent_build_info", Help: "Always 1; the labels say what runs.",
		ConstLabels: prometheus.Labels{"version": version, "go": runtime.Version()},
	})
	info.Set(1)
	m.registry.MustRegister(m.requests, m.seconds, m.watches, m.turnedAway, m.replication, info,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// answered records one request.
func (m *metrics) answered(method string, stream bool, err error, took time.Duration) {
	code := "ok"
	if err != nil {
		code = string(ErrorOf(err).Code)
	}
	m.requests.WithLabelValues(method, code).Inc()
	if !stream {
		m.seconds.WithLabelValues(method).Observe(took.Seconds())
	}
}

// collector reads the state of the agent when metrics are asked for.
type collector struct{ s *service }

func gauge(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("syncagent_"+name, help, labels, nil)
}

var (
	descReady     = gauge("ready", "1 when the agent serves, 0 while it starts or stops.")
	descKeys      = gauge("keys", "Visible entries.")
	descDigest    = gauge("state_digest", "First 48 bits of the view digest: equal on agents with equal rights and content.")
	descBlocks    = gauge("blocks", "Blocks in the store.")
	descHeads     = gauge("heads", "Blocks that no other block links to.")
	descPending   = gauge("blocks_pending", "Blocks that wait for blocks they name.")
	descMissing   = gauge("entries_missing", "Entries that this agent may read and lacks.")
	descWithheld  = gauge("entries_withheld", "Places of entries that this agent may not read.")
	descFree      = gauge("store_free_bytes", "Free bytes on the disk of the store.")
	descSerial    = gauge("policy_serial", "Serial of the policy in force, 0 for none.")
	descAlarm     = gauge("alarm", "1 for every alarm that is raised.", "code")
	descKnown     = gauge("peers_known", "Peers that this agent knows of.")
	descLag       = gauge("peer_lag_blocks", "Blocks that a peer has and this agent lacks, as far as it knows.", "peer")
	descSkew      = gauge("peer_clock_skew_seconds", "A peer's clock minus ours.", "peer")
	descFiles     = gauge("mirror_files", "Files of a mirror.", "mirror")
	descMirrorErr = gauge("mirror_failing", "1 when a mirror has an error.", "mirror")
	descRuns      = gauge("trigger_runs_total", "Commands run by triggers since the agent started or was reloaded.")
	descFailing   = gauge("triggers_failing", "Triggers whose last run failed.")
	descWaiting   = gauge("triggers_pending", "Triggers that have a change and have not run for it yet.")
)

// Describe sends nothing: which metrics there are depends on peers and mirrors (an unchecked collector).
func (collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	set := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	stats := c.s.store.Stats()
	set(descReady, asFloat(c.s.ready()))
	set(descKeys, float64(stats.Entries))
	set(descDigest, float64(binary.BigEndian.Uint64(stats.ViewDigest[:8])>>16))
	set(descBlocks, float64(stats.Blocks))
	set(descHeads, float64(stats.Heads))
	set(descPending, float64(stats.Parked))
	set(descMissing, float64(stats.Missing))
	set(descWithheld, float64(stats.Withheld))
	set(descFree, float64(stats.DiskFree))
	set(descSerial, float64(stats.Serial))
	codes := map[string]bool{} // several mirrors can raise one code
	for _, a := range c.s.alarms.List() {
		codes[a.Code] = true
	}
	for code := range codes {
		set(descAlarm, 1, code)
	}
	peers := c.s.peers.Peers()
	for _, p := range peers {
		set(descLag, float64(p.GetLagBlocks()), p.GetPeerId())
		if p.ClockSkewMs != nil {
			set(descSkew, p.GetClockSkewMs()/1000, p.GetPeerId())
		}
	}
	set(descKnown, float64(len(peers)))
	mirrors, triggers := c.s.mirrors.Status()
	for i, m := range mirrors {
		set(descFiles, float64(m.GetFiles()), publicName(m, i))
		set(descMirrorErr, asFloat(m.GetLastError() != "" && m.GetState() != string(statePaused)), publicName(m, i))
	}
	var runs, failing, pending float64
	for _, t := range triggers {
		runs += float64(t.GetRuns())
		failing += asFloat(t.GetLastExit() != 0)
		pending += asFloat(t.GetPending())
	}
	out <- prometheus.MustNewConstMetric(descRuns, prometheus.CounterValue, runs)
	set(descFailing, failing)
	set(descWaiting, pending)
}

func asFloat(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

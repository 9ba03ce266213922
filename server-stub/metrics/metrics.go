// Package metrics counts what the reference server does, for Prometheus, and
// says whether it is well.
package metrics

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"smime-agent/server-stub/store"
)

// Facts are what is looked up when somebody asks.
type Facts struct {
	// Devices are those that called since the server was started, Held the calls
	// that are held open.
	Devices, Held int
	// Connections are open, Handshakes of them not through the TLS handshake yet.
	Connections, Handshakes int
	// Pending requests wait for an administrator.
	Pending int
	// IssuingEnds and RootListEnds are when the issuing CA and the root's revocation list do.
	IssuingEnds, RootListEnds time.Time
}

// Source is the server.
type Source interface {
	Facts() (Facts, error)
	// Healthy writes something and waits until it is on the disk.
	Healthy(ctx context.Context) error
}

// Metrics are the figures of one server.
type Metrics struct {
	registry *prometheus.Registry
	calls    *prometheus.CounterVec
	took     *prometheus.HistogramVec
	outcomes *prometheus.CounterVec
	mails    *prometheus.CounterVec
	conns    *prometheus.CounterVec
	web      *prometheus.CounterVec
}

// New makes figures that begin at nothing.
func New() *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "smime_server_calls_total", Help: "Calls by method and gRPC code.",
		}, []string{"method", "code"}),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "smime_server_call_seconds", Help: "How long calls took; those that are held open are not counted.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, 1, 5},
		}, []string{"method"}),
		outcomes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "smime_server_submissions_total", Help: "Submitted requests by outcome: issued, pending, challenge, refused.",
		}, []string{"outcome"}),
		mails: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "smime_server_mails_total", Help: "Mails by kind (code, reminder, digest) and result (sent, failed).",
		}, []string{"kind", "result"}),
		conns: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "smime_server_connections_total",
			Help: "Connections by result: named, nameless (through without an identity), failed, stalled, refused, refused_address.",
		}, []string{"result"}),
		web: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "smime_server_web_connections_total",
			Help: "Connections over HTTP by listener (web, admin_web, metrics) and result: let_in, stalled, refused, refused_address.",
		}, []string{"listener", "result"}),
	}
	m.registry.MustRegister(m.calls, m.took, m.outcomes, m.mails, m.conns, m.web,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// held are calls that take long on purpose.
const held = "Await"

// Call counts a call.
func (m *Metrics) Call(method, code string, took time.Duration) {
	m.calls.WithLabelValues(method, code).Inc()
	if method != held {
		m.took.WithLabelValues(method).Observe(took.Seconds())
	}
}

// Submission counts a request by its outcome.
func (m *Metrics) Submission(outcome string) { m.outcomes.WithLabelValues(outcome).Inc() }

// Connection counts a connection by what became of it.
func (m *Metrics) Connection(result string) { m.conns.WithLabelValues(result).Inc() }

// Web counts a connection to an HTTP listener by what became of it.
func (m *Metrics) Web(listener, result string) { m.web.WithLabelValues(listener, result).Inc() }

// Mails counts mails of a kind.
func (m *Metrics) Mails(kind string, sent, failed int) {
	m.mails.WithLabelValues(kind, "sent").Add(float64(sent))
	m.mails.WithLabelValues(kind, "failed").Add(float64(failed))
}

// Watch adds what is looked up at each scrape.
func (m *Metrics) Watch(source Source) error {
	gauge := func(name, help string, value func(Facts) float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 {
			facts, err := source.Facts()
			if err != nil {
				return -1
			}
			return value(facts)
		})
	}
	for _, g := range []prometheus.Collector{
		gauge("smime_server_devices_heard", "Devices that called since the server was started.", func(f Facts) float64 { return float64(f.Devices) }),
		gauge("smime_server_calls_held", "Calls that are held open.", func(f Facts) float64 { return float64(f.Held) }),
		gauge("smime_server_connections", "Connections that are open.", func(f Facts) float64 { return float64(f.Connections) }),
		gauge("smime_server_handshakes", "Of these, those in the TLS handshake.", func(f Facts) float64 { return float64(f.Handshakes) }),
		gauge("smime_server_requests_pending", "Requests that wait for an administrator.", func(f Facts) float64 { return float64(f.Pending) }),
		gauge("smime_server_issuing_ca_end_seconds", "When the issuing CA ends, in Unix time.", func(f Facts) float64 { return float64(f.IssuingEnds.Unix()) }),
		gauge("smime_server_root_list_end_seconds", "When the root's revocation list ends, in Unix time.", func(f Facts) float64 { return float64(f.RootListEnds.Unix()) }),
	} {
		if err := m.registry.Register(g); err != nil {
			return err
		}
	}
	return nil
}

// The bounds of health.
const (
	healthTime = 5 * time.Second
	// soon is when the end of the root's list begins to be a warning.
	soon = 30 * 24 * time.Hour
)

// health is the answer of /health.
type health struct {
	OK bool `json:"ok"`
	// Problems keep the server from working, Warnings will.
	Problems []string `json:"problems,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
}

// Handler serves /metrics and /health. Neither has anything personal. command is how
// administrators call this program.
func (m *Metrics) Handler(source Source, command string, now func() time.Time, log *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, r *http.Request) {
		h := check(r.Context(), source, command, now(), log)
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		if !h.OK {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_ = json.NewEncoder(w).Encode(h) // a reader that went away is no concern of ours
	})
	return mux
}

func check(ctx context.Context, source Source, command string, now time.Time, log *slog.Logger) health {
	ctx, cancel := context.WithTimeout(ctx, healthTime)
	defer cancel()
	var h health
	if err := source.Healthy(ctx); err != nil {
		log.Error("health: nothing can be recorded", "error", err)
		problem := "Nothing can be recorded. Look at the disk, and at the server's log."
		if errors.Is(err, store.ErrLost) {
			problem = "The database has lost what it had acknowledged, or is an older copy. Find the right one, or accept this one by restarting the server."
		}
		h.Problems = append(h.Problems, problem)
	}
	sign := "Sign it anew, where the root's key is: " + command + " root-list --root-key FILE."
	facts, err := source.Facts()
	switch {
	case err != nil:
		log.Error("health: facts cannot be read", "error", err)
		h.Problems = append(h.Problems, "The records or the root's revocation list cannot be read. Look at the server's log.")
	case !now.Before(facts.IssuingEnds):
		h.Problems = append(h.Problems, "The issuing CA has ended. Sign another with the root's key.")
	case !now.Before(facts.RootListEnds):
		h.Problems = append(h.Problems, "The root's revocation list has ended. "+sign)
	case facts.RootListEnds.Sub(now) < soon:
		h.Warnings = append(h.Warnings, "The root's revocation list ends within 30 days. "+sign)
	}
	h.OK = len(h.Problems) == 0
	return h
}

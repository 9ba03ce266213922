package metrics_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"smime-agent/server-stub/metrics"
	"smime-agent/server-stub/store"
)

type source struct {
	facts  metrics.Facts
	failed error
	sick   error
}

func (s source) Facts() (metrics.Facts, error) { return s.facts, s.failed }
func (s source) Healthy(context.Context) error { return s.sick }

// TestHealth plants each illness.
func TestHealth(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	well := metrics.Facts{IssuingEnds: now.AddDate(5, 0, 0), RootListEnds: now.AddDate(0, 6, 0)}
	ended, listSoon, listEnded := well, well, well
	ended.IssuingEnds, listSoon.RootListEnds, listEnded.RootListEnds = now, now.AddDate(0, 0, 20), now
	for _, row := range []struct {
		name   string
		source source
		code   int
		want   string
	}{
		{"well", source{facts: well}, http.StatusOK, `{"ok":true}`},
		{"disk", source{facts: well, sick: errors.New("secret path")}, http.StatusServiceUnavailable, "Nothing can be recorded"},
		{"loss", source{facts: well, sick: store.ErrLost}, http.StatusServiceUnavailable, "accept this one by restarting"},
		{"records", source{failed: errors.New("secret path")}, http.StatusServiceUnavailable, "cannot be read"},
		{"CA ended", source{facts: ended}, http.StatusServiceUnavailable, "issuing CA has ended"},
		{"list ended", source{facts: listEnded}, http.StatusServiceUnavailable, "list has ended. Sign it anew, where the root's key is: smime-central root-list"},
		{"list ends soon", source{facts: listSoon}, http.StatusOK, "within 30 days. Sign it anew, where the root's key is: smime-central root-list"},
	} {
		m := metrics.New()
		handler := m.Handler(row.source, "smime-central", func() time.Time { return now }, slog.New(slog.DiscardHandler))
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/health", http.NoBody))
		if w.Code != row.code || !strings.Contains(w.Body.String(), row.want) || strings.Contains(w.Body.String(), "secret") {
			t.Errorf("%s: %d %s", row.name, w.Code, w.Body)
		}
	}
}

package publish_test

import (
	"bytes"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"golang.org/x/crypto/ocsp"

	"smime-agent/server-stub/publish"
)

// TestWhatMayBeKept: caches on the way keep an answer about a certificate, and not
// that there is none at the moment.
func TestWhatMayBeKept(t *testing.T) {
	for name, c := range map[string]struct {
		response []byte
		err      error
		keeps    bool
	}{
		"an answer":    {[]byte("answer of some length"), nil, true},
		"try later":    {ocsp.TryLaterErrorResponse, nil, false},
		"unauthorized": {ocsp.UnauthorizedErrorResponse, nil, false},
		"broken":       {ocsp.InternalErrorErrorResponse, errors.New("no record"), false},
	} {
		h := publish.Handler(publish.Sources{
			Status:     func([]byte) ([]byte, bool, error) { return c.response, c.keeps, c.err },
			MaxRequest: 100, Log: slog.New(slog.DiscardHandler),
		})
		req := httptest.NewRequest(http.MethodPost, publish.PathOCSP, strings.NewReader("x"))
		req.Header.Set("Content-Type", "application/ocsp-request")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, req)
		kept := w.Header().Get("Cache-Control")
		if !bytes.Equal(w.Body.Bytes(), c.response) || strings.Contains(kept, "max-age") != c.keeps || strings.Contains(kept, "no-store") == c.keeps {
			t.Errorf("%s: %q", name, kept)
		}
	}
}

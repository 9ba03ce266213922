// Package page is the reference server's web page for administrators: read
// only, in English and Chinese, made on the server, without any script.
package page

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"html/template"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/durationpb"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/sheet"
)

//go:embed *.html style.css
var files embed.FS

// Source is where the page has its facts from.
type Source interface {
	Coverage(req *controlv1.GetCoverageRequest) (*controlv1.GetCoverageResponse, error)
	Devices(req *controlv1.ListDevicesRequest) (*controlv1.ListDevicesResponse, error)
}

// fresh is how long a report is shown again without being made anew: it reads
// all there is.
const fresh = 30 * time.Second

// The bounds of what one page shows; the CSV has everything.
const (
	shownWishes  = 200
	shownSilent  = 50
	shownDevices = 200
)

// site is the handler's memory.
type site struct {
	source    Source
	log       *slog.Logger
	templates map[string]*template.Template // by language

	mu   sync.Mutex
	last *controlv1.GetCoverageResponse
	made time.Time
}

// New makes the page; command is how administrators call this program. Who may see
// the page is for [Loopback] or [Administrators] to say.
func New(source Source, command string, log *slog.Logger) (http.Handler, error) {
	s := &site{source: source, log: log, templates: map[string]*template.Template{}}
	for _, language := range languages() {
		t, err := template.New("page").Funcs(functions(language, command)).ParseFS(files, "*.html")
		if err != nil {
			return nil, err
		}
		s.templates[language] = t
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.overview)
	mux.HandleFunc("GET /devices", s.devices)
	mux.HandleFunc("GET /coverage.json", s.coverageJSON)
	mux.HandleFunc("GET /departments.csv", s.csv(sheet.Departments))
	mux.HandleFunc("GET /people.csv", s.csv(sheet.Wishes))
	mux.HandleFunc("GET /style.css", func(w http.ResponseWriter, r *http.Request) { http.ServeFileFS(w, r, files, "style.css") })
	return headers(mux), nil
}

// headers keep other pages and proxies out: everything here is one
// administrator's business, and nothing comes from elsewhere.
func headers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

func (s *site) coverage() (*controlv1.GetCoverageResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last != nil && time.Since(s.made) < fresh {
		return s.last, nil
	}
	report, err := s.source.Coverage(&controlv1.GetCoverageRequest{All: true})
	if err != nil {
		return nil, err
	}
	s.last, s.made = report, time.Now()
	return report, nil
}

func (s *site) overview(w http.ResponseWriter, r *http.Request) {
	report, err := s.coverage()
	if err != nil {
		s.fail(w, err)
		return
	}
	var gaps []*controlv1.CoverageWish
	more := 0
	for _, wish := range report.GetWishes() {
		switch {
		case wish.GetState() == "proved":
		case len(gaps) < shownWishes:
			gaps = append(gaps, wish)
		default:
			more++
		}
	}
	silent := report.GetSilent()[:min(len(report.GetSilent()), shownSilent)]
	s.show(w, r, "overview", map[string]any{
		"Report": report, "Bars": bars(report.GetDepartments()), "Weeks": weekBars(report.GetEndingByWeek()), "Gaps": gaps, "MoreGaps": more,
		"Silent": silent, "MoreSilent": int(report.GetSilentCount()) - len(silent),
	})
}

func (s *site) devices(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	req := &controlv1.ListDevicesRequest{
		PageSize: shownDevices, PageToken: query.Get("from"), State: query.Get("state"), Matches: query.Get("match"),
	}
	if query.Get("problems") != "" {
		req.Condition = "any"
	}
	if query.Get("silent") != "" {
		req.SilentFor = durationpb.New(7 * 24 * time.Hour)
	}
	list, err := s.source.Devices(req)
	if err != nil {
		s.fail(w, err)
		return
	}
	next := ""
	if list.GetNextPageToken() != "" {
		query.Set("from", list.GetNextPageToken())
		next = "/devices?" + query.Encode()
	}
	s.show(w, r, "devices", map[string]any{"Devices": list.GetDevices(), "Request": req, "States": []string{"admitted", "pending", "removed"}, "Silent": query.Get("silent"), "Next": next})
}

func (s *site) show(w http.ResponseWriter, r *http.Request, name string, data map[string]any) {
	language := languageOf(r)
	data["Language"], data["Page"] = language, name
	query := r.URL.Query()
	query.Set("lang", "zh")
	if language == "zh" {
		query.Set("lang", "en")
	}
	data["OtherLanguage"] = r.URL.Path + "?" + query.Encode()
	var out bytes.Buffer
	if err := s.templates[language].ExecuteTemplate(&out, name, data); err != nil {
		s.fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Language", language)
	_, _ = w.Write(out.Bytes()) // a reader that went away is no concern of ours
}

func (s *site) coverageJSON(w http.ResponseWriter, _ *http.Request) {
	report, err := s.coverage()
	if err != nil {
		s.fail(w, err)
		return
	}
	data, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(report)
	var out bytes.Buffer
	if err := errors.Join(err, json.Indent(&out, data, "", "  ")); err != nil {
		s.fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(out.Bytes()) // see show
}

func (s *site) csv(rows func(*controlv1.GetCoverageResponse) [][]string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		report, err := s.coverage()
		if err != nil {
			s.fail(w, err)
			return
		}
		w.Header().Set("Content-Type", "text/csv; charset=utf-8")
		w.Header().Set("Content-Disposition", `attachment; filename="`+strings.TrimPrefix(r.URL.Path, "/")+`"`)
		_, _ = w.Write([]byte("\xef\xbb\xbf")) // else spreadsheets take UTF-8 for something older
		_ = sheet.Write(w, rows(report))       // see show
	}
}

func (s *site) fail(w http.ResponseWriter, err error) {
	s.log.Error("page cannot be shown", "error", err)
	http.Error(w, "The page cannot be shown at the moment; the server's log says why.", http.StatusServiceUnavailable)
}

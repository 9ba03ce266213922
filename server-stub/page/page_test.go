package page_test

import (
	"crypto/x509"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"image/png"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/page"
)

// company is a source with some of everything.
type company struct {
	asked []*controlv1.ListDevicesRequest
}

func now() *timestamppb.Timestamp {
	return timestamppb.New(time.Date(2026, 11, 23, 18, 0, 0, 0, time.UTC))
}

func (*company) Coverage(*controlv1.GetCoverageRequest) (*controlv1.GetCoverageResponse, error) {
	r := &controlv1.GetCoverageResponse{
		At: now(), Total: &controlv1.CoverageRow{People: 190, Wanted: 200, Proved: 150, Unproved: 10, Waiting: 15, Refused: 5, Missing: 20, Ending: 12},
		Departments: []*controlv1.CoverageRow{
			{Department: "Sales", People: 100, Wanted: 100, Proved: 80, Unproved: 5, Waiting: 5, Refused: 2, Missing: 8, Ending: 9},
			{Department: "销售部", People: 50, Wanted: 50, Proved: 30, Unproved: 5, Waiting: 5, Refused: 3, Missing: 7, Ending: 3},
			{Department: "Research <b>&amp; a very long name of a department", People: 40, Wanted: 50, Proved: 40, Waiting: 5, Missing: 5},
		},
		EndingByWeek: []uint32{0, 1, 2, 3, 0, 5, 8, 2, 0, 0, 1, 20, 3}, Devices: 190, SilentCount: 2,
		Silent: []*controlv1.Device{{Id: "d9", Facts: &controlv1.DeviceFacts{Hostname: "pc-9"}, Accounts: []string{"wang"}, LastContact: timestamppb.New(now().AsTime().Add(-999 * time.Hour))}},
	}
	for n := range 250 {
		r.Wishes = append(r.Wishes, &controlv1.CoverageWish{
			Department: "Sales", Account: fmt.Sprint("user", n), Name: fmt.Sprint("User ", n), Mailbox: fmt.Sprintf("user%d@example.com", n),
			Profile: "employee-dual", State: []string{"missing", "proved", "refused"}[n%3], Cause: "no-device", Hostname: "<script>alert(1)</script>",
		})
	}
	return r, nil
}

func (c *company) Devices(req *controlv1.ListDevicesRequest) (*controlv1.ListDevicesResponse, error) {
	c.asked = append(c.asked, req)
	return &controlv1.ListDevicesResponse{NextPageToken: "d2", Devices: []*controlv1.Device{{
		Id: "d1", Facts: &controlv1.DeviceFacts{Hostname: "=cmd()<img>", Os: "windows", AgentVersion: "1.0"}, State: "admitted", Accounts: []string{`CORP\wang`},
		Credentials: 2, Proved: 1, LastContact: now(), Conditions: []*controlv1.ConditionReport{{Code: "store-locked", Severity: "warning", Text: "Locked."}, {Code: "idle", Severity: "info"}},
	}}}, nil
}

func serve(t *testing.T, source page.Source) *httptest.Server {
	t.Helper()
	handler, err := page.New(source, "smime-central", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(page.Loopback(handler))
	t.Cleanup(s.Close)
	return s
}

func get(t *testing.T, url, language string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept-Language", language)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func TestPages(t *testing.T) {
	source := &company{}
	s := serve(t, source)
	for _, row := range []struct {
		path, language string
		want           []string
	}{
		{"/", "en-US", []string{`lang="en"`, "75 %", "Sales", "销售部", "Research &lt;b&gt;&amp;amp;", "user0@example.com", "no-device", "pc-9", "Silent machines", "<p class=\"quiet\">1 more; the smime-central command", "with the smime-central command"}},
		{"/", "zh-CN,zh;q=0.9", []string{`lang="zh"`, "已验证", "失联设备", "缺失", "另有 1 台"}},
		{"/?lang=zh", "en", []string{`lang="zh"`}},
		{"/devices?match=wang&problems=1", "en", []string{"=cmd()&lt;img&gt;", "store-locked", `CORP\wang`, "Next page", "from=d2"}},
		{"/devices", "zh", []string{"设备", "已接纳"}},
	} {
		resp, body := get(t, s.URL+row.path, row.language)
		for _, want := range row.want {
			if !strings.Contains(body, want) {
				t.Errorf("%s in %s lacks %q", row.path, row.language, want)
			}
		}
		if strings.Contains(body, "<script>alert") || strings.Contains(body, "<img>") {
			t.Errorf("%s has what a device calls itself as HTML", row.path)
		}
		if csp := resp.Header.Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none'") || resp.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: headers %v", row.path, resp.Header)
		}
	}
	if req := source.asked[0]; req.GetMatches() != "wang" || req.GetCondition() != "any" {
		t.Errorf("the filter asks for %v", req)
	}
	if resp, _ := get(t, s.URL+"/nothing", "en"); resp.StatusCode != http.StatusNotFound {
		t.Errorf("/nothing: %s", resp.Status)
	}
	resp, err := http.Post(s.URL+"/", "text/plain", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil || resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("a page that only shows takes a POST: %v, %v", resp.Status, err)
	}
}

// silence is a source of a company where nobody is to have anything yet, and of a
// filter that few devices pass: the first page of them has none.
type silence struct{ next string }

func (silence) Coverage(*controlv1.GetCoverageRequest) (*controlv1.GetCoverageResponse, error) {
	return &controlv1.GetCoverageResponse{At: now(), Total: &controlv1.CoverageRow{}}, nil
}

func (s silence) Devices(*controlv1.ListDevicesRequest) (*controlv1.ListDevicesResponse, error) {
	return &controlv1.ListDevicesResponse{NextPageToken: s.next}, nil
}

// TestNothingToShow: nothing is neither everything nor a fault.
func TestNothingToShow(t *testing.T) {
	for _, row := range []struct {
		source           silence
		path, want, lack string
	}{
		{silence{}, "/?lang=en", "Policy gives nobody a certificate.", "All that is wanted is proved"},
		{silence{}, "/?lang=zh", "策略未向任何人分配证书。", "0 %"},
		{silence{}, "/?lang=en", "<b>–</b>", "0 %"},
		{silence{}, "/devices?lang=en", "No device fits.", "Next page"},
		{silence{"d9"}, "/devices?lang=en", "No device fits so far.", "No device fits."},
		{silence{"d9"}, "/devices?lang=en", "Next page", "No device fits."},
	} {
		resp, body := get(t, serve(t, row.source).URL+row.path, "")
		if resp.StatusCode != http.StatusOK || !strings.Contains(body, row.want) || strings.Contains(body, row.lack) {
			t.Errorf("%s: %s, wants %q without %q:\n%s", row.path, resp.Status, row.want, row.lack, body)
		}
	}
}

func TestDownloads(t *testing.T) {
	s := serve(t, &company{})
	_, body := get(t, s.URL+"/people.csv", "en")
	rows, err := csv.NewReader(strings.NewReader(strings.TrimPrefix(body, "\xef\xbb\xbf"))).ReadAll()
	if err != nil || len(rows) != 251 || rows[0][0] != "department" {
		t.Errorf("people.csv: %d rows, %v", len(rows), err)
	}
	_, body = get(t, s.URL+"/departments.csv", "en")
	rows, err = csv.NewReader(strings.NewReader(strings.TrimPrefix(body, "\xef\xbb\xbf"))).ReadAll()
	if err != nil || len(rows) != 5 || rows[4][0] != "total" || rows[4][4] != "75" {
		t.Errorf("departments.csv: %v, %v", rows, err)
	}
	_, body = get(t, s.URL+"/coverage.json", "en")
	var report map[string]any
	if err := json.Unmarshal([]byte(body), &report); err != nil || report["total"] == nil {
		t.Errorf("coverage.json: %v", err)
	}
}

// TestGuards plants callers that must not see the page.
func TestGuards(t *testing.T) {
	seen := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "secret") })
	for _, row := range []struct {
		from, host string
		want       int
	}{
		{"127.0.0.1:5", "127.0.0.1:8081", http.StatusOK}, {"[::1]:5", "localhost", http.StatusOK}, {"127.0.0.1:5", "[::1]:8081", http.StatusOK},
		{"[::1]:5", "[::1]", http.StatusOK}, {"127.0.0.1:5", "127.0.0.1.evil.example.com", http.StatusForbidden},
		{"127.0.0.1:5", "evil.example.com", http.StatusForbidden}, {"127.0.0.1:5", "", http.StatusForbidden},
		{"10.0.0.7:5", "127.0.0.1", http.StatusForbidden}, {"nonsense", "127.0.0.1", http.StatusForbidden},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", http.NoBody)
		r.RemoteAddr, r.Host = row.from, row.host
		w := httptest.NewRecorder()
		page.Loopback(seen).ServeHTTP(w, r)
		if w.Code != row.want {
			t.Errorf("from %s for %q: %d, want %d", row.from, row.host, w.Code, row.want)
		}
	}
	w := httptest.NewRecorder()
	page.Administrators(seen, func(*http.Request, *x509.Certificate) error { return nil }).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", http.NoBody))
	if w.Code != http.StatusForbidden {
		t.Errorf("without a certificate: %d", w.Code)
	}
}

func chromium(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	if os.Getenv("SMIME_AGENT_REQUIRE") != "" {
		t.Fatal("Chromium is not installed")
	}
	t.Skip("Chromium is not installed")
	return ""
}

// TestInBrowser has a real browser draw the pages. With PAGE_SHOTS it leaves the
// pictures in that folder.
func TestInBrowser(t *testing.T) {
	browser := chromium(t)
	s := serve(t, &company{})
	dir := os.Getenv("PAGE_SHOTS")
	if dir == "" {
		dir = t.TempDir()
	}
	for name, path := range map[string]string{"overview-en": "/?lang=en", "overview-zh": "/?lang=zh", "devices-en": "/devices?lang=en"} {
		shot := filepath.Join(dir, name+".png")
		cmd := exec.CommandContext(t.Context(), browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
			"--user-data-dir="+t.TempDir(), "--window-size=1200,1500", "--virtual-time-budget=2000", "--screenshot="+shot, s.URL+path)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
		f, err := os.Open(shot)
		if err != nil {
			t.Fatal(err)
		}
		picture, err := png.Decode(f)
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		// The chart's green is there only if style sheet and chart got past the page's own policy.
		green := 0
		for y := range picture.Bounds().Dy() {
			for x := range picture.Bounds().Dx() {
				if r, g, b, _ := picture.At(x, y).RGBA(); r>>8 == 0x2e && g>>8 == 0x7d && b>>8 == 0x4f {
					green++
				}
			}
		}
		if drawn := green > 5000; drawn != strings.HasPrefix(name, "overview") {
			t.Errorf("%s has %d pixels of the chart's green", name, green)
		}
	}
}

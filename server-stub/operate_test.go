package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	controlv1 "smime-agent/proto/control/v1"
)

// setting writes a setting of server.yaml anew.
func setting(t *testing.T, dir, key, value string) {
	t.Helper()
	path := filepath.Join(dir, "server.yaml")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, key+":") {
			lines[i] = fmt.Sprintf("%s: %q", key, value)
		}
	}
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestBackupWhileRunning copies the records again and again while certificates
// are issued; each copy opens, checks, and has all that was acknowledged before
// it was begun. The last one is restored.
func TestBackupWhileRunning(t *testing.T) {
	dir := found(t)
	c := serve(t, dir)
	m := joined(t, dir, c.addr, oneToken(t, dir, c.addr))
	call := func(args ...string) string { return mustCLI(t, append(args, "--dir", dir, "--server", c.addr)...) }
	serials := make(chan string, 1000)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
				serials <- m.enroll(t, n).SerialNumber.Text(16)
			}
		}
	})
	copies := t.TempDir()
	var before []string
	var last string
	for round := range 5 {
		for range 10 {
			before = append(before, <-serials)
		}
		last = filepath.Join(copies, fmt.Sprint("records-", round))
		if err := os.WriteFile(last+".part", []byte("of a backup that was killed"), 0o600); err != nil {
			t.Fatal(err)
		}
		if out := call("backup", last); !strings.Contains(out, "checked") {
			t.Errorf("backup says %q", out)
		}
	}
	close(stop)
	wg.Wait()
	if _, err := cli(t, "backup", last, "--dir", dir, "--server", c.addr); err == nil {
		t.Error("a backup is overwritten")
	}
	if _, err := cli(t, "restore", last, "--dir", dir); err == nil {
		t.Error("records are replaced under a running server")
	}
	c.stop(t)
	bad := filepath.Join(copies, "bad")
	if err := os.WriteFile(bad, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := cli(t, "restore", bad, "--dir", dir); err == nil {
		t.Error("nonsense is restored")
	}
	mustCLI(t, "restore", last, "--dir", dir)
	c = serve(t, dir)
	ledger := call("ledger", "--csv")
	for _, serial := range before {
		if !strings.Contains(ledger, serial) {
			t.Errorf("%s was acknowledged before the backup and is not in it", serial)
		}
	}
	m.dial(t, dir, c.addr)
	m.enroll(t, 5000)
	c.stop(t)
	if left, err := filepath.Glob(filepath.Join(dir, "backup-*")); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestRecordsNeverMissing: where they cannot be replaced after all, they are where
// they were. A server that found none would begin with new ones.
func TestRecordsNeverMissing(t *testing.T) {
	dir := t.TempDir()
	records, aside := filepath.Join(dir, "records.db"), filepath.Join(dir, "aside")
	if err := os.WriteFile(records, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := replace(records, filepath.Join(dir, "nothing"), aside); err == nil {
		t.Error("replaced by nothing")
	}
	if text, err := os.ReadFile(records); err != nil || string(text) != "old" {
		t.Errorf("the records are %q, %v", text, err)
	}
	if err := replace(records, filepath.Join(dir, "nothing"), aside); !errors.Is(err, fs.ErrExist) {
		t.Errorf("what was put aside is overwritten: %v", err)
	}
}

// TestAuditAndFigures looks for who changed what, for figures and for health.
func TestAuditAndFigures(t *testing.T) {
	dir := found(t)
	setting(t, dir, "metrics", "127.0.0.1:0")
	setting(t, dir, "audit_log", "audit.log")
	c := serve(t, dir)
	token := oneToken(t, dir, c.addr)
	m := joined(t, dir, c.addr, token)
	cert := m.enroll(t, 1)
	call := func(args ...string) { mustCLI(t, append(args, "--dir", dir, "--server", c.addr)...) }
	call("revoke", cert.SerialNumber.Text(16), "--reason", "superseded")
	if err := os.Rename(filepath.Join(dir, "audit.log"), filepath.Join(dir, "audit.1")); err != nil {
		t.Fatal(err)
	}
	call("device", "remove", m.id)
	call("devices")
	first, second := audited(t, filepath.Join(dir, "audit.1")), audited(t, filepath.Join(dir, "audit.log"))
	if got := fmt.Sprint(first); got != "[CreateToken Join Submit Revoke]" {
		t.Errorf("audited %s", got)
	}
	if got := fmt.Sprint(second); got != "[DecideDevice]" {
		t.Errorf("audited after the file was renamed: %s", got)
	}
	text, err := os.ReadFile(filepath.Join(dir, "audit.1"))
	if err != nil || strings.Contains(string(text), token) {
		t.Errorf("the audit log has the token: %v", err)
	}
	for _, want := range []string{cert.SerialNumber.Text(16), `"by":"first"`, `"role":"admin"`, m.id, `"outcome":"issued"`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the audit log lacks %s:\n%s", want, text)
		}
	}
	figures := c.read(t, "/metrics")
	for _, want := range []string{
		`smime_server_calls_total{code="OK",method="Submit"} 1`, `smime_server_submissions_total{outcome="issued"} 1`,
		"smime_server_requests_pending 0", `smime_server_call_seconds_count{method="Join"} 1`, "go_goroutines",
	} {
		if !strings.Contains(figures, want) {
			t.Errorf("figures lack %q", want)
		}
	}
	if health := c.read(t, "/health"); !strings.Contains(health, `"ok":true`) {
		t.Errorf("health: %s", health)
	}
	c.stop(t)
}

// TestStrangersDoNotFillTheLog has a stranger try token after token: the audit log
// has a line and a count, and every join that was admitted.
func TestStrangersDoNotFillTheLog(t *testing.T) {
	dir := found(t)
	setting(t, dir, "audit_log", "audit.log")
	c := serve(t, dir)
	conn := dialTest(t, dir, c.addr, nil)
	_, der := newCSR(t)
	for range 20 {
		_, err := controlv1.NewControlServiceClient(conn).Join(t.Context(), &controlv1.JoinRequest{Token: "guess", Csr: der})
		if err == nil {
			t.Fatal("a guessed token is taken")
		}
		_, err = controlv1.NewAdminServiceClient(conn).CreateToken(t.Context(), &controlv1.CreateTokenRequest{Label: "mine"})
		if err == nil {
			t.Fatal("a stranger makes tokens")
		}
	}
	for range 2 {
		joined(t, dir, c.addr, oneToken(t, dir, c.addr))
	}
	c.stop(t)
	text, err := os.ReadFile(filepath.Join(dir, "audit.log"))
	if err != nil {
		t.Fatal(err)
	}
	lines, refused, admitted := 0, 0, 0
	for line := range strings.Lines(string(text)) {
		var entry struct {
			Msg, Code, From string
			Count           int
		}
		if err := json.Unmarshal([]byte(line), &entry); err != nil || !strings.HasPrefix(entry.From, "127.0.0.1") {
			t.Fatalf("%q: %v", line, err)
		}
		switch {
		case entry.Msg == "RefusedStrangers":
			refused += entry.Count
		case entry.Msg == "Join" && entry.Code == "OK":
			admitted++
		case entry.Code != "OK":
			refused++
		}
		lines++
	}
	// A minute may end in the midst of it.
	if refused != 40 || admitted != 2 || lines > 12 {
		t.Errorf("%d refused and %d admitted in %d lines, want 40 and 2:\n%s", refused, admitted, lines, text)
	}
}

func (c *child) read(t *testing.T, path string) string {
	t.Helper()
	resp, err := http.Get("http://" + c.metrics + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// audited gives what was done, in order.
func audited(t *testing.T, path string) []string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for line := range strings.Lines(string(text)) {
		var entry struct{ Msg, Code, From string }
		if err := json.Unmarshal([]byte(line), &entry); err != nil || entry.Code == "" || entry.From == "" {
			t.Fatalf("%q: %v", line, err)
		}
		out = append(out, entry.Msg)
	}
	return out
}

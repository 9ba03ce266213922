package main

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestNameOfTheProgram: a server that was installed as a service speaks of itself by
// the name that its package gave it, wherever it says what to call.
func TestNameOfTheProgram(t *testing.T) {
	t.Setenv(calledAs, "smime-central")
	dir := filepath.Join(t.TempDir(), "pilot")
	mustCLI(t, "init", "--dir", dir, "--organization", "Example GmbH", "--country", "DE", "--organization-identifier", "NTRDE-DER3306.HRB12345",
		"--host", "127.0.0.1", "--listen", "127.0.0.1:0", "--web", "127.0.0.1:0", "--admin-web", "127.0.0.1:0")
	for _, name := range []string{"server.yaml", "policy.yaml"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !strings.Contains(string(text), "smime-central ") || strings.Contains(string(text), "server-stub") {
			t.Errorf("%s, %v:\n%s", name, err, text)
		}
	}
	setting(t, dir, "metrics", "127.0.0.1:0")
	lines, out := io.Pipe()
	logs, log := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	later := func() time.Time { return time.Now().AddDate(0, 0, 350) } // the root's list ends soon
	done := make(chan error, 1)
	go func() {
		done <- run(ctx, []string{"serve", "--dir", dir}, env{out: out, err: log, now: later})
		_, _ = out.Close(), log.Close()
	}()
	page := make(chan string, 1)
	go func() { page <- firstMatch(logs, `administrators' page.* url=(\S+)`) }()
	figures := firstMatch(lines, `metrics on (\S+)`)
	if health := fetched(t, "http://"+figures+"/health"); !strings.Contains(health, "smime-central root-list --root-key") {
		t.Errorf("health: %s", health)
	}
	if text := fetched(t, <-page); !strings.Contains(text, "with the smime-central command") {
		t.Error("the page names another program")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// firstMatch gives what a pattern finds in lines, and goes on reading beside.
func firstMatch(r io.Reader, pattern string) string {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if found := regexp.MustCompile(pattern).FindStringSubmatch(lines.Text()); found != nil {
			go func() { _, _ = io.Copy(io.Discard, r) }()
			return found[1]
		}
	}
	return ""
}

// fetched gives what is at an address.
func fetched(t *testing.T, url string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }() // it was read
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

package main

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"smime-agent/server-stub/site"
)

// TestWebIsBounded: somebody who opens connections and says nothing has half of the
// places of each HTTP listener at most, and others are answered beside him.
func TestWebIsBounded(t *testing.T) {
	for _, admin := range []string{"127.0.0.1:0", "0.0.0.0:0"} { // HTTP, and HTTPS
		dir := found(t, "--admin-web", admin)
		setting(t, dir, "metrics", "127.0.0.1:0")
		setting(t, dir, "max_web_connections", "8")
		s, err := site.Open(t.Context(), dir, site.Options{})
		if err != nil {
			t.Fatal(err)
		}
		adminAddr := strings.Trim(strings.TrimPrefix(strings.TrimPrefix(s.AdminAddr, "http://"), "https://"), "/")
		_, port, err := net.SplitHostPort(adminAddr)
		if err != nil {
			t.Fatal(err)
		}
		for listener, at := range map[string]struct {
			addr string
			half int
		}{
			"web": {s.WebAddr, 4}, "admin_web": {"127.0.0.1:" + port, 64}, "metrics": {s.MetricsAddr, 64},
		} {
			for range at.half + 1 {
				silent(t, "127.0.0.2", at.addr)
			}
			want := fmt.Sprintf(`smime_server_web_connections_total{listener=%q,result="refused_address"} 1`, listener)
			waitFor(t, want, func() bool { return strings.Contains(fetched(t, "http://"+s.MetricsAddr+"/metrics"), want) })
		}
		if got := fetched(t, "http://"+s.WebAddr+"/crl"); got == "" {
			t.Error("no revocation list beside the silent ones")
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// silent connects from an address and says nothing.
func silent(t *testing.T, from, to string) {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	if conn, err := d.DialContext(t.Context(), "tcp", to); err == nil { // whoever has no place may hear of it here already
		t.Cleanup(func() { _ = conn.Close() })
	}
}

// waitFor waits for something that must come.
func waitFor(t *testing.T, what string, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for !holds() {
		if ctx.Err() != nil {
			t.Fatal("never: ", what)
		}
		time.Sleep(time.Millisecond)
	}
}

package control

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"smime-agent/agent/enroll"
	controlv1 "smime-agent/proto/control/v1"
)

func TestOneConnectionThroughAnExchange(t *testing.T) {
	s, m := newServer(t), &memory{}
	first := client(t, config(s, m))
	if _, err := first.EnsureJoined(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	cfg := config(s, m)
	cfg.Idle = 50 * time.Millisecond
	c := client(t, cfg)
	before := s.listener.accepted.Load()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 5 {
				if _, err := c.Sync(t.Context(), SyncInput{}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := s.listener.accepted.Load() - before; n != 1 {
		t.Errorf("%d connections for one exchange", n)
	}
	// Afterwards it is closed, and nothing is left that could run.
	deadline := time.Now().Add(time.Minute)
	for mine() > 0 && time.Now().Before(deadline) {
		time.Sleep(10 * time.Millisecond)
	}
	if n := mine(); n != 0 {
		t.Errorf("%d goroutines of the client when idle", n)
	}
	if _, err := c.Sync(t.Context(), SyncInput{}); err != nil {
		t.Error(err)
	}
	if n := s.listener.accepted.Load() - before; n != 2 {
		t.Errorf("%d connections after the pause", n)
	}
	if !c.link.conn.ConnectionState().DidResume {
		t.Error("the session was not resumed")
	}
}

// mine counts goroutines of gRPC's client side and of this package's calls.
func mine() int {
	buf := make([]byte, 1<<20)
	buf = buf[:runtime.Stack(buf, true)]
	n := 0
	for g := range bytes.SplitSeq(buf, []byte("\n\n")) {
		if bytes.Contains(g, []byte("http2Client")) || bytes.Contains(g, []byte("grpc.(*ClientConn)")) ||
			bytes.Contains(g, []byte("grpcsync.(*CallbackSerializer)")) || bytes.Contains(g, []byte("(*Client).exchange")) {
			n++
		}
	}
	return n
}

// The server closes a kept connection, or breaks it; the caller does not notice.
func TestKeptConnectionThatBroke(t *testing.T) {
	s := newServer(t)
	c := joined(t, s)
	for i := range 5 {
		if _, err := c.Sync(t.Context(), SyncInput{}); err != nil {
			t.Fatal(err)
		}
		s.listener.reset()
		if i%2 == 0 {
			time.Sleep(20 * time.Millisecond) // both before and after we see it
		}
		if _, err := c.Sync(t.Context(), SyncInput{}); err != nil {
			t.Errorf("after a reset: %v", err)
		}
	}
	address := s.address
	s.stop()
	s.listen(address)
	if _, err := c.Sync(t.Context(), SyncInput{}); err != nil {
		t.Errorf("after a restart: %v", err)
	}
}

// A server that always breaks in mid-message gets two tries and no more.
func TestResetInMidMessage(t *testing.T) {
	s := newServer(t)
	c := joined(t, s)
	if _, err := c.Sync(t.Context(), SyncInput{}); err != nil {
		t.Fatal(err)
	}
	calls := s.count("Sync")
	s.script(func(context.Context, string) error { s.listener.reset(); return nil })
	_, err := c.Sync(t.Context(), SyncInput{})
	wantError(t, err, enroll.Transient, enroll.CodeControlUnreachable)
	if n := s.count("Sync") - calls; n > 2 {
		t.Errorf("%d tries", n)
	}
	s.script(nil)
	for range 20 { // a reset may still be on its way
		if _, err = c.Sync(t.Context(), SyncInput{}); err == nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error(err)
}

// A refusal that comes with Unavailable is an answer; it is not asked twice.
func TestUnavailableWithAReasonIsNotRepeated(t *testing.T) {
	s := newServer(t)
	c := joined(t, s)
	if _, err := c.Sync(t.Context(), SyncInput{}); err != nil {
		t.Fatal(err)
	}
	calls := s.count("Sync")
	s.before = func(context.Context, string) error {
		return refusal(codes.Unavailable, controlv1.Reason_REASON_UNAVAILABLE, retryIn(time.Hour))
	}
	_, err := c.Sync(t.Context(), SyncInput{})
	if e := wantError(t, err, enroll.Transient, enroll.CodeControlUnreachable); e.RetryAfter != time.Hour {
		t.Errorf("retry after %v", e.RetryAfter)
	}
	if n := s.count("Sync") - calls; n != 1 {
		t.Errorf("%d calls", n)
	}
}

func TestOversizedAnswer(t *testing.T) {
	s := newServer(t)
	c := joined(t, s)
	s.sync = func(*controlv1.SyncRequest) *controlv1.SyncResponse {
		return &controlv1.SyncResponse{Ready: []string{strings.Repeat("x", maxAnswer+1)}}
	}
	_, err := c.Sync(t.Context(), SyncInput{})
	if e := wantError(t, err, enroll.Transient, enroll.CodeControlRejected); !strings.Contains(e.Hint, "more than") {
		t.Errorf("hint = %s", e.Hint)
	}
	s.sync = nil
	s.before = func(context.Context, string) error {
		return status.Error(codes.Internal, strings.Repeat("y", 1<<20)) // headers of 1 MB
	}
	if _, err := c.Sync(t.Context(), SyncInput{}); err == nil {
		t.Error("endless headers were taken")
	}
	s.before = nil
	if _, err := c.Sync(t.Context(), SyncInput{}); err != nil {
		t.Error(err)
	}
}

// It accepts and never says a word: at the TCP level, within TLS, within HTTP/2.
func TestBlackHole(t *testing.T) {
	s := newServer(t)
	for name, serve := range map[string]func(net.Conn){
		"TCP": func(net.Conn) {},
		"TLS": func(c net.Conn) {
			_ = tls.Server(c, &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{s.cert}, NextProtos: []string{"h2"}}).Handshake()
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config(s, &memory{})
			cfg.Address = listener(t, serve)
			cfg.Timeout = 300 * time.Millisecond
			began := time.Now()
			_, err := client(t, cfg).EnsureJoined(t.Context())
			wantError(t, err, enroll.Transient, enroll.CodeControlUnreachable)
			if time.Since(began) > 30*time.Second {
				t.Errorf("took %v", time.Since(began))
			}
		})
	}
	t.Run("call", func(t *testing.T) {
		cfg := config(s, &memory{})
		cfg.Timeout = 300 * time.Millisecond
		c := client(t, cfg)
		if _, err := c.EnsureJoined(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.script(func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() })
		_, err := c.Sync(t.Context(), SyncInput{})
		wantError(t, err, enroll.Transient, enroll.CodeControlUnreachable)
		before := s.listener.accepted.Load()
		s.script(nil)
		if _, err := c.Sync(t.Context(), SyncInput{}); err != nil || s.listener.accepted.Load() == before {
			t.Errorf("%v; a connection that may be dead was kept", err)
		}
	})
}

// listener serves each connection and then holds it open.
func listener(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = conn.Close() })
			go serve(conn)
		}
	}()
	return l.Addr().String()
}

func TestWhatAnswersIsNoServer(t *testing.T) {
	s := newServer(t)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	handshake := func(version uint16, protos ...string) func(net.Conn) {
		return func(c net.Conn) {
			_ = tls.Server(c, &tls.Config{MinVersion: tls.VersionTLS12, MaxVersion: version, Certificates: []tls.Certificate{s.cert}, NextProtos: protos}).Handshake()
		}
	}
	for name, tt := range map[string]struct{ address, hint string }{
		"nobody listens": {closed.Addr().String(), "No connection to " + closed.Addr().String()},
		"no such name":   {"central.invalid:443", "central.invalid:443 cannot be resolved"},
		"hangs up":       {listener(t, func(c net.Conn) { _ = c.Close() }), "No TLS connection"},
		"plain HTTP":     {listener(t, func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n") }), "No TLS connection"},
		"TLS 1.2 only":   {listener(t, handshake(tls.VersionTLS12, "h2")), "No TLS connection"},
		"no HTTP/2":      {listener(t, handshake(tls.VersionTLS13)), "does not speak HTTP/2"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config(s, &memory{})
			cfg.Address = tt.address
			c := client(t, cfg)
			_, err := c.EnsureJoined(t.Context())
			if e := wantError(t, err, enroll.Transient, enroll.CodeControlUnreachable); !strings.Contains(e.Hint, tt.hint) {
				t.Errorf("hint = %s", e.Hint)
			}
			steps := c.Probe(t.Context())
			if last := steps[len(steps)-1]; last.OK || last.Cure == "" {
				t.Errorf("steps = %+v", steps)
			}
		})
	}
}

// A server that refuses certificates within TLS says so only after the
// handshake, as an alert.
func TestIdentityRefusedWithinTLS(t *testing.T) {
	s := newServer(t)
	c := joined(t, s)
	strict := listener(t, func(conn net.Conn) {
		pool := x509.NewCertPool()
		pool.AddCert(newAuthority(t, "Another device CA").cert)
		_ = tls.Server(conn, &tls.Config{
			MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{s.cert}, NextProtos: []string{"h2"},
			ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool,
		}).Handshake()
	})
	cfg := c.cfg
	cfg.Address = strict
	d := client(t, cfg)
	_, err := d.Sync(t.Context(), SyncInput{})
	wantError(t, err, enroll.Transient, CodeIdentityRefused)
	if !d.isRefused(d.identity) {
		t.Error("nothing says that the identity is refused")
	}
}

func TestClosedClient(t *testing.T) {
	s := newServer(t)
	c := joined(t, s)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Sync(t.Context(), SyncInput{}); err == nil {
		t.Error("a closed client made a call")
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestProbeOfAGoodWay(t *testing.T) {
	s := newServer(t)
	c := joined(t, s)
	address, through := connectProxy(t, "", "")
	cfg := c.cfg
	cfg.Proxy = Proxy{URL: "http://" + address}
	puts := cfg.Secrets.(*memory).puts
	for _, p := range []*Client{c, client(t, cfg)} {
		for _, step := range p.Probe(t.Context()) {
			if !step.OK || step.Detail == "" || step.Cure != "" {
				t.Errorf("%+v", step)
			}
		}
	}
	if through.Load() != 1 || cfg.Secrets.(*memory).puts != puts {
		t.Error("the proxy was passed by, or something was changed")
	}
	fresh := client(t, config(s, &memory{})) // not joined: the server is there all the same
	steps := fresh.Probe(t.Context())
	bad := map[string]bool{}
	for _, step := range steps {
		if !step.OK {
			bad[step.Name] = true
		}
	}
	if len(bad) != 1 || !bad["identity"] || steps[len(steps)-1].Name != "call" {
		t.Errorf("steps = %+v", steps)
	}
}

func TestProbeNamesTheBadStep(t *testing.T) {
	s := newServer(t)
	proxy, _ := connectProxy(t, "alice:right", "")
	for name, tt := range map[string]struct {
		change func(*Config)
		step   string
	}{
		"wrong CA": {func(c *Config) { c.Anchors = newAuthority(t, "x").pem() }, "tls"},
		"proxy":    {func(c *Config) { c.Proxy = Proxy{URL: "http://" + proxy} }, "connection"},
		"name":     {func(c *Config) { c.Address = "central.invalid:1" }, "name"},
	} {
		cfg := config(s, &memory{})
		tt.change(&cfg)
		steps := client(t, cfg).Probe(t.Context())
		if last := steps[len(steps)-1]; last.Name != tt.step || last.OK || last.Cure == "" || last.Detail == "" {
			t.Errorf("%s: %+v", name, steps)
		}
	}
}

func TestSecretStoreFails(t *testing.T) {
	s := newServer(t)
	m := &memory{fail: func(string) error { return errors.New("locked") }}
	c := client(t, config(s, m))
	_, err := c.Sync(t.Context(), SyncInput{})
	wantError(t, err, enroll.Transient, CodeSecretsFailed)
	_, err = c.EnsureJoined(t.Context())
	wantError(t, err, enroll.Transient, CodeSecretsFailed)
	if cs := c.Conditions(); len(cs) != 1 || cs[0].Code != CodeSecretsFailed {
		t.Errorf("conditions = %+v", cs)
	}
}

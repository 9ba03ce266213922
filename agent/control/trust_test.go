package control

import (
	"crypto/tls"
	"crypto/x509"
	"net/url"
	"strings"
	"testing"
	"time"

	"smime-agent/agent/enroll"
)

func mustURL(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestServerIsBelievedOrNot(t *testing.T) {
	s := newServer(t)
	other := newAuthority(t, "Another CA")
	leaf, ca := pinOf(s.cert.Leaf), pinOf(s.ca.cert)
	good := s.cert
	expired := s.ca.serverCert(t, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	future := s.ca.serverCert(t, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) })
	elsewhere := s.ca.serverCert(t, func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = []string{"other.example"}, nil })
	clientOnly := s.ca.serverCert(t, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })
	foreign := other.serverCert(t, nil)
	// A stranger's leaf with the pinned CA merely shown beside it.
	decorated := other.serverCert(t, nil)
	decorated.Certificate = append(decorated.Certificate, s.ca.cert.Raw)

	for _, tt := range []struct {
		name    string
		cert    tls.Certificate
		anchors []byte
		pins    []Pin
		ok      bool
	}{
		{"anchor", good, s.ca.pem(), nil, true},
		{"one of two anchors", good, append(other.pem(), s.ca.pem()...), nil, true},
		{"leaf pin", good, nil, []Pin{leaf}, true},
		{"CA pin", good, nil, []Pin{ca}, true},
		{"anchor and leaf pin", good, s.ca.pem(), []Pin{leaf}, true},
		{"anchor and CA pin", good, s.ca.pem(), []Pin{ca}, true},
		{"spare pin", good, nil, []Pin{pinOf(other.cert), ca}, true},
		{"name does not matter for a pinned key", elsewhere, nil, []Pin{pinOf(elsewhere.Leaf)}, true},

		{"wrong anchor", good, other.pem(), nil, false},
		{"wrong pin", good, nil, []Pin{pinOf(other.cert)}, false},
		{"anchor right, pin wrong", good, s.ca.pem(), []Pin{pinOf(other.cert)}, false},
		{"pin right, anchor wrong", good, other.pem(), []Pin{leaf}, false},
		{"foreign CA", foreign, s.ca.pem(), nil, false},
		{"foreign CA, CA pin", foreign, nil, []Pin{ca}, false},
		{"pinned CA only shown", decorated, nil, []Pin{ca}, false},
		{"expired", expired, s.ca.pem(), nil, false},
		{"expired, leaf pin", expired, nil, []Pin{pinOf(expired.Leaf)}, false},
		{"not yet valid", future, s.ca.pem(), nil, false},
		{"another name", elsewhere, s.ca.pem(), nil, false},
		{"another name, CA pin", elsewhere, nil, []Pin{ca}, false},
		{"not for servers", clientOnly, s.ca.pem(), nil, false},
	} {
		t.Run(tt.name, func(t *testing.T) { believe(t, s, tt.cert, tt.anchors, tt.pins, tt.ok) })
	}
}

// believe joins a server that shows cert, and sees whether it is believed.
func believe(t *testing.T, s *server, cert tls.Certificate, anchors []byte, pins []Pin, ok bool) {
	t.Helper()
	s.mu.Lock()
	s.cert = cert
	s.mu.Unlock()
	cfg := config(s, &memory{})
	cfg.Anchors, cfg.Pins = anchors, pins
	joins := s.count("Join")
	_, err := client(t, cfg).EnsureJoined(t.Context())
	if ok {
		if err != nil {
			t.Error(err)
		}
		return
	}
	e := wantError(t, err, enroll.Transient, CodeUntrusted)
	if !strings.Contains(e.Hint, s.address) {
		t.Errorf("hint = %s", e.Hint)
	}
	if s.count("Join") != joins {
		t.Error("the token was sent to a server that is not believed")
	}
}

func TestNeitherAnchorNorPin(t *testing.T) {
	s := newServer(t)
	good := config(s, &memory{})
	for name, change := range map[string]func(*Config){
		"nothing":        func(c *Config) { c.Anchors = nil },
		"blank":          func(c *Config) { c.Anchors = []byte(" \n") },
		"no PEM":         func(c *Config) { c.Anchors = []byte("garbage") },
		"garbage behind": func(c *Config) { c.Anchors = append(c.Anchors, "garbage"...) },
		"a key":          func(c *Config) { c.Anchors = []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n") },
		"no port":        func(c *Config) { c.Address = "central.example" },
		"no host":        func(c *Config) { c.Address = ":443" },
		"bad proxy":      func(c *Config) { c.Proxy.URL = "ftp://x" },
		"no secrets":     func(c *Config) { c.Secrets = nil },
	} {
		cfg := good
		change(&cfg)
		c, err := New(cfg)
		if c != nil {
			t.Errorf("%s: a client was made", name)
		}
		wantError(t, err, enroll.Waiting, CodeUnconfigured)
	}
}

// The certificate changes while a connection and its session are kept.
func TestChangedServerCertificate(t *testing.T) {
	s := newServer(t)
	c := joined(t, s)
	if _, err := c.Sync(t.Context(), SyncInput{}); err != nil {
		t.Fatal(err)
	}
	foreign := newAuthority(t, "Inspecting proxy").serverCert(t, nil)
	own := s.cert
	s.mu.Lock()
	s.cert = foreign
	s.mu.Unlock()
	address := s.address
	s.stop()
	s.listen(address) // new ticket keys: no resumption
	_, err := c.Sync(t.Context(), SyncInput{})
	e := wantError(t, err, enroll.Transient, CodeUntrusted)
	if !strings.Contains(e.Error(), "Inspecting proxy") {
		t.Errorf("the issuer is not named for the log: %v", e)
	}
	if cs := c.Conditions(); len(cs) != 1 || cs[0].Code != CodeUntrusted {
		t.Errorf("conditions = %+v", cs)
	}
	s.mu.Lock()
	s.cert = own
	s.mu.Unlock()
	if _, err := c.Sync(t.Context(), SyncInput{}); err != nil || len(c.Conditions()) != 0 {
		t.Errorf("with the right certificate again: %v, %+v", err, c.Conditions())
	}
}

// A clock that fell back to 1970 must not lock the machine out; one that is
// ahead is told from a wrong CA.
func TestServerCertificateWithAWrongClock(t *testing.T) {
	s, m := newServer(t), &memory{}
	if _, err := client(t, config(s, m)).EnsureJoined(t.Context()); err != nil {
		t.Fatal(err)
	}
	cfg := config(s, m)
	cfg.Now = func() time.Time { return time.Unix(86400, 0) }
	c := client(t, cfg)
	if _, err := c.EnsureJoined(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Sync(t.Context(), SyncInput{}); err != nil {
		t.Errorf("in 1970: %v", err)
	}
	if got := time.Unix(86400, 0).Add(c.Offset()); time.Since(got).Abs() > time.Minute {
		t.Errorf("corrected time is %v", got)
	}
	cfg.Now = func() time.Time { return time.Now().AddDate(10, 0, 0) }
	_, err := client(t, cfg).Sync(t.Context(), SyncInput{})
	if e := wantError(t, err, enroll.Transient, CodeUntrusted); !strings.Contains(e.Hint, "clock") {
		t.Errorf("hint = %s", e.Hint)
	}
	// The anchor itself is in force 100 days back; a fresh machine has no floor.
	cfg = config(s, &memory{})
	cfg.Now = func() time.Time { return time.Unix(86400, 0) }
	cfg.NotBefore = time.Now().Add(-time.Minute)
	if _, err := client(t, cfg).EnsureJoined(t.Context()); err != nil {
		t.Errorf("with a floor: %v", err)
	}
}

package directory_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"smime-agent/server-stub/directory"
)

// TestHangingDirectory: a server that stops waits for no directory that says
// nothing, neither while it connects nor later.
func TestHangingDirectory(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for name, c := range map[string]directory.Config{
		"at STARTTLS": {URL: "ldap://" + l.Addr().String(), Security: directory.StartTLS},
		"at TLS":      {URL: "ldaps://" + l.Addr().String()},
		"at sign-in":  {URL: "ldap://" + l.Addr().String(), Security: directory.None, BindDN: "cn=x", Password: "x"},
	} {
		ctx, stop := context.WithCancel(t.Context())
		time.AfterFunc(50*time.Millisecond, stop)
		begin := time.Now()
		if _, err := c.Dial(ctx); err == nil || time.Since(begin) > 10*time.Second {
			t.Errorf("%s: %v after %v", name, err, time.Since(begin))
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	s, err := directory.Config{
		URL: "ldap://" + l.Addr().String(), Security: directory.None, Base: "dc=x", Filter: directory.DefaultFilter, Flavour: directory.OpenLDAP,
	}.Dial(ctx)
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(50*time.Millisecond, stop)
	begin := time.Now()
	if _, err := s.Publish(directory.Wanted{Mailbox: "a@example.com"}); err == nil || time.Since(begin) > 10*time.Second {
		t.Errorf("in a session: %v after %v", err, time.Since(begin))
	}
}

// TestSocket: a directory on this machine is reached by its socket, in either way
// of writing it.
func TestSocket(t *testing.T) {
	dir, err := os.MkdirTemp("", "ldap") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "ldapi")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, address := range []string{"ldapi://" + strings.ReplaceAll(path, "/", "%2F"), "ldapi://" + path} {
		c := directory.Config{URL: address, Base: "dc=x", Filter: directory.DefaultFilter, Flavour: directory.OpenLDAP}
		if err := c.Check(); err != nil {
			t.Errorf("%s: %v", address, err)
			continue
		}
		s, err := c.Dial(t.Context())
		if err != nil {
			t.Errorf("%s: %v", address, err)
			continue
		}
		if conn, err := l.Accept(); err == nil {
			_ = conn.Close()
		}
		_ = s.Close()
	}
}

//go:build linux

package e2e_test

import (
	"crypto/x509"
	"errors"
	"strings"
	"testing"

	"smime-agent/platform/platformtest"
	"smime-agent/server-stub/directory"
)

// TestDirectoryOutcomes: what can be wrong with an entry or with the way to the
// directory, each told apart, against a real OpenLDAP.
func TestDirectoryOutcomes(t *testing.T) {
	onlyFull(t, "it needs slapd")
	t.Parallel()
	s := startSlapd(t)
	ca := platformtest.NewAuthority(t)
	ours, foreign := ca.Partner(t, "alice@example.com"), platformtest.NewAuthority(t).Partner(t, "alice@example.com")
	s.person("alice", "alice@example.com", ours.Raw, foreign.Raw)
	s.person("twin1", "twin@example.com")
	s.person("twin2", "twin@example.com")
	s.add("dn: cn=list," + ldapBase + "\nobjectClass: groupOfNames\nobjectClass: extensibleObject\ncn: list\nmember: cn=list," + ldapBase + "\nmail: list@example.com\n")
	config := directory.Config{URL: s.url, Security: directory.StartTLS, BindDN: ldapBind, Password: ldapPass, Base: ldapBase,
		Filter: directory.DefaultFilter, Flavour: directory.OpenLDAP, Roots: s.roots}
	stale := func(c *x509.Certificate) bool { return c.Equal(ours) }
	next := ca.Partner(t, "alice@example.com")
	session, err := config.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = session.Close() }()
	for _, c := range []struct {
		mailbox string
		want    []byte
		state   string
	}{
		{"alice@example.com", next.Raw, directory.Published},
		{"alice@example.com", next.Raw, directory.Published}, // again changes nothing
		{"alice@example.com", nil, directory.Withdrawn},
		{"nobody@example.com", next.Raw, directory.NotFound},
		{"twin@example.com", next.Raw, directory.Ambiguous},
		{"*)(uid=alice", next.Raw, directory.NotFound}, // an address is no filter
		{"alice@example.com", []byte("no certificate"), directory.Failed},
	} {
		isStale := stale
		if c.want == nil {
			isStale = func(c *x509.Certificate) bool { return c.Equal(ours) || c.Equal(next) }
		}
		o, err := session.Publish(directory.Wanted{Mailbox: c.mailbox, Certificate: c.want, Stale: isStale})
		if err != nil || o.State != c.state || (o.Problem == "") != (c.state == directory.Published || c.state == directory.Withdrawn) {
			t.Errorf("%s: %+v, %v; want %s", c.mailbox, o, err, c.state)
		}
	}
	if left, _ := s.find("alice@example.com"); len(left) != 1 || fingerprint(left[0]) != fingerprint(foreign.Raw) {
		t.Errorf("%d certificates are left of somebody else's 1", len(left))
	}
	testDirectoryWay(t, config)
}

// testDirectoryWay: nobody signs in over a connection that others may read.
func testDirectoryWay(t *testing.T, good directory.Config) {
	for name, c := range map[string]struct {
		change func(*directory.Config)
		want   string
	}{
		"another CA":       {func(c *directory.Config) { c.Roots = x509.NewCertPool() }, "safe"},
		"another password": {func(c *directory.Config) { c.Password = "other" }, "sign in"},
		"nobody there":     {func(c *directory.Config) { c.URL = "ldap://127.0.0.1:1" }, "connect"},
	} {
		t.Run(name, func(t *testing.T) {
			config := good
			c.change(&config)
			_, err := config.Dial(t.Context())
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if errors.Is(err, directory.ErrConnection) {
				t.Error("Dial gives the error of an open session")
			}
		})
	}
}

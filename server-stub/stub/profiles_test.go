package stub_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"smime-agent/server-stub/ca"
	"smime-agent/server-stub/lint"
	"smime-agent/server-stub/stub"
)

func subscriberKeys(t *testing.T) map[string]crypto.Signer {
	t.Helper()
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]crypto.Signer{ca.P256: p256(t), ca.P384: p384}
	for kind, bits := range map[string]int{ca.RSA2048: 2048, ca.RSA3072: 3072, ca.RSA4096: 4096} {
		if keys[kind], err = rsaKeys(bits); err != nil {
			t.Fatal(err)
		}
	}
	return keys
}

// TestProfiles has outside judges look at every profile with every kind of key.
func TestProfiles(t *testing.T) {
	keys := subscriberKeys(t)
	for name, useRSA := range map[string]bool{"EC": false, "RSA": true} {
		t.Run(name, func(t *testing.T) {
			for setting, s := range map[string]ca.Settings{
				"reserved": {Reserved: true}, "own": {OwnPolicy: "1.3.6.1.4.1.99999.1.1"}, "both": {Reserved: true, OwnPolicy: "1.3.6.1.4.1.99999.1.1"},
			} {
				t.Run(setting, func(t *testing.T) { judgeProfiles(t, s, useRSA, keys) })
			}
		})
	}
}

func judgeProfiles(t *testing.T, s ca.Settings, useRSA bool, keys map[string]crypto.Signer) {
	s.CRLURL, s.IssuerURL = "http://pki.example.com/crl", "http://pki.example.com/ca"
	now := time.Now()
	h, err := ca.Found(ca.Founding{
		Organization: stub.Organization, Country: stub.Country, Settings: s, RSA: useRSA, Now: now,
		RootCRLURL: "http://pki.example.com/root.crl", RootURL: "http://pki.example.com/root",
	})
	if err != nil {
		t.Fatal(err)
	}
	linter, err := lint.New()
	if err != nil {
		t.Fatal(err)
	}
	issuer, err := ca.NewIssuer([]*x509.Certificate{h.Issuing.Cert, h.Root.Cert}, h.Issuing.Key, linter, s)
	if err != nil {
		t.Fatal(err)
	}
	judge := newOpenSSL(t, h)
	for _, profile := range ca.Profiles() {
		for _, kind := range profile.Keys {
			der, err := issuer.Issue(t.Context(), ca.Wanted{
				Serial: issuer.Serials.Next(now), Profile: profile, Key: keys[kind].Public(), Now: now,
				Subject: ca.Subject{
					Organization: stub.Organization, OrganizationID: stub.OrganizationID, Country: stub.Country,
					GivenName: "小明", Surname: "王", CommonName: "王小明", Mailboxes: []string{"wang@example.com", "x.wang@example.com"},
				},
			})
			if err != nil {
				t.Errorf("%s with %s: %v", profile.Name, kind, err)
				continue
			}
			if found := linter.Findings(der); len(found) > 0 {
				t.Errorf("%s with %s: findings %v", profile.Name, kind, found)
			}
			judge.verify(t, profile, kind, der)
		}
	}
}

// TestLongMailbox: an address that is too long for a common name (RFC 5280, appendix A:
// 64 characters) still gets a certificate of every profile.
func TestLongMailbox(t *testing.T) {
	now := time.Now()
	s := ca.Settings{Reserved: true, CRLURL: "http://pki.example.com/crl", IssuerURL: "http://pki.example.com/ca"}
	h, err := ca.Found(ca.Founding{
		Organization: stub.Organization, Country: stub.Country, Settings: s, Now: now,
		RootCRLURL: "http://pki.example.com/root.crl", RootURL: "http://pki.example.com/root",
	})
	if err != nil {
		t.Fatal(err)
	}
	linter, err := lint.New()
	if err != nil {
		t.Fatal(err)
	}
	issuer, err := ca.NewIssuer([]*x509.Certificate{h.Issuing.Cert, h.Root.Cert}, h.Issuing.Key, linter, s)
	if err != nil {
		t.Fatal(err)
	}
	judge := newOpenSSL(t, h)
	const host = "@a-very-long-name-of-a-department.example.com"
	for _, mailbox := range []string{strings.Repeat("x", 64-len(host)) + host, strings.Repeat("x", 65-len(host)) + host, strings.Repeat("x", 64) + host} {
		for _, profile := range ca.Profiles() {
			der, err := issuer.Issue(t.Context(), ca.Wanted{
				Serial: issuer.Serials.Next(now), Profile: profile, Key: p256(t).Public(), Now: now,
				Subject: ca.Subject{
					Organization: stub.Organization, OrganizationID: stub.OrganizationID, Country: stub.Country,
					GivenName: "Alice", Surname: "Example", CommonName: "Alice Example", Mailboxes: []string{mailbox},
				},
			})
			if err != nil {
				t.Errorf("%s for %d characters: %v", profile.Name, len(mailbox), err)
				continue
			}
			if found := linter.Findings(der); len(found) > 0 {
				t.Errorf("%s for %d characters: findings %v", profile.Name, len(mailbox), found)
			}
			judge.verify(t, profile, ca.P256, der)
		}
	}
}

// openSSL is a judge that none of us wrote.
type openSSL struct {
	program, dir string
}

func newOpenSSL(t *testing.T, h *ca.Hierarchy) openSSL {
	t.Helper()
	program, err := exec.LookPath("openssl")
	if err != nil {
		t.Log("SKIP of the openssl part: openssl is not installed")
		return openSSL{}
	}
	o := openSSL{program: program, dir: t.TempDir()}
	for name, cert := range map[string]*x509.Certificate{"root.pem": h.Root.Cert, "issuing.pem": h.Issuing.Cert} {
		if err := os.WriteFile(filepath.Join(o.dir, name), ca.EncodeCertificates(cert), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return o
}

func (o openSSL) verify(t *testing.T, profile ca.Profile, kind string, der []byte) {
	t.Helper()
	if o.program == "" {
		return
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	leaf := filepath.Join(o.dir, "leaf.pem")
	if err := os.WriteFile(leaf, ca.EncodeCertificates(cert), 0o600); err != nil {
		t.Fatal(err)
	}
	purpose := "smimesign"
	if !profile.Sign {
		purpose = "smimeencrypt"
		if strings.HasPrefix(kind, "p-") {
			// OpenSSL's purpose smimeencrypt looks for keyEncipherment, which an EC key
			// must not have (BR 7.1.2.3.e).
			purpose = "any"
		}
	}
	out, err := exec.CommandContext(t.Context(), o.program, "verify", "-x509_strict", "-purpose", purpose,
		"-CAfile", filepath.Join(o.dir, "root.pem"), "-untrusted", filepath.Join(o.dir, "issuing.pem"), leaf).CombinedOutput()
	if err != nil {
		t.Errorf("%s with %s: openssl verify -purpose %s: %v\n%s", profile.Name, kind, purpose, err, out)
	}
}

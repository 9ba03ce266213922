package authority_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"smime-agent/platform/platformtest"
	"smime-agent/server-stub/authority"
	"smime-agent/server-stub/esttest"
)

func newEST(t *testing.T) (*esttest.Server, *authority.EST) {
	t.Helper()
	s, err := esttest.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	roots, anchors := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(s.TLS)
	anchors.AddCert(s.Root.Cert)
	return s, &authority.EST{URL: s.URL, ServerRoots: roots, Anchors: anchors, Identity: &s.Identity}
}

func newRoot(t testing.TB) esttest.CA {
	t.Helper()
	root, err := esttest.NewCA("root", nil)
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func order(t testing.TB) authority.Order {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "Alice"}, EmailAddresses: []string{"alice@example.com"},
	}, k)
	if err != nil {
		t.Fatal(err)
	}
	return authority.Order{CSR: der, Key: k.Public(), Mailboxes: []string{"Alice@example.com"}}
}

func TestEST(t *testing.T) {
	s, client := newEST(t)
	s.Delay(2, 7)
	o := order(t)
	answer, err := client.Submit(t.Context(), o)
	if err != nil || answer.Chain != nil || answer.RetryAfter != 7*time.Second {
		t.Fatalf("submit gives %v, %v, want pending for 7 s", answer, err)
	}
	if answer, err = client.Collect(t.Context(), o); err != nil || answer.Chain != nil {
		t.Fatalf("collect gives %v, %v, want pending", answer, err)
	}
	answer, err = client.Collect(t.Context(), o)
	if err != nil || len(answer.Chain) != 2 || !answer.Chain[1].Equal(s.Issuing.Cert) {
		t.Fatalf("collect gives %v, %v, want leaf and issuing CA", answer, err)
	}
	o.Renewal = true
	if _, err := client.Submit(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if err := client.Revoke(t.Context(), answer.Chain[0], "superseded"); !errors.Is(err, authority.ErrUnsupported) {
		t.Errorf("revoke gives %v", err)
	}
	got := strings.Join(s.Asked(), "\n")
	if !strings.Contains(got, "/simplereenroll") || strings.Contains(got, "serverkeygen") {
		t.Errorf("asked:\n%s", got)
	}
}

// TestESTSignsIn tries nobody, a password, and a server of somebody else.
func TestESTSignsIn(t *testing.T) {
	_, client := newEST(t)
	client.Identity = nil
	if _, err := client.Submit(t.Context(), order(t)); !errors.Is(err, authority.ErrUnavailable) {
		t.Errorf("without credentials: %v", err)
	}
	client.User, client.Password = esttest.User, esttest.Password
	if answer, err := client.Submit(t.Context(), order(t)); err != nil || len(answer.Chain) != 2 {
		t.Errorf("with a password: %v, %v", answer, err)
	}
	client.ServerRoots = x509.NewCertPool()
	if _, err := client.Submit(t.Context(), order(t)); !errors.Is(err, authority.ErrUnavailable) {
		t.Errorf("a server of somebody else: %v", err)
	}
	for _, address := range []string{"http://127.0.0.1/.well-known/est", "127.0.0.1", "https:///.well-known/est", "https://ra:secret@127.0.0.1/.well-known/est"} {
		client.URL = address
		if err := client.CheckAddress(); err == nil || strings.Contains(err.Error(), "ra:secret") {
			t.Errorf("%s: %v", address, err)
		}
		if _, err := client.Submit(t.Context(), order(t)); err == nil || errors.Is(err, authority.ErrUnavailable) {
			t.Errorf("the order goes out to %s: %v", address, err)
		}
	}
}

// TestESTFaults plants each wrong answer that a CA, or whoever stands in its place, may give.
func TestESTFaults(t *testing.T) {
	for fault, want := range map[string]error{
		"another key": authority.ErrAnswer, "another mailbox": authority.ErrAnswer, "one mailbox more": authority.ErrAnswer,
		"another use": authority.ErrAnswer, "a CA": authority.ErrAnswer, "too long": authority.ErrAnswer, "a minute too long": authority.ErrAnswer, "ended": authority.ErrAnswer,
		"another root": authority.ErrAnswer, "HTML": authority.ErrAnswer, "no base64": authority.ErrAnswer, "no message": authority.ErrAnswer,
		"endless": authority.ErrAnswer, "redirect": authority.ErrUnavailable, "refused": authority.ErrRefused, "down": authority.ErrUnavailable,
		"elsewhere": authority.ErrUnavailable, "slow": authority.ErrUnavailable, "no cacerts": authority.ErrUnavailable,
		"no content": authority.ErrAnswer,
	} {
		s, client := newEST(t)
		s.Break(fault)
		if answer, err := client.Submit(t.Context(), order(t)); !errors.Is(err, want) || answer.Chain != nil {
			t.Errorf("%s: %v, %v, want %v", fault, answer, err, want)
		}
		// What is issued while the issuers cannot be had is lost, and the next try would be another order.
		asked := strings.Join(s.Asked(), " ")
		if ordered := strings.Contains(asked, "simpleenroll"); ordered != (fault != "no cacerts") {
			t.Errorf("%s: asked for %s", fault, asked)
		}
		if strings.Contains(asked, esttest.Elsewhere) {
			t.Errorf("%s: a redirection was followed", fault)
		}
	}
}

// TestCertsOnlyOfOpenSSL reads a message that OpenSSL made.
func TestCertsOnlyOfOpenSSL(t *testing.T) {
	platformtest.NeedPrograms(t, "openssl")
	root := newRoot(t)
	path := filepath.Join(t.TempDir(), "root.pem")
	if err := os.WriteFile(path, esttest.PEM(root.Cert), 0o600); err != nil {
		t.Fatal(err)
	}
	der, err := exec.CommandContext(t.Context(), "openssl", "crl2pkcs7", "-nocrl", "-certfile", path, "-outform", "DER").Output()
	if err != nil {
		t.Fatal(err)
	}
	certs, err := authority.CertsOnly(der)
	if err != nil || len(certs) != 1 || !certs[0].Equal(root.Cert) {
		t.Errorf("read %v, %v", certs, err)
	}
}

func FuzzCertsOnly(f *testing.F) {
	message, err := esttest.CertsOnly(newRoot(f).Cert)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(message)
	f.Add([]byte{0x30, 0x80})
	f.Fuzz(func(t *testing.T, der []byte) {
		if certs, err := authority.CertsOnly(der); (err == nil) == (len(certs) == 0) {
			t.Errorf("%d certificates, %v", len(certs), err)
		}
	})
}

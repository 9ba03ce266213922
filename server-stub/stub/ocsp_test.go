package stub_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	zx509 "github.com/zmap/zcrypto/x509"
	"github.com/zmap/zlint/v3"
	zlintlint "github.com/zmap/zlint/v3/lint"
	"golang.org/x/crypto/ocsp"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/ca"
	"smime-agent/server-stub/stub"
)

// issuedHere gives a certificate of a running server, with its issuers.
func issuedHere(t *testing.T, s *stub.Server, n int) (leaf *x509.Certificate, serial string, issuing, root *x509.Certificate) {
	t.Helper()
	d := admittedDevice(t, s, alice())
	resp, err := d.Submit(t.Context(), submission(enrollmentID(n), csr(t, p256(t))))
	if err != nil {
		t.Fatal(err)
	}
	chain := resp.GetOutcome().GetIssued().GetChain()
	if leaf, err = x509.ParseCertificate(chain[0]); err != nil {
		t.Fatal(err)
	}
	if issuing, err = x509.ParseCertificate(chain[1]); err != nil {
		t.Fatal(err)
	}
	roots, err := ca.ReadCertificates(filepath.Join(s.Dir, "ca", "root.crt"))
	if err != nil {
		t.Fatal(err)
	}
	return leaf, resp.GetReference(), issuing, roots[0]
}

func ask(t *testing.T, method, address string, body []byte, kind string) (int, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, address, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", kind)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	der, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	// An error is five octets long, and is not to be kept by what is on the way.
	if kept := strings.Contains(resp.Header.Get("Cache-Control"), "max-age"); resp.Header.Get("Content-Type") == "application/ocsp-response" && kept != (len(der) > 5) {
		t.Errorf("an answer of %d octets may be kept: %v", len(der), kept)
	}
	return resp.StatusCode, der
}

// TestOCSP asks by both ways of RFC 6960, A.1, for a certificate that is good, is
// revoked, was never issued, and is of somebody else.
func TestOCSP(t *testing.T) {
	s := start(t, stub.Options{})
	leaf, serial, issuing, _ := issuedHere(t, s, 1)
	if len(leaf.OCSPServer) != 1 {
		t.Fatalf("OCSP URLs %v", leaf.OCSPServer)
	}
	status := func(cert, by *x509.Certificate) *ocsp.Response {
		t.Helper()
		request, err := ocsp.CreateRequest(cert, by, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, posted := ask(t, http.MethodPost, leaf.OCSPServer[0], request, "application/ocsp-request")
		_, got := ask(t, http.MethodGet, leaf.OCSPServer[0]+"/"+url.PathEscape(base64.StdEncoding.EncodeToString(request)), nil, "")
		first, err := ocsp.ParseResponseForCert(posted, cert, issuing)
		if err != nil {
			t.Fatal(err)
		}
		second, err := ocsp.ParseResponseForCert(got, cert, issuing)
		if err != nil || second.Status != first.Status {
			t.Fatalf("GET gives %v, %v, POST %v", second, err, first)
		}
		return first
	}
	good := status(leaf, issuing)
	if life := good.NextUpdate.Sub(good.ThisUpdate); good.Status != ocsp.Good || life < 8*time.Hour || life > 10*24*time.Hour || good.Certificate == nil {
		t.Errorf("answer %+v, want good", good)
	}
	if _, err := s.Admin.Revoke(t.Context(), &controlv1.RevokeRequest{Serial: serial, Reason: "keyCompromise"}); err != nil {
		t.Fatal(err)
	}
	if revoked := status(leaf, issuing); revoked.Status != ocsp.Revoked || revoked.RevocationReason != ocsp.KeyCompromise || time.Since(revoked.RevokedAt) > time.Hour {
		t.Errorf("answer %+v, want revoked", revoked)
	}
	never := *leaf
	never.SerialNumber = new(big.Int).Add(leaf.SerialNumber, big.NewInt(1))
	if unknown := status(&never, issuing); unknown.Status != ocsp.Unknown {
		t.Errorf("answer %+v of a number that was never given away", unknown)
	}
	request, err := ocsp.CreateRequest(leaf, leaf, nil)
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		body, want []byte
	}{"another CA": {request, ocsp.UnauthorizedErrorResponse}, "rubbish": {[]byte("x"), ocsp.MalformedRequestErrorResponse}} {
		if code, got := ask(t, http.MethodPost, leaf.OCSPServer[0], c.body, "application/ocsp-request"); code != http.StatusOK || !bytes.Equal(got, c.want) {
			t.Errorf("%s: %d, %x", what, code, got)
		}
	}
	for address, method := range map[string]string{"": http.MethodGet, "/%%%": http.MethodGet, "/x y": http.MethodPost} {
		if code, _ := ask(t, method, strings.ReplaceAll(leaf.OCSPServer[0]+address, "%%%", "%25"), nil, ""); code != http.StatusBadRequest {
			t.Errorf("%s %q gives %d", method, address, code)
		}
	}
	if code, _ := ask(t, http.MethodPost, leaf.OCSPServer[0], make([]byte, 1<<20), "application/ocsp-request"); code != http.StatusBadRequest {
		t.Errorf("a huge request gives %d", code)
	}
}

// TestRevocationByOpenSSL has OpenSSL judge the responder and the revocation list,
// before and after a revocation; zlint and the standard library judge the list too.
func TestRevocationByOpenSSL(t *testing.T) {
	s := start(t, stub.Options{})
	leaf, serial, issuing, root := issuedHere(t, s, 1)
	program, err := exec.LookPath("openssl")
	if err != nil {
		if os.Getenv("SMIME_AGENT_REQUIRE") != "" {
			t.Fatal(err)
		}
		t.Skip("openssl is not installed")
	}
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	write := func(name string, data []byte) {
		if err := os.WriteFile(path(name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("leaf.pem", ca.EncodeCertificates(leaf))
	write("issuing.pem", ca.EncodeCertificates(issuing))
	write("root.pem", ca.EncodeCertificates(root))
	openssl := func(args ...string) (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
		return string(out), err
	}
	for _, want := range []string{"good", "revoked"} {
		out, err := openssl("ocsp", "-issuer", path("issuing.pem"), "-cert", path("leaf.pem"), "-url", leaf.OCSPServer[0], "-CAfile", path("root.pem"), "-no_nonce")
		if err != nil || !strings.Contains(out, "Response verify OK") || !strings.Contains(out, "leaf.pem: "+want) {
			t.Errorf("openssl ocsp wants %s: %v\n%s", want, err, out)
		}
		list := fetch(t, leaf.CRLDistributionPoints[0])
		judgeList(t, list, issuing)
		write("list.der", list)
		if out, err := openssl("crl", "-inform", "DER", "-in", path("list.der"), "-CAfile", path("issuing.pem"), "-noout"); err != nil || !strings.Contains(out, "verify OK") {
			t.Errorf("openssl crl: %v\n%s", err, out)
		}
		if out, err := openssl("crl", "-inform", "DER", "-in", path("list.der"), "-out", path("list.pem")); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		out, err = openssl("verify", "-crl_check", "-CRLfile", path("list.pem"), "-CAfile", path("root.pem"), "-untrusted", path("issuing.pem"), path("leaf.pem"))
		if (err == nil) != (want == "good") || want == "revoked" && !strings.Contains(out, "certificate revoked") {
			t.Errorf("openssl verify wants %s: %v\n%s", want, err, out)
		}
		if _, err := s.Admin.Revoke(t.Context(), &controlv1.RevokeRequest{Serial: serial, Reason: "superseded"}); err != nil {
			t.Fatal(err)
		}
	}
}

// judgeList has zlint look at a list, and looks itself at what BR 4.9.7 and 7.2.2 want.
func judgeList(t *testing.T, der []byte, issuing *x509.Certificate) {
	t.Helper()
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		t.Fatal(err)
	}
	if err := list.CheckSignatureFrom(issuing); err != nil {
		t.Error(err)
	}
	if life := list.NextUpdate.Sub(list.ThisUpdate); life > 10*24*time.Hour || list.Number.Sign() <= 0 {
		t.Errorf("list of %v, number %v", life, list.Number)
	}
	parsed, err := zx509.ParseRevocationList(der)
	if err != nil {
		t.Fatal(err)
	}
	for name, result := range zlint.LintRevocationList(parsed).Results {
		if result.Status >= zlintlint.Warn {
			t.Errorf("zlint: %s: %v %s", name, result.Status, result.Details)
		}
	}
}

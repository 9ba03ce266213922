package stub_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/ca"
	"smime-agent/server-stub/stub"
)

// administratorOf makes a certificate, and a client that has it.
func administratorOf(t *testing.T, s *stub.Server, c *clock, name string) (tls.Certificate, controlv1.AdminServiceClient) {
	t.Helper()
	key := p256(t)
	cert, err := s.Transport.IssueIdentity(ca.AdminRole, name, &key.PublicKey, c.now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	identity := tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
	conn, err := s.Dial(&identity)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return identity, controlv1.NewAdminServiceClient(conn)
}

// TestAdministratorRevoked: a certificate that was revoked is refused at once, on an
// open connection too, for calls, streams and the web page; the next one of the same
// name is taken; and the audit log says who did it.
func TestAdministratorRevoked(t *testing.T) {
	c := &clock{}
	s := start(t, stub.Options{AdminWeb: "0.0.0.0:0", Now: c.now})
	identity, bob := administratorOf(t, s, c, "bob")
	use := func(c controlv1.AdminServiceClient) error {
		_, err := c.ListTokens(t.Context(), &controlv1.ListTokensRequest{})
		return err
	}
	if err := use(bob); err != nil {
		t.Fatal(err)
	}
	if code := pageAs(t, s, identity); code != http.StatusOK {
		t.Errorf("the page gives %d", code)
	}
	_, err := s.Admin.RevokeAdministrator(t.Context(), &controlv1.RevokeAdministratorRequest{Name: "bob"})
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("without a reason: %v", err)
	}
	_, err = s.Admin.RevokeAdministrator(t.Context(), &controlv1.RevokeAdministratorRequest{Name: "bob", Serial: "00", Reason: "x"})
	if status.Code(err) != codes.NotFound {
		t.Errorf("of a number that is none: %v", err)
	}
	list, err := s.Admin.ListAdministrators(t.Context(), &controlv1.ListAdministratorsRequest{})
	if err != nil || len(list.GetAdministrators()) != 2 {
		t.Fatalf("%v, %v, want the two that were used", list, err)
	}
	_, err = s.Admin.RevokeAdministrator(t.Context(), &controlv1.RevokeAdministratorRequest{Name: "bob", Reason: "laptop lost"})
	if err != nil {
		t.Fatal(err)
	}
	wantReason(t, use(bob), "IDENTITY_REQUIRED")
	stream, err := bob.ListLedger(t.Context(), &controlv1.ListLedgerRequest{})
	if err == nil {
		_, err = stream.Recv()
	}
	wantReason(t, err, "IDENTITY_REQUIRED")
	if code := pageAs(t, s, identity); code != http.StatusForbidden {
		t.Errorf("the page gives %d", code)
	}
	if err := use(s.Admin); err != nil {
		t.Errorf("another administrator: %v", err)
	}
	c.advance(time.Second) // a number says the millisecond in which it was made
	if _, again := administratorOf(t, s, c, "bob"); use(again) != nil {
		t.Error("the new certificate is refused")
	}
	text, err := os.ReadFile(filepath.Join(s.Dir, "audit.log"))
	if want := `"msg":"RevokeAdministrator","code":"OK","role":"admin","by":"first"`; err != nil || !strings.Contains(string(text), want) ||
		!strings.Contains(string(text), `"administrator":"bob","serial":"","reason":"laptop lost"`) {
		t.Errorf("no audit line, %v:\n%s", err, text)
	}
}

// pageAs asks for the administrators' page, and gives the status.
func pageAs(t *testing.T, s *stub.Server, identity tls.Certificate) int {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.CAPEM)
	port := s.AdminAddr[strings.LastIndex(s.AdminAddr, ":")+1:]
	client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: roots, Certificates: []tls.Certificate{identity},
	}, DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://localhost:"+port, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	if err := resp.Body.Close(); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode
}

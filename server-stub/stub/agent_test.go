package stub_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/store/pgtest"
	"smime-agent/server-stub/stub"
)

// start runs a server that ends with the test.
func start(t testing.TB, o stub.Options) *stub.Server {
	t.Helper()
	if cluster := pgtest.FromEnv(); cluster != nil && o.Postgres == "" {
		o.Postgres = cluster.Database(t)
	}
	s, err := stub.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

func token(t testing.TB, s *stub.Server, req *controlv1.CreateTokenRequest) string {
	t.Helper()
	text, err := s.Token(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func p256(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// rsaKeys makes each size once: generating is most of such a test's time.
var rsaKeys = func() func(bits int) (*rsa.PrivateKey, error) {
	var mu sync.Mutex
	made := map[int]*rsa.PrivateKey{}
	return func(bits int) (*rsa.PrivateKey, error) {
		mu.Lock()
		defer mu.Unlock()
		if key := made[bits]; key != nil {
			return key, nil
		}
		key, err := rsa.GenerateKey(rand.Reader, bits)
		made[bits] = key
		return key, err
	}
}()

func csr(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// device is a machine that joined.
type device struct {
	controlv1.ControlServiceClient
	id   string
	key  *ecdsa.PrivateKey
	conn *grpc.ClientConn
}

// join joins with the token and connects as the device.
func join(t testing.TB, s *stub.Server, token string) *device {
	t.Helper()
	key := p256(t)
	resp, err := joinWith(t.Context(), s, &controlv1.JoinRequest{Token: token, Csr: csr(t, key)})
	if err != nil {
		t.Fatal(err)
	}
	return connect(t, s, resp.GetDeviceId(), key, resp.GetChain())
}

func joinWith(ctx context.Context, s *stub.Server, req *controlv1.JoinRequest) (*controlv1.JoinResponse, error) {
	conn, err := s.Dial(nil)
	if err != nil {
		return nil, err
	}
	resp, err := controlv1.NewControlServiceClient(conn).Join(ctx, req)
	return resp, errors.Join(err, conn.Close())
}

func connect(t testing.TB, s *stub.Server, id string, key *ecdsa.PrivateKey, chain [][]byte) *device {
	t.Helper()
	conn, err := s.Dial(&tls.Certificate{Certificate: chain, PrivateKey: key})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &device{ControlServiceClient: controlv1.NewControlServiceClient(conn), id: id, key: key, conn: conn}
}

// alice is the user of the first policy.
func alice() *controlv1.UserPresence {
	return &controlv1.UserPresence{User: "uid:1000", Account: "alice", Present: true}
}

func (d *device) syncAs(t testing.TB, users ...*controlv1.UserPresence) *controlv1.SyncResponse {
	t.Helper()
	resp, err := d.Sync(t.Context(), &controlv1.SyncRequest{Users: users})
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func submission(id string, csr []byte) *controlv1.SubmitRequest {
	return &controlv1.SubmitRequest{
		EnrollmentId: id, Csr: csr, Profile: "employee-dual", User: "uid:1000",
		Mailboxes: []string{"alice@example.com"}, Store: "nss:default", Protection: "software", Reason: "first",
	}
}

func issued(t testing.TB, outcome *controlv1.CollectResponse) *x509.Certificate {
	t.Helper()
	chain := outcome.GetIssued().GetChain()
	if len(chain) != 2 {
		t.Fatalf("outcome %v has no chain of two", outcome)
	}
	cert, err := x509.ParseCertificate(chain[0])
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// reasonOf gives the reason of google.rpc.ErrorInfo, or "" without one.
func reasonOf(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() == "smime-agent" {
			return info.GetReason()
		}
	}
	return ""
}

func wantReason(t testing.TB, err error, want string) {
	t.Helper()
	if got := reasonOf(err); got != want {
		t.Errorf("reason %q, want %q (error: %v)", got, want, err)
	}
}

func enrollmentID(n int) string { return fmt.Sprintf("smime-0190a5c0-0000-7000-8000-%012d", n) }

// onList fetches the revocation list as any mail program would, and checks it.
func onList(t testing.TB, leaf *x509.Certificate) bool {
	t.Helper()
	issuer, err := x509.ParseCertificate(fetch(t, leaf.IssuingCertificateURL[0]))
	if err != nil {
		t.Fatal(err)
	}
	list, err := x509.ParseRevocationList(fetch(t, leaf.CRLDistributionPoints[0]))
	if err != nil {
		t.Fatal(err)
	}
	if err := list.CheckSignatureFrom(issuer); err != nil {
		t.Fatal(err)
	}
	for _, entry := range list.RevokedCertificateEntries {
		if entry.SerialNumber.Cmp(leaf.SerialNumber) == 0 {
			return true
		}
	}
	return false
}

func fetch(t testing.TB, url string) []byte {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status, err)
	}
	return body
}

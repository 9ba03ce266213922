package stub_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/authority"
	"smime-agent/server-stub/server"
	"smime-agent/server-stub/stub"
)

// otherCA is a CA that issues at the second question, and refuses who is called Mallory.
type otherCA struct {
	root *x509.Certificate
	key  *ecdsa.PrivateKey

	mu    sync.Mutex
	asked map[string]int
}

func newOtherCA(t testing.TB) *otherCA {
	t.Helper()
	key := p256(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Other CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(1000 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	root, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &otherCA{root: root, key: key, asked: map[string]int{}}
}

func (o *otherCA) Submit(ctx context.Context, order authority.Order) (authority.Answer, error) {
	return o.Collect(ctx, order)
}

func (o *otherCA) Collect(_ context.Context, order authority.Order) (authority.Answer, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked[order.Mailboxes[0]]++
	switch {
	case strings.HasPrefix(order.Mailboxes[0], "mallory"):
		return authority.Answer{}, authority.ErrRefused
	case o.asked[order.Mailboxes[0]] < 2:
		return authority.Answer{RetryAfter: time.Millisecond}, nil
	}
	leaf, err := o.issue(order.Key, order.Mailboxes)
	return authority.Answer{Chain: []*x509.Certificate{leaf}}, err
}

func (o *otherCA) issue(key crypto.PublicKey, mailboxes []string) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(0x1234), Subject: pkix.Name{CommonName: "Alice"}, EmailAddresses: mailboxes,
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(900 * time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection},
	}, o.root, key, o.key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func (*otherCA) Revoke(context.Context, *x509.Certificate, string) error {
	return authority.ErrUnsupported
}

func (o *otherCA) Chain(context.Context) ([]*x509.Certificate, error) {
	return []*x509.Certificate{o.root}, nil
}

func externalPolicy(approval string) string {
	return policyOf(approval, "new-key") + "profiles:\n  employee-dual: {ca: est}\n"
}

// TestOtherCA has a certificate come from a CA beside the server's own, first
// at once and then after an administrator's approval.
func TestOtherCA(t *testing.T) {
	for _, approval := range []string{"auto", "administrator"} {
		o := newOtherCA(t)
		people := heading + "alice,alice@example.com,Alice,Example,,Sales\nmallory,mallory@example.com,Mallory,Example,,Sales\n"
		s := start(t, stub.Options{
			PolicyYAML: externalPolicy(approval), PeopleCSV: people,
			Externals: map[string]server.External{"est": {Authority: o, Anchors: [][]byte{o.root.Raw}}},
		})
		d := admittedDevice(t, s, alice(), &controlv1.UserPresence{User: "uid:1001", Account: "mallory"})
		if n := len(d.syncAs(t, alice()).GetPolicy().GetAnchors()); n != 2 {
			t.Errorf("%d anchors, want both CAs'", n)
		}
		d.syncAs(t, alice(), &controlv1.UserPresence{User: "uid:1001", Account: "mallory"})
		key := p256(t)
		got := settledBy(t, s, d, submission(enrollmentID(1), csr(t, key)), approval)
		chain := got.GetIssued().GetChain()
		if len(chain) != 1 {
			t.Fatalf("outcome %v, want the other CA's certificate", got)
		}
		leaf, err := x509.ParseCertificate(chain[0])
		if err != nil || leaf.CheckSignatureFrom(o.root) != nil || !key.PublicKey.Equal(leaf.PublicKey) {
			t.Errorf("certificate %v, %v", leaf, err)
		}
		entry := ledger(t, s)[0]
		if entry.GetSerial() != "1234" || entry.GetCa() != "Other CA" || entry.GetReference() == "1234" {
			t.Errorf("ledger entry %v", entry)
		}
		shown, err := s.Admin.GetCertificate(t.Context(), &controlv1.GetCertificateRequest{Serial: entry.GetReference()})
		if err != nil {
			t.Fatal(err)
		}
		// Another CA's beginnings are its own matter; nothing happens before it is asked for, or later than now.
		lines := shown.GetHistory()
		if len(lines) < 2 || lines[0].GetCode() != "submitted" || lines[1].GetCode() != "issued" || lines[1].GetAt().AsTime().After(time.Now()) {
			t.Errorf("history %v", lines)
		}
		_, err = s.Admin.Revoke(t.Context(), &controlv1.RevokeRequest{Serial: entry.GetReference(), Reason: "superseded"})
		if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "revoke it there") {
			t.Errorf("revoke gives %v", err)
		}
		refused := settledBy(t, s, d, submissionFor(2, "uid:1001", "mallory@example.com", csr(t, p256(t))), approval)
		if refused.GetRefused() == nil {
			t.Errorf("outcome %v, want refused", refused)
		}
	}
}

// settledBy submits, approves where that is asked for, and collects until it is settled.
func settledBy(t *testing.T, s *stub.Server, d *device, req *controlv1.SubmitRequest, approval string) *controlv1.CollectResponse {
	t.Helper()
	got, err := d.Submit(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if approval == "administrator" {
		if got.GetOutcome().GetPending().GetWaitsFor() != "administrator" {
			t.Fatalf("outcome %v, want pending", got.GetOutcome())
		}
		if _, err := s.Admin.DecideRequest(t.Context(), &controlv1.DecideRequestRequest{Reference: got.GetReference(), Approve: true}); err != nil {
			t.Fatal(err)
		}
	}
	for range 500 {
		outcome, err := d.Collect(t.Context(), &controlv1.CollectRequest{Reference: got.GetReference()})
		if err != nil {
			t.Fatal(err)
		}
		if outcome.GetPending() == nil {
			return outcome
		}
		if outcome.GetPending().GetWaitsFor() != "authority" {
			t.Fatalf("outcome %v, want to wait for the authority", outcome)
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("the request is not settled")
	return nil
}

// TestOtherCAUnknown refuses a policy that names a CA that is not set up.
func TestOtherCAUnknown(t *testing.T) {
	s := start(t, stub.Options{})
	_, err := s.Admin.ApplyPolicy(t.Context(), &controlv1.ApplyPolicyRequest{PolicyYaml: []byte(externalPolicy("auto")), PeopleCsv: []byte(threePeople)})
	if err == nil || !strings.Contains(err.Error(), "is not set up") {
		t.Errorf("the policy gives %v", err)
	}
}

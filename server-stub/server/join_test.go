package server

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"sync/atomic"
	"testing"
	"time"

	controlv1 "smime-agent/proto/control/v1"
)

// TestJoinAgainAfterRenewal: a device that has renewed its identity and lost it
// joins once more with what it joined with. It gets a certificate that holds, and
// not the first one, whose end was meanwhile put off in the record alone.
func TestJoinAgainAfterRenewal(t *testing.T) {
	var ahead atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	s, _ := atWork(t, Config{Store: records(t), Now: now})
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	token, err := (&admin{Server: s}).CreateToken(t.Context(), &controlv1.CreateTokenRequest{})
	if err != nil {
		t.Fatal(err)
	}
	join := func() (device string, identity *x509.Certificate) {
		t.Helper()
		resp, err := s.Join(t.Context(), &controlv1.JoinRequest{Token: token.GetToken(), Csr: csr})
		if err != nil {
			t.Fatal(err)
		}
		if identity, err = x509.ParseCertificate(resp.GetChain()[0]); err != nil {
			t.Fatal(err)
		}
		return resp.GetDeviceId(), identity
	}
	id, first := join()
	if again, same := join(); again != id || !same.Equal(first) {
		t.Errorf("the same again is device %s with another certificate", again)
	}
	ahead.Store(int64(25 * 24 * time.Hour))
	if _, err := s.RenewIdentity(asDevice(t, id), &controlv1.RenewIdentityRequest{Csr: csr}); err != nil {
		t.Fatal(err)
	}
	ahead.Store(int64(35 * 24 * time.Hour))
	again, identity := join()
	if again != id || now().After(identity.NotAfter) {
		t.Errorf("device %s, %s: an identity that ended at %v", again, id, identity.NotAfter)
	}
}

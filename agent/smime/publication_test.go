package smime

import (
	"crypto/elliptic"
	"crypto/x509"
	"errors"
	"strings"
	"testing"
	"time"
)

// TestOpenSSLVerifiesPublications: the value for the directory is a signature
// over nothing that openssl accepts, by the person, with his chain.
func TestOpenSSLVerifiesPublications(t *testing.T) {
	perKind(t, func(t *testing.T, k keyKind, j judge) {
		der, err := Publish(j.leaf, j.ca.chain(), nil, k.key, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		j.write(t, "value", der)
		j.write(t, "empty", nil)
		j.must(t, "-verify", "-inform", "DER", "-in", "value", "-CAfile", "root.pem", "-purpose", "smimesign", "-content", "empty", "-out", "out", "-signer", "signer.pem")
		if got := j.read(t, "signer.pem"); string(got) != string(encodePEM("CERTIFICATE", j.leaf.Raw)) {
			t.Error("openssl names another signer")
		}
		j.must(t, "-cmsout", "-print", "-inform", "DER", "-in", "value", "-out", "printed")
		said := string(j.read(t, "printed"))
		for _, want := range []string{"eContent: <ABSENT>", "S/MIME Capabilities", "id-smime-aa-encrypKeyPref", "1.3.6.1.4.1.311.16.4", "signingTime", "aes-256-cbc"} {
			if !strings.Contains(said, want) {
				t.Errorf("openssl shows no %s in\n%s", want, said)
			}
		}
	})
}

func TestPublishForAnotherKey(t *testing.T) {
	ca := newAuthority(t, "CA")
	signing, other := newEC(t, elliptic.P256()), newEC(t, elliptic.P256())
	leaf := ca.leaf(t, signing.Public(), func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature })
	encryption := ca.leaf(t, other.Public(), func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyAgreement })
	if _, err := Publish(leaf, ca.chain(), nil, signing, time.Now()); !errors.Is(err, ErrUsage) {
		t.Errorf("a certificate that cannot be encrypted to: %v", err)
	}
	der, err := Publish(leaf, ca.chain(), append([]*x509.Certificate{encryption}, ca.chain()...), signing, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	signed, err := Verify(der, []byte{}, ca.expected())
	if err != nil {
		t.Fatal(err)
	}
	if len(signed.Certificates) != 3 || !signed.Signer.Equal(leaf) {
		t.Errorf("%d certificates, signed by %s", len(signed.Certificates), signed.Signer.Subject)
	}
}

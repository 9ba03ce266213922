package smime

import (
	"crypto"
	"crypto/x509"
	"fmt"
	"time"
)

// Publish makes what a directory holds as userSMIMECertificate (RFC 2798 §2.8):
// a SignedData without content, with the person's chain and what his mail
// program can decrypt. encryptTo is the certificate to encrypt to, with its
// issuers; empty if it is leaf. The signature is over no content at all.
func Publish(leaf *x509.Certificate, issuers, encryptTo []*x509.Certificate, key crypto.Signer, at time.Time) ([]byte, error) {
	preferred := leaf
	if len(encryptTo) > 0 {
		preferred = encryptTo[0]
	}
	if u := preferred.KeyUsage; u != 0 && u&(x509.KeyUsageKeyEncipherment|x509.KeyUsageKeyAgreement) == 0 {
		return nil, fmt.Errorf("%w: encryption", ErrUsage)
	}
	return Sign(nil, leaf, distinct(leaf, issuers, encryptTo), key,
		SignOptions{Detached: true, Time: at, EncryptionCertificate: preferred})
}

// distinct leaves out what would be in the message twice.
func distinct(leaf *x509.Certificate, lists ...[]*x509.Certificate) []*x509.Certificate {
	seen := map[string]bool{string(leaf.Raw): true}
	var all []*x509.Certificate
	for _, list := range lists {
		for _, c := range list {
			if !seen[string(c.Raw)] {
				seen[string(c.Raw)] = true
				all = append(all, c)
			}
		}
	}
	return all
}

package platform

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"
	"slices"
)

// chainLimit bounds the way from a leaf to its anchor; real ones have 2 to 4
// certificates.
const chainLimit = 8

// newestFor picks the certificate for a key that began last.
func newestFor(key crypto.PublicKey, certs []*x509.Certificate) (*x509.Certificate, bool) {
	fit := slices.DeleteFunc(slices.Clone(certs), func(c *x509.Certificate) bool { return !samePublic(key, c.PublicKey) })
	if len(fit) == 0 {
		return nil, false
	}
	return slices.MaxFunc(fit, newer), true
}

// newer compares by beginning, then by end, then by bytes: always the same.
func newer(a, b *x509.Certificate) int {
	if c := a.NotBefore.Compare(b.NotBefore); c != 0 {
		return c
	}
	if c := a.NotAfter.Compare(b.NotAfter); c != 0 {
		return c
	}
	return bytes.Compare(a.Raw, b.Raw)
}

// chainOf puts behind the leaf the issuers that are among certs, in order. It
// judges signatures only: whether the chain is to be believed is not the
// store's business.
func chainOf(leaf *x509.Certificate, certs []*x509.Certificate) []*x509.Certificate {
	chain := []*x509.Certificate{leaf}
	for last := leaf; len(chain) < chainLimit && !bytes.Equal(last.RawIssuer, last.RawSubject); {
		fit := slices.DeleteFunc(slices.Clone(certs), func(c *x509.Certificate) bool {
			return !bytes.Equal(c.RawSubject, last.RawIssuer) || last.CheckSignatureFrom(c) != nil
		})
		if len(fit) == 0 {
			break
		}
		last = slices.MaxFunc(fit, newer)
		chain = append(chain, last)
	}
	return chain
}

// samePublic compares public keys. Their Equal methods take a
// crypto.PublicKey, which is why the assertion is to that very form.
func samePublic(a, b crypto.PublicKey) bool {
	key, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && key.Equal(b)
}

// checkLeaf refuses a chain whose leaf is not for the key.
func checkLeaf(key crypto.PublicKey, chain []*x509.Certificate) error {
	if len(chain) == 0 {
		return errors.New("the chain is empty")
	}
	if !samePublic(key, chain[0].PublicKey) {
		return errors.New("the certificate is not for this key")
	}
	return nil
}

package enroll

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// Bounds of what is looked at in a received chain.
const (
	maxChain       = 8
	maxCertificate = 64 << 10
	// maxLife is BR §6.3.2: 825 days of 86 400 s, both ends counted.
	maxLife = 825 * day
	// lifeSlack lets a CA set notBefore back and count a begun day as a day.
	lifeSlack = day
)

const day = 24 * time.Hour

// ChainRules is what was ordered; [CheckChain] holds a certificate against it.
type ChainRules struct {
	// CSR (DER) whose key the leaf must carry. PublicKey (SubjectPublicKeyInfo,
	// DER) serves instead for a certificate that was found in a store.
	CSR       []byte
	PublicKey []byte
	// Mailboxes must all be in the leaf, and no other.
	Mailboxes []string
	Sign      bool
	Encrypt   bool
	// MaxValidity is the longest life that was ordered; 0 means the 825 days of
	// the Baseline Requirements, which are never exceeded.
	MaxValidity time.Duration
	Anchors     [][]byte
	// Now is the server's time; a leaf may begin up to Ahead later.
	Now   time.Time
	Ahead time.Duration
	// Earlier leaves (DER) of this machine: issuer and serial number must not
	// come twice, since old mail names its key by them.
	Earlier [][]byte
}

// ChainError says which check a chain failed.
type ChainError struct {
	// Check is a stable word: "parse", "key", "mailbox", "names", "usage",
	// "policy", "time", "life", "path", "strength", "serial", "subject".
	Check string
	// Passing says that the same chain may pass later: the clock or the anchors
	// may be what is wrong.
	Passing bool
	Err     error
}

func (e *ChainError) Error() string { return "check " + e.Check + ": " + e.Err.Error() }

// Unwrap gives the cause.
func (e *ChainError) Unwrap() error { return e.Err }

func fails(check, format string, args ...any) *ChainError {
	return &ChainError{Check: check, Err: fmt.Errorf(format, args...)}
}

// CheckChain believes nothing: it gives the leaf only if key, mailboxes, names,
// usage, life, strength and path are what was ordered. The error is a
// [*ChainError]. A check that cannot be made counts as failed.
func CheckChain(chain [][]byte, r ChainRules) (*x509.Certificate, error) {
	certs, err := parseChain(chain)
	if err != nil {
		return nil, err
	}
	leaf := certs[0]
	checks := []func(*x509.Certificate, ChainRules) *ChainError{
		checkKey, checkNames, checkUsage, checkPolicies, checkSubject, checkSerial, checkLife, checkTime,
	}
	for _, check := range checks {
		if e := check(leaf, r); e != nil {
			return nil, e
		}
	}
	if e := checkPath(certs, r); e != nil {
		return nil, e
	}
	return leaf, nil
}

func parseChain(chain [][]byte) ([]*x509.Certificate, error) {
	if len(chain) == 0 || len(chain) > maxChain {
		return nil, fails("parse", "%d certificates", len(chain))
	}
	certs := make([]*x509.Certificate, 0, len(chain))
	for i, der := range chain {
		if len(der) > maxCertificate {
			return nil, fails("parse", "certificate %d has %d bytes", i, len(der))
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fails("parse", "certificate %d: %w", i, err)
		}
		certs = append(certs, c)
	}
	return certs, nil
}

// checkKey demands our own key, of a kind that BR §6.1.5 allows.
func checkKey(leaf *x509.Certificate, r ChainRules) *ChainError {
	ours, err := orderedKey(r)
	if err != nil {
		return &ChainError{Check: "key", Err: err}
	}
	if !sameKey(ours, leaf.PublicKey) {
		return fails("key", "the certificate is for another key")
	}
	return checkStrength(leaf)
}

func orderedKey(r ChainRules) (crypto.PublicKey, error) {
	if len(r.CSR) == 0 {
		if len(r.PublicKey) == 0 {
			return nil, errors.New("no key to compare with")
		}
		return x509.ParsePKIXPublicKey(r.PublicKey)
	}
	csr, err := x509.ParseCertificateRequest(r.CSR)
	if err != nil {
		return nil, fmt.Errorf("parse CSR: %w", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("check CSR: %w", err)
	}
	return csr.PublicKey, nil
}

// sameKey is false if the keys cannot be compared. The parameter of Equal is
// crypto.PublicKey: an assertion to Equal(any) would never hold.
func sameKey(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(x crypto.PublicKey) bool })
	return ok && k.Equal(b)
}

// checkStrength refuses keys that BR §6.1.5 does not allow.
func checkStrength(c *x509.Certificate) *ChainError {
	switch k := c.PublicKey.(type) {
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n < 2048 || n%8 != 0 {
			return fails("strength", "RSA key of %d bits", n)
		}
		if k.E < 3 || k.E%2 == 0 {
			return fails("strength", "RSA exponent %d", k.E)
		}
		return nil
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
			return nil
		}
		return fails("strength", "curve %s", k.Curve.Params().Name)
	default:
		// Ed25519 is allowed by the BR, but no profile orders it and no mail
		// program that we set up knows it.
		return fails("strength", "key of type %T", c.PublicKey)
	}
}

// checkSerial: BR §7.1 wants 64 random bits; fewer than 8 octets cannot hold them.
func checkSerial(leaf *x509.Certificate, r ChainRules) *ChainError {
	if leaf.SerialNumber.Sign() <= 0 || len(leaf.SerialNumber.Bytes()) < 8 {
		return fails("serial", "serial number of %d bits", leaf.SerialNumber.BitLen())
	}
	for _, der := range r.Earlier {
		if bytes.Equal(der, leaf.Raw) {
			continue
		}
		c, err := x509.ParseCertificate(der)
		if err == nil && c.SerialNumber.Cmp(leaf.SerialNumber) == 0 && bytes.Equal(c.RawIssuer, leaf.RawIssuer) {
			return fails("serial", "serial number was used before")
		}
	}
	return nil
}

func checkLife(leaf *x509.Certificate, r ChainRules) *ChainError {
	// RFC 5280 §4.1.2.5: both ends belong to the life.
	life := leaf.NotAfter.Sub(leaf.NotBefore) + time.Second
	ordered := maxLife
	if r.MaxValidity > 0 {
		ordered = min(ordered, r.MaxValidity+lifeSlack)
	}
	if life <= time.Second || life > ordered {
		return fails("life", "valid for %s, ordered %s", life, ordered)
	}
	return nil
}

func checkTime(leaf *x509.Certificate, r ChainRules) *ChainError {
	var err error
	switch {
	case r.Now.IsZero():
		err = errors.New("no time to compare with")
	case r.Now.Add(r.Ahead).Before(leaf.NotBefore):
		err = fmt.Errorf("valid only from %s", leaf.NotBefore.Format(time.RFC3339))
	case r.Now.After(leaf.NotAfter):
		err = fmt.Errorf("ended at %s", leaf.NotAfter.Format(time.RFC3339))
	default:
		return nil
	}
	return &ChainError{Check: "time", Passing: true, Err: err}
}

// checkPath builds a path to an anchor of policy; what the chain itself calls
// a root is no anchor.
func checkPath(certs []*x509.Certificate, r ChainRules) *ChainError {
	leaf := certs[0]
	roots, issuers := x509.NewCertPool(), x509.NewCertPool()
	for _, der := range r.Anchors {
		if c, err := x509.ParseCertificate(der); err == nil {
			roots.AddCert(c)
		}
	}
	for _, c := range certs[1:] {
		issuers.AddCert(c)
	}
	at := r.Now
	if leaf.NotBefore.After(at) {
		at = leaf.NotBefore // within Ahead, or checkTime had refused
	}
	paths, err := leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: issuers, CurrentTime: at,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection},
	})
	if err != nil {
		return &ChainError{Check: "path", Passing: true, Err: err}
	}
	var weak *ChainError
	for _, path := range paths {
		if weak = checkSignatures(path); weak == nil {
			return nil
		}
	}
	return weak
}

// checkSignatures refuses weak links; an anchor's own signature proves nothing.
func checkSignatures(path []*x509.Certificate) *ChainError {
	if len(path) < 2 {
		return fails("path", "the certificate is its own anchor")
	}
	for _, c := range path {
		if e := checkStrength(c); e != nil {
			return e
		}
	}
	for _, c := range path[:len(path)-1] {
		switch c.SignatureAlgorithm {
		case x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA,
			x509.SHA256WithRSAPSS, x509.SHA384WithRSAPSS, x509.SHA512WithRSAPSS,
			x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512:
		default:
			return fails("strength", "signed with %s", c.SignatureAlgorithm)
		}
	}
	return nil
}

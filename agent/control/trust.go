package control

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// maxChain bounds every certificate chain that is looked at.
const maxChain = 10

// trust decides whether a server is the one that the deployment means. There is
// no trust on first use and no switch to leave the check out.
type trust struct {
	roots *x509.CertPool // nil without anchors
	pins  map[Pin]bool
	host  string
	now   func() time.Time
}

// untrustedError is a server that is not believed.
type untrustedError struct {
	host string
	// leaf is what the server showed; nil if nothing.
	leaf *x509.Certificate
	err  error
}

func (e *untrustedError) Error() string {
	if e.leaf == nil {
		return fmt.Sprintf("certificate of %s: %v", e.host, e.err)
	}
	return fmt.Sprintf("certificate of %s (issued by %q, key %s): %v", e.host, e.leaf.Issuer, pinOf(e.leaf), e.err)
}

func (e *untrustedError) Unwrap() error { return e.err }

// outOfTime says that the certificate would do at another time.
func (e *untrustedError) outOfTime() bool {
	invalid, ok := errors.AsType[x509.CertificateInvalidError](e.err)
	return ok && invalid.Reason == x509.Expired
}

func newTrust(anchors []byte, pins []Pin, host string, now func() time.Time) (*trust, error) {
	t := &trust{pins: map[Pin]bool{}, host: host, now: now}
	for rest := anchors; len(strings.TrimSpace(string(rest))) > 0; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil, errors.New("the file of the CA's certificate is not PEM")
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil || block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("a block of type %q in the file of the CA's certificate is no certificate: %w", block.Type, err)
		}
		if t.roots == nil {
			t.roots = x509.NewCertPool()
		}
		t.roots.AddCert(cert)
	}
	for _, pin := range pins {
		t.pins[pin] = true
	}
	if t.roots == nil && len(t.pins) == 0 {
		return nil, errors.New("neither an anchor nor a pin is set")
	}
	return t, nil
}

// Pin is the SHA-256 of a SubjectPublicKeyInfo (DER).
type Pin [sha256.Size]byte

// String writes the pin as RFC 7469 §2.1.1 does, and as settings have it.
func (p Pin) String() string { return "sha256/" + base64.StdEncoding.EncodeToString(p[:]) }

func pinOf(cert *x509.Certificate) Pin { return sha256.Sum256(cert.RawSubjectPublicKeyInfo) }

// verify is the one check of the server. It runs for resumed sessions too.
func (t *trust) verify(state tls.ConnectionState) error {
	certs := state.PeerCertificates
	if len(certs) == 0 || len(certs) > maxChain {
		return &untrustedError{host: t.host, err: fmt.Errorf("%d certificates", len(certs))}
	}
	if err := t.check(certs); err != nil {
		return &untrustedError{host: t.host, leaf: certs[0], err: err}
	}
	return nil
}

func (t *trust) check(certs []*x509.Certificate) error {
	leaf, roots := certs[0], t.roots
	if roots == nil {
		if t.pinned(leaf) {
			// The key itself is pinned: no name and no issuer can add to that.
			return inTime(leaf, t.now())
		}
		if roots = t.pinnedOf(certs[1:]); roots == nil {
			return errors.New("no key of the chain is pinned")
		}
	}
	o := x509.VerifyOptions{
		DNSName: t.host, Roots: roots, Intermediates: x509.NewCertPool(), CurrentTime: t.now(),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, c := range certs[1:] {
		o.Intermediates.AddCert(c)
	}
	chains, err := leaf.Verify(o)
	if err != nil {
		return err
	}
	if len(t.pins) > 0 && !t.anyPinned(chains) {
		return errors.New("no key of the chain is pinned, though the anchor is right")
	}
	return nil
}

func (t *trust) pinned(cert *x509.Certificate) bool {
	return t.pins[pinOf(cert)]
}

func (t *trust) anyPinned(chains [][]*x509.Certificate) bool {
	return slices.ContainsFunc(chains, func(chain []*x509.Certificate) bool {
		return slices.ContainsFunc(chain, t.pinned)
	})
}

// pinnedOf gives the pinned CAs among certs as anchors, nil if there is none.
func (t *trust) pinnedOf(certs []*x509.Certificate) *x509.CertPool {
	var pool *x509.CertPool
	for _, cert := range certs {
		// Go takes an anchor as it is; a pinned server key is no CA.
		if !t.pinned(cert) || !cert.IsCA || !cert.BasicConstraintsValid {
			continue
		}
		if pool == nil {
			pool = x509.NewCertPool()
		}
		pool.AddCert(cert)
	}
	return pool
}

func inTime(cert *x509.Certificate, now time.Time) error {
	if now.Before(cert.NotBefore) || now.After(cert.NotAfter) {
		return x509.CertificateInvalidError{Cert: cert, Reason: x509.Expired, Detail: fmt.Sprintf("it is %s", now.UTC().Format(time.RFC3339))}
	}
	return nil
}

// tlsConfig presents cert, if there is one, whatever CAs the server names: it
// decides, even about a certificate that has ended.
func (t *trust) tlsConfig(cert *tls.Certificate, sessions tls.ClientSessionCache) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		ServerName: t.host,
		NextProtos: []string{"h2"},
		// The library's check knows no pins. verify takes its place, for
		// anchors and pins alike, and is called for every connection.
		InsecureSkipVerify: true, //nolint:gosec // see above
		VerifyConnection:   t.verify,
		ClientSessionCache: sessions,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if cert == nil {
				return &tls.Certificate{}, nil
			}
			return cert, nil
		},
	}
}

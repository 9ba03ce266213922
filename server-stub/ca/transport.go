package ca

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"
)

// Role is what a transport certificate's holder is.
type Role string

// The roles, as they stand in the URI of the subjectAltName.
const (
	DeviceRole Role = "device"
	AdminRole  Role = "admin"
)

// serverBackdate lets a machine whose clock runs far behind still reach the
// server, which tells it the time.
const serverBackdate = 365 * 24 * time.Hour

const identityScheme = "smime-agent"

// ErrIdentity: the certificate names no device and no administrator of ours.
var ErrIdentity = errors.New("the client certificate is not an identity of this server")

// Identity is who stands behind a client certificate.
type Identity struct {
	Role Role
	// Name is a device's ID or an administrator's name.
	Name string
	// Ends is when the certificate does.
	Ends time.Time
	// Serial is its number.
	Serial Serial
}

// Transport is the CA of the TLS identities. Its methods may be called by many at once.
type Transport struct {
	Pair
	serials Serials
	roots   *x509.CertPool
}

// FoundTransport makes a transport CA.
func FoundTransport(organization string, now time.Time) (*Transport, error) {
	key, err := newKey(false, 0)
	if err != nil {
		return nil, err
	}
	template := caTemplate(new(Serials).Next(now), Founding{Organization: organization, Now: now}, "Transport CA", transportLife)
	template.Subject.Country = nil
	template.NotBefore = template.NotBefore.Add(-serverBackdate)
	template.MaxPathLen, template.MaxPathLenZero = 0, true
	pair, err := selfSign(template, key)
	if err != nil {
		return nil, err
	}
	return NewTransport(pair), nil
}

// NewTransport readies a transport CA that there is already.
func NewTransport(pair Pair) *Transport {
	t := &Transport{Pair: pair, roots: x509.NewCertPool()}
	t.roots.AddCert(pair.Cert)
	return t
}

// Roots is the pool with this CA alone.
func (t *Transport) Roots() *x509.CertPool { return t.roots }

// Pin is the SHA-256 of the CA's SubjectPublicKeyInfo as agents take it in
// their settings: "sha256/" and Base64 (RFC 7469 §2.1.1).
func (t *Transport) Pin() string {
	sum := sha256.Sum256(t.Cert.RawSubjectPublicKeyInfo)
	return "sha256/" + base64.StdEncoding.EncodeToString(sum[:])
}

// IssueIdentity signs the certificate of a device or an administrator. The key
// must be one that the holder has proved to have.
func (t *Transport) IssueIdentity(role Role, name string, public crypto.PublicKey, now time.Time, life time.Duration) (*x509.Certificate, error) {
	template := t.leaf(name, now, life)
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	template.URIs = []*url.URL{{Scheme: identityScheme, Host: string(role), Path: "/" + name}}
	return signCertificate(template, t.Pair, public)
}

// IssueServer signs the server's own TLS certificate for names and addresses.
func (t *Transport) IssueServer(hosts []string, public crypto.PublicKey, now time.Time, life time.Duration) (*x509.Certificate, error) {
	if len(hosts) == 0 {
		return nil, errors.New("sign server certificate: no host is named")
	}
	template := t.leaf(hosts[0], now, life)
	template.NotBefore = template.NotBefore.Add(-serverBackdate)
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	return signCertificate(template, t.Pair, public)
}

func (t *Transport) leaf(name string, now time.Time, life time.Duration) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: t.serials.Next(now).Int(),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    now.Add(-Backdate).UTC().Truncate(time.Second),
		NotAfter:     now.Add(life).UTC().Truncate(time.Second),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
}

// Identify tells whose certificate it is, by signature, use and name. Its time
// is not judged here: an ended identity may still be renewed. Anything else is
// [ErrIdentity].
func (t *Transport) Identify(cert *x509.Certificate) (Identity, error) {
	_, err := cert.Verify(x509.VerifyOptions{
		Roots: t.roots, CurrentTime: cert.NotBefore, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return Identity{}, fmt.Errorf("%w: %w", ErrIdentity, err)
	}
	return identityOf(cert)
}

func identityOf(cert *x509.Certificate) (Identity, error) {
	if len(cert.URIs) != 1 || cert.URIs[0].Scheme != identityScheme {
		return Identity{}, ErrIdentity
	}
	role, name := Role(cert.URIs[0].Host), strings.TrimPrefix(cert.URIs[0].Path, "/")
	if role != DeviceRole && role != AdminRole || name == "" {
		return Identity{}, ErrIdentity
	}
	id := Identity{Role: role, Name: name, Ends: cert.NotAfter}
	if cert.SerialNumber.BitLen() > 8*SerialSize {
		return Identity{}, ErrIdentity
	}
	cert.SerialNumber.FillBytes(id.Serial[:])
	return id, nil
}

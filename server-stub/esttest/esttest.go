// Package esttest is an EST server for tests, written by the text of RFC 7030,
// with faults on request. It shares no code with our client: its messages are
// made by encoding/asn1.
package esttest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// User and Password sign in by HTTP Basic.
const (
	User     = "ra"
	Password = "secret"
)

// Elsewhere is the path to which a broken server sends clients; none may go there
// with what it knows.
const Elsewhere = "/elsewhere"

// CA is a certificate with its key.
type CA struct {
	Cert *x509.Certificate
	Key  *ecdsa.PrivateKey
}

// NewCA makes a CA; without an issuer, a root.
func NewCA(name string, by *CA) (CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return CA{}, err
	}
	parent := CA{Key: key}
	if by != nil {
		parent = *by
	}
	cert, err := parent.Sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotAfter: time.Now().Add(1000 * 24 * time.Hour),
	}, key.Public())
	return CA{cert, key}, err
}

// Sign fills in serial number and beginning, and an end in a day where there is none.
func (c CA) Sign(template *x509.Certificate, public crypto.PublicKey) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial.SetBit(serial, 100, 1)
	template.NotBefore = time.Now().Add(-time.Minute)
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(24 * time.Hour)
	}
	parent := c.Cert
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, c.Key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// Server is the EST server.
type Server struct {
	// URL is what a client is configured with.
	URL string
	// Root is the anchor of what it issues, Issuing the CA below it.
	Root, Issuing CA
	// TLS is the server's own certificate; Identity signs a client in.
	TLS      *x509.Certificate
	Identity tls.Certificate

	web        *httptest.Server
	mu         sync.Mutex
	pendings   int
	retryAfter int
	fault      string
	asked      []string
}

// Start listens on the loopback. The caller closes it.
func Start() (*Server, error) {
	s := &Server{}
	var err error
	if s.Root, err = NewCA("EST root", nil); err != nil {
		return nil, err
	}
	if s.Issuing, err = NewCA("EST issuing", &s.Root); err != nil {
		return nil, err
	}
	clients, err := NewCA("RA TLS", nil)
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	ra, err := clients.Sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: "ra"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, key.Public())
	if err != nil {
		return nil, err
	}
	s.Identity = tls.Certificate{Certificate: [][]byte{ra.Raw}, PrivateKey: key}
	pool := x509.NewCertPool()
	pool.AddCert(clients.Cert)
	s.web = httptest.NewUnstartedServer(s)
	s.web.TLS = &tls.Config{ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: pool, MinVersion: tls.VersionTLS12}
	s.web.StartTLS()
	s.URL, s.TLS = s.web.URL+"/.well-known/est", s.web.Certificate()
	return s, nil
}

// Close ends it.
func (s *Server) Close() { s.web.Close() }

// Delay has the next enrollments answered with 202 and this Retry-After, in seconds.
func (s *Server) Delay(times, seconds int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pendings, s.retryAfter = times, seconds
}

// Break has it give a wrong answer from now on; empty ends that.
func (s *Server) Break(fault string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = fault
}

// Asked are method and path of the calls so far.
func (s *Server) Asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

// PEM gives a certificate as a file has it.
func PEM(cert *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
}

// IdentityPEM is the client's certificate and key in one file.
func (s *Server) IdentityPEM() ([]byte, error) {
	key, err := x509.MarshalPKCS8PrivateKey(s.Identity.PrivateKey)
	if err != nil {
		return nil, err
	}
	out := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Identity.Certificate[0]})
	return append(out, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})...), nil
}

// ServeHTTP demands what the RFC demands of a client.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, r.Method+" "+r.URL.Path)
	operation, ok := strings.CutPrefix(r.URL.Path, "/.well-known/est/")
	if !ok {
		http.NotFound(w, r)
		return
	}
	switch operation {
	case "cacerts": // 4.1: GET, no authentication
		if s.fault == "no cacerts" {
			http.Error(w, "no", http.StatusServiceUnavailable)
			return
		}
		s.send(w, s.Issuing.Cert, s.Root.Cert)
	case "simpleenroll", "simplereenroll":
		s.enroll(w, r)
	default:
		http.NotFound(w, r)
	}
}

func (s *Server) enroll(w http.ResponseWriter, r *http.Request) {
	user, password, basic := r.BasicAuth()
	if len(r.TLS.PeerCertificates) == 0 && (!basic || user != User || password != Password) {
		w.Header().Set("WWW-Authenticate", `Basic realm="est"`) // 3.2.3
		http.Error(w, "who are you", http.StatusUnauthorized)
		return
	}
	body, err := io.ReadAll(r.Body)
	der, decodeErr := base64.StdEncoding.DecodeString(string(body))
	if err := errors.Join(err, decodeErr); err != nil || r.Header.Get("Content-Type") != "application/pkcs10" || r.Method != http.MethodPost {
		http.Error(w, "4.2.1", http.StatusBadRequest)
		return
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil || csr.CheckSignature() != nil {
		http.Error(w, "4.2.1: proof of possession", http.StatusBadRequest)
		return
	}
	if s.pendings > 0 { // 4.2.3
		s.pendings--
		w.Header().Set("Retry-After", strconv.Itoa(s.retryAfter))
		w.WriteHeader(http.StatusAccepted)
		return
	}
	if !s.answerWrong(w) {
		s.issue(w, csr)
	}
}

// answerWrong gives the answers that are no certificate.
func (s *Server) answerWrong(w http.ResponseWriter) bool {
	message := func(body []byte) bool {
		w.Header().Set("Content-Type", "application/pkcs7-mime")
		_, _ = w.Write(body)
		return true
	}
	switch s.fault {
	case "HTML":
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, "<html>welcome</html>")
		return true
	case "no base64":
		return message([]byte("§§§"))
	case "no message":
		return message([]byte(base64.StdEncoding.EncodeToString([]byte("nonsense"))))
	case "endless":
		return message(bytes.Repeat([]byte("A"), 3<<20))
	case "redirect":
		w.Header().Set("Location", s.web.URL+Elsewhere)
		w.WriteHeader(http.StatusFound)
		return true
	case "no content":
		w.WriteHeader(http.StatusNoContent)
		return true
	case "refused":
		http.Error(w, "no", http.StatusBadRequest)
		return true
	case "elsewhere": // what a proxy says while the CA behind it is exchanged
		http.NotFound(w, nil)
		return true
	case "slow":
		http.Error(w, "no", http.StatusRequestTimeout)
		return true
	case "down":
		http.Error(w, "no", http.StatusServiceUnavailable)
		return true
	}
	return false
}

func (s *Server) issue(w http.ResponseWriter, csr *x509.CertificateRequest) {
	template := &x509.Certificate{
		Subject: csr.Subject, EmailAddresses: csr.EmailAddresses, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection}, NotAfter: time.Now().Add(2 * 365 * 24 * time.Hour),
	}
	public, by := csr.PublicKey, s.Issuing
	var other CA
	var err error
	if s.fault == "another key" || s.fault == "another root" {
		other, err = NewCA("Evil", nil)
	}
	switch s.fault {
	case "another key":
		public = other.Key.Public()
	case "another root":
		by = other
	case "another mailbox":
		template.EmailAddresses = []string{"boss@example.com"}
	case "one mailbox more":
		template.EmailAddresses = append(template.EmailAddresses, "boss@example.com")
	case "another use":
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	case "for both": // no fault for who ordered it
		template.KeyUsage |= x509.KeyUsageKeyEncipherment
	case "for encryption":
		template.KeyUsage = x509.KeyUsageKeyAgreement
	case "a CA":
		template.IsCA, template.BasicConstraintsValid = true, true
	case "too long":
		template.NotAfter = time.Now().Add(900 * 24 * time.Hour)
	case "a minute too long":
		template.NotAfter = time.Now().Add(825 * 24 * time.Hour) // it began a minute ago
	case "ended":
		template.NotAfter = time.Now().Add(-time.Second)
	}
	cert, signErr := by.Sign(template, public)
	if err := errors.Join(err, signErr); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	s.send(w, cert)
}

// CertsOnly is RFC 5652's SignedData, degenerate, as encoding/asn1 writes it.
func CertsOnly(certs ...*x509.Certificate) ([]byte, error) {
	var all []byte
	for _, c := range certs {
		all = append(all, c.Raw...)
	}
	type content struct {
		Type asn1.ObjectIdentifier
	}
	type signedData struct {
		Version int
		Digests []pkix.AlgorithmIdentifier `asn1:"set"`
		Content content
		Certs   asn1.RawValue
		Signers []asn1.RawValue `asn1:"set"`
	}
	inner, err := asn1.Marshal(signedData{
		Version: 1, Digests: []pkix.AlgorithmIdentifier{}, Content: content{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}},
		Certs: asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: all}, Signers: []asn1.RawValue{},
	})
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(struct {
		Type    asn1.ObjectIdentifier
		Content asn1.RawValue
	}{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: inner}})
}

// send answers with base64 in lines, as 4.1.3 shows it.
func (s *Server) send(w http.ResponseWriter, certs ...*x509.Certificate) {
	der, err := CertsOnly(certs...)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/pkcs7-mime; smime-type=certs-only")
	w.Header().Set("Content-Transfer-Encoding", "base64")
	text := base64.StdEncoding.EncodeToString(der)
	for len(text) > 0 {
		n := min(64, len(text))
		_, _ = io.WriteString(w, text[:n]+"\r\n")
		text = text[n:]
	}
}

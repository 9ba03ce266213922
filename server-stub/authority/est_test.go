package authority_test

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
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"os"

	"smime-agent/server-stub/authority"
)

// pair is a certificate with its key.
type pair struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func key(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func sign(t testing.TB, template *x509.Certificate, public crypto.PublicKey, by pair) *x509.Certificate {
	t.Helper()
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore = time.Now().Add(-time.Minute)
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(24 * time.Hour)
	}
	parent := by.cert
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, by.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func newCA(t testing.TB, name string, by *pair) pair {
	t.Helper()
	k := key(t)
	parent := pair{key: k}
	if by != nil {
		parent = *by
	}
	return pair{sign(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, k.Public(), parent), k}
}

// estServer is an EST server by the text of RFC 7030, with faults on request.
// It shares no code with the client: its messages are made by encoding/asn1.
type estServer struct {
	t       testing.TB
	root    pair
	issuing pair
	clients *x509.CertPool
	// pendings is how often an enrollment is answered with 202 first.
	pendings int
	fault    string
	asked    []string
}

// ServeHTTP demands what the RFC demands of a client.
func (s *estServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.asked = append(s.asked, r.Method+" "+r.URL.Path)
	operation, ok := strings.CutPrefix(r.URL.Path, "/.well-known/est/")
	if !ok {
		http.NotFound(w, r)
		return
	}
	switch operation {
	case "cacerts": // 4.1: GET, no authentication
		s.send(w, s.issuing.cert, s.root.cert)
	case "simpleenroll", "simplereenroll":
		s.enroll(w, r)
	default:
		http.NotFound(w, r)
	}
}

func (s *estServer) enroll(w http.ResponseWriter, r *http.Request) {
	user, password, basic := r.BasicAuth()
	if len(r.TLS.PeerCertificates) == 0 && (!basic || user != "ra" || password != "secret") {
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
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(http.StatusAccepted)
		return
	}
	s.issue(w, csr)
}

func (s *estServer) issue(w http.ResponseWriter, csr *x509.CertificateRequest) {
	template := &x509.Certificate{
		Subject: csr.Subject, EmailAddresses: csr.EmailAddresses, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection},
	}
	public, by := csr.PublicKey, s.issuing
	switch s.fault {
	case "another key":
		public = key(s.t).Public()
	case "another mailbox":
		template.EmailAddresses = []string{"boss@example.com"}
	case "one mailbox more":
		template.EmailAddresses = append(template.EmailAddresses, "boss@example.com")
	case "another use":
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	case "a CA":
		template.IsCA, template.BasicConstraintsValid = true, true
	case "too long":
		template.NotAfter = time.Now().Add(900 * 24 * time.Hour)
	case "ended":
		template.NotAfter = time.Now().Add(-time.Second)
	case "another root":
		by = newCA(s.t, "Evil", nil)
	case "HTML":
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, "<html>welcome</html>")
		return
	case "no base64":
		w.Header().Set("Content-Type", "application/pkcs7-mime")
		_, _ = io.WriteString(w, "§§§")
		return
	case "no message":
		w.Header().Set("Content-Type", "application/pkcs7-mime")
		_, _ = io.WriteString(w, base64.StdEncoding.EncodeToString([]byte("nonsense")))
		return
	case "endless":
		w.Header().Set("Content-Type", "application/pkcs7-mime")
		_, _ = w.Write(bytes.Repeat([]byte("A"), 3<<20))
		return
	case "redirect":
		w.Header().Set("Location", "https://elsewhere.example.com/")
		w.WriteHeader(http.StatusFound)
		return
	case "refused":
		http.Error(w, "no", http.StatusBadRequest)
		return
	case "down":
		http.Error(w, "no", http.StatusServiceUnavailable)
		return
	}
	s.send(w, sign(s.t, template, public, by))
}

// certsOnly is RFC 5652's SignedData, degenerate, as encoding/asn1 writes it.
func certsOnly(t testing.TB, certs ...*x509.Certificate) []byte {
	t.Helper()
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
		t.Fatal(err)
	}
	outer, err := asn1.Marshal(struct {
		Type    asn1.ObjectIdentifier
		Content asn1.RawValue
	}{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: inner}})
	if err != nil {
		t.Fatal(err)
	}
	return outer
}

// send answers with base64 in lines, as 4.1.3 shows it.
func (s *estServer) send(w http.ResponseWriter, certs ...*x509.Certificate) {
	w.Header().Set("Content-Type", "application/pkcs7-mime; smime-type=certs-only")
	w.Header().Set("Content-Transfer-Encoding", "base64")
	text := base64.StdEncoding.EncodeToString(certsOnly(s.t, certs...))
	for len(text) > 0 {
		n := min(64, len(text))
		_, _ = io.WriteString(w, text[:n]+"\r\n")
		text = text[n:]
	}
}

func newEST(t *testing.T) (*estServer, *authority.EST) {
	t.Helper()
	s := &estServer{t: t, root: newCA(t, "EST root", nil), clients: x509.NewCertPool()}
	s.issuing = newCA(t, "EST issuing", &s.root)
	tlsCA := newCA(t, "RA TLS", nil)
	s.clients.AddCert(tlsCA.cert)
	web := httptest.NewUnstartedServer(s)
	web.TLS = &tls.Config{ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: s.clients, MinVersion: tls.VersionTLS12}
	web.StartTLS()
	t.Cleanup(web.Close)
	raKey := key(t)
	ra := sign(t, &x509.Certificate{Subject: pkix.Name{CommonName: "ra"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, raKey.Public(), tlsCA)
	roots, anchors := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(web.Certificate())
	anchors.AddCert(s.root.cert)
	return s, &authority.EST{
		URL: web.URL + "/.well-known/est", ServerRoots: roots, Anchors: anchors,
		Identity: &tls.Certificate{Certificate: [][]byte{ra.Raw}, PrivateKey: raKey},
	}
}

func order(t testing.TB) authority.Order {
	t.Helper()
	k := key(t)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "Alice"}, EmailAddresses: []string{"alice@example.com"},
	}, k)
	if err != nil {
		t.Fatal(err)
	}
	return authority.Order{CSR: der, Key: k.Public(), Mailboxes: []string{"Alice@example.com"}}
}

func TestEST(t *testing.T) {
	s, client := newEST(t)
	s.pendings = 2
	o := order(t)
	answer, err := client.Submit(t.Context(), o)
	if err != nil || answer.Chain != nil || answer.RetryAfter != 7*time.Second {
		t.Fatalf("submit gives %v, %v, want pending for 7 s", answer, err)
	}
	if answer, err = client.Collect(t.Context(), o); err != nil || answer.Chain != nil {
		t.Fatalf("collect gives %v, %v, want pending", answer, err)
	}
	answer, err = client.Collect(t.Context(), o)
	if err != nil || len(answer.Chain) != 2 || !answer.Chain[1].Equal(s.issuing.cert) {
		t.Fatalf("collect gives %v, %v, want leaf and issuing CA", answer, err)
	}
	o.Renewal = true
	if _, err := client.Submit(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if err := client.Revoke(t.Context(), answer.Chain[0], "superseded"); !errors.Is(err, authority.ErrUnsupported) {
		t.Errorf("revoke gives %v", err)
	}
	got := strings.Join(s.asked, "\n")
	if !strings.Contains(got, "/simplereenroll") || strings.Contains(got, "serverkeygen") {
		t.Errorf("asked:\n%s", got)
	}
}

// TestESTSignsIn tries nobody, a password, and a server of somebody else.
func TestESTSignsIn(t *testing.T) {
	_, client := newEST(t)
	client.Identity = nil
	if _, err := client.Submit(t.Context(), order(t)); !errors.Is(err, authority.ErrUnavailable) {
		t.Errorf("without credentials: %v", err)
	}
	client.User, client.Password = "ra", "secret"
	if answer, err := client.Submit(t.Context(), order(t)); err != nil || len(answer.Chain) != 2 {
		t.Errorf("with a password: %v, %v", answer, err)
	}
	client.ServerRoots = x509.NewCertPool()
	if _, err := client.Submit(t.Context(), order(t)); !errors.Is(err, authority.ErrUnavailable) {
		t.Errorf("a server of somebody else: %v", err)
	}
	client.URL = "http://127.0.0.1/.well-known/est"
	if _, err := client.Submit(t.Context(), order(t)); err == nil {
		t.Error("the order goes out in the clear")
	}
}

// TestESTFaults plants each wrong answer that a CA, or whoever stands in its place, may give.
func TestESTFaults(t *testing.T) {
	for fault, want := range map[string]error{
		"another key": authority.ErrAnswer, "another mailbox": authority.ErrAnswer, "one mailbox more": authority.ErrAnswer,
		"another use": authority.ErrAnswer, "a CA": authority.ErrAnswer, "too long": authority.ErrAnswer, "ended": authority.ErrAnswer,
		"another root": authority.ErrAnswer, "HTML": authority.ErrAnswer, "no base64": authority.ErrAnswer, "no message": authority.ErrAnswer,
		"endless": authority.ErrAnswer, "redirect": authority.ErrUnavailable, "refused": authority.ErrRefused, "down": authority.ErrUnavailable,
	} {
		s, client := newEST(t)
		s.fault = fault
		if answer, err := client.Submit(t.Context(), order(t)); !errors.Is(err, want) || answer.Chain != nil {
			t.Errorf("%s: %v, %v, want %v", fault, answer, err, want)
		}
	}
}

// TestCertsOnlyOfOpenSSL reads a message that OpenSSL made.
func TestCertsOnlyOfOpenSSL(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed")
	}
	root := newCA(t, "root", nil)
	path := filepath.Join(t.TempDir(), "root.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.cert.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	der, err := exec.CommandContext(t.Context(), openssl, "crl2pkcs7", "-nocrl", "-certfile", path, "-outform", "DER").Output()
	if err != nil {
		t.Fatal(err)
	}
	certs, err := authority.CertsOnly(der)
	if err != nil || len(certs) != 1 || !certs[0].Equal(root.cert) {
		t.Errorf("read %v, %v", certs, err)
	}
}

func FuzzCertsOnly(f *testing.F) {
	root := newCA(f, "root", nil)
	f.Add(certsOnly(f, root.cert))
	f.Add([]byte{0x30, 0x80})
	f.Fuzz(func(t *testing.T, der []byte) {
		if certs, err := authority.CertsOnly(der); (err == nil) == (len(certs) == 0) {
			t.Errorf("%d certificates, %v", len(certs), err)
		}
	})
}

package pgtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Secure has the cluster take TLS alone on the loopback, with a certificate for
// "localhost" of a CA that is made for it. It gives the CA's file. Over the
// socket all is as before.
func (c *Cluster) Secure(t testing.TB) (caFile string) {
	t.Helper()
	ca, caKey := certificate(t, "pgtest CA", nil, nil)
	leaf, key := certificate(t, "localhost", ca, caKey)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	caFile = filepath.Join(t.TempDir(), "db-ca.pem")
	crt, secret, rules := filepath.Join(c.data(), "server.crt"), filepath.Join(c.data(), "server.key"), filepath.Join(c.data(), "pg_hba.conf")
	const hba = "local all all trust\nlocal replication all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n"
	err = errors.Join(
		writePEM(caFile, "CERTIFICATE", ca.Raw), writePEM(crt, "CERTIFICATE", leaf.Raw), writePEM(secret, "PRIVATE KEY", keyDER),
		os.WriteFile(rules, []byte(hba), 0o600), own(crt, secret, rules))
	if err != nil {
		t.Fatal(err)
	}
	c.Exec(t, c.DSN("postgres"), "alter system set ssl = on")
	c.reload(t)
	return caFile
}

func (c *Cluster) reload(t testing.TB) {
	t.Helper()
	c.mustRun(t, "pg_ctl", "-D", c.data(), "reload")
}

func writePEM(path, kind string, der []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}

// certificate makes a CA where there is no parent, else a server's certificate.
func certificate(t testing.TB, name string, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), BasicConstraintsValid: true,
	}
	if parent == nil {
		template.IsCA, template.KeyUsage = true, x509.KeyUsageCertSign
		parent, parentKey = template, key
	} else {
		template.DNSNames, template.ExtKeyUsage = []string{name}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// Port is that of the loopback.
func (c *Cluster) Port() string {
	_, port, _ := net.SplitHostPort(c.Addr)
	return port
}

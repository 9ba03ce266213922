//go:build linux

package e2e_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"smime-agent/platform/platformtest"
)

// slapd is an OpenLDAP server of a test's own, on loopback.
type slapd struct {
	t    *testing.T
	dir  string
	port string
	// url is plain LDAP; roots judges its certificate after StartTLS.
	url   string
	roots *x509.CertPool
}

const (
	ldapBase = "ou=people,dc=example,dc=com"
	ldapBind = "cn=publisher,dc=example,dc=com"
	ldapPass = "publish 4 all"
)

// startSlapd runs slapd in the foreground, as this user, with a folder of its own.
func startSlapd(t *testing.T) *slapd {
	t.Helper()
	platformtest.NeedPrograms(t, "slapd", "ldapsearch", "ldapadd")
	dir, err := os.MkdirTemp("", "smime-slapd-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s := &slapd{t: t, dir: dir, port: freePort(t)}
	s.url = "ldap://127.0.0.1:" + s.port
	s.certify()
	s.write("slapd.conf", fmt.Sprintf(`include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile %[1]s/pid
TLSCertificateFile %[1]s/server.pem
TLSCertificateKeyFile %[1]s/server.key
sizelimit unlimited
database mdb
maxsize 33554432
suffix dc=example,dc=com
rootdn %[2]q
rootpw %[3]q
directory %[1]s/db
access to attrs=userPassword by * none
access to * by * read
`, dir, ldapBind, ldapPass))
	if err := os.Mkdir(filepath.Join(dir, "db"), 0o700); err != nil {
		t.Fatal(err)
	}
	socket := "ldapi://" + strings.ReplaceAll(filepath.Join(dir, "ldapi"), "/", "%2F")
	cmd := exec.Command(slapdProgram(t), "-d", "0", "-f", filepath.Join(dir, "slapd.conf"), "-h", s.url+" "+socket)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	s.await(&said)
	s.add("dn: dc=example,dc=com\nobjectClass: domain\ndc: example\n\ndn: " + ldapBase + "\nobjectClass: organizationalUnit\nou: people\n")
	return s
}

// slapdProgram is in a folder that is not in everybody's PATH.
func slapdProgram(t *testing.T) string {
	t.Helper()
	for _, path := range []string{"/usr/sbin/slapd", "/usr/libexec/slapd"} {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	path, err := exec.LookPath("slapd")
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err == nil {
		err = l.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func (s *slapd) write(name, text string) string {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}

func (s *slapd) await(said *bytes.Buffer) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	for {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", "127.0.0.1:"+s.port)
		if err == nil {
			_ = c.Close()
			return
		}
		select {
		case <-ctx.Done():
			s.t.Fatalf("slapd: %v %s", err, said)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// certify makes the server's TLS certificate.
func (s *slapd) certify() {
	s.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "slapd"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		s.t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		s.t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	s.write("server.pem", string(text))
	s.write("server.key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})))
	s.roots = x509.NewCertPool()
	s.roots.AppendCertsFromPEM(text)
}

// add adds entries as the administrator of the directory does.
func (s *slapd) add(ldif string) {
	s.t.Helper()
	out, err := exec.CommandContext(s.t.Context(), "ldapadd", "-x", "-H", s.url, "-D", ldapBind, "-w", ldapPass, "-f", s.write("add.ldif", ldif)).CombinedOutput()
	if err != nil {
		s.t.Fatalf("ldapadd: %v %s", err, out)
	}
}

// person adds an entry for a mailbox, with somebody else's certificates in it.
func (s *slapd) person(uid, mailbox string, foreign ...[]byte) {
	s.t.Helper()
	ldif := fmt.Sprintf("dn: uid=%[1]s,%[2]s\nobjectClass: inetOrgPerson\nuid: %[1]s\ncn: %[1]s\nsn: Example\nmail: %[3]s\n", uid, ldapBase, mailbox)
	for _, der := range foreign {
		ldif += "userCertificate;binary:: " + base64.StdEncoding.EncodeToString(der) + "\n"
	}
	s.add(ldif)
}

// find is what a mail program does: it asks for the address.
func (s *slapd) find(mailbox string) (certificates, signed [][]byte) {
	s.t.Helper()
	out, err := exec.CommandContext(s.t.Context(), "ldapsearch", "-x", "-LLL", "-o", "ldif-wrap=no", "-H", s.url, "-b", ldapBase,
		"(mail="+mailbox+")", "userCertificate;binary", "userSMIMECertificate").CombinedOutput()
	if err != nil {
		s.t.Fatalf("ldapsearch: %v %s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), ":: ")
		if !ok || name == "dn" {
			continue
		}
		raw, err := base64.StdEncoding.DecodeString(value)
		if err != nil {
			s.t.Fatal(err)
		}
		switch name {
		case "userCertificate;binary":
			certificates = append(certificates, raw)
		case "userSMIMECertificate":
			signed = append(signed, raw)
		}
	}
	return certificates, signed
}

package platformtest

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"smime-agent/platform"
)

// JudgeNSS lets programs that none of us wrote say whether the credential in
// an NSS database works: NSS's certutil and cmsutil, and openssl. The chain
// ends with the root, which must be trusted for e-mail in the database. It also
// checks that they refuse what they must.
func JudgeNSS(t *testing.T, n NSS, id platform.KeyID, chain []*x509.Certificate) {
	t.Helper()
	NeedPrograms(t, "certutil", "cmsutil", "openssl")
	j := &judge{n: n, dir: t.TempDir(), leaf: chain[0]}
	j.root = j.writePEM(t, "root.pem", chain[len(chain)-1])
	j.leafFile = j.writePEM(t, "leaf.pem", chain[0])
	j.body = j.write(t, "body", []byte("Content-Type: text/plain\r\n\r\nThe parcel comes on Friday.\r\n"))
	j.nickname = j.listed(t, string(id), "u,u,u")
	j.listed(t, chain[len(chain)-1].Subject.CommonName, ",C,")
	for _, usage := range []string{"S", "R"} {
		out := j.must(t, "certutil", "-V", "-d", j.db(), "-f", n.PasswordFile, "-n", j.nickname, "-u", usage)
		if !strings.Contains(out, "certificate is valid") {
			t.Errorf("certutil on usage %s: %s", usage, out)
		}
	}
	j.signs(t)
	if _, ok := chain[0].PublicKey.(*rsa.PublicKey); ok { // cmsutil 3.87 knows no key agreement
		j.decrypts(t)
	}
}

type judge struct {
	n                    NSS
	dir, nickname        string
	leaf                 *x509.Certificate
	root, leafFile, body string
}

func (j *judge) db() string { return "sql:" + j.n.Dir }

func (j *judge) write(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(j.dir, name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func (j *judge) writePEM(t *testing.T, name string, c *x509.Certificate) string {
	t.Helper()
	return j.write(t, name, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
}

func (j *judge) read(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// try runs a program and says whether it succeeded.
func (j *judge) try(t *testing.T, name string, args ...string) (string, bool) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), program(name), args...).CombinedOutput()
	return string(out), err == nil
}

func (j *judge) must(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, ok := j.try(t, name, args...)
	if !ok {
		t.Fatalf("%s %v: %s", name, args, out)
	}
	return out
}

// listed finds the one certificate whose nickname ends so, and checks what
// certutil says of its trust.
func (j *judge) listed(t *testing.T, ending, trust string) string {
	t.Helper()
	var nickname string
	list := j.must(t, "certutil", "-L", "-d", j.db())
	for line := range strings.Lines(list) {
		line = strings.TrimSpace(line)
		cut := strings.LastIndex(line, " ")
		if cut < 0 || !strings.HasSuffix(strings.TrimSpace(line[:cut]), ending) {
			continue
		}
		if nickname != "" {
			t.Errorf("two certificates are called …%s", ending)
		}
		nickname = strings.TrimSpace(line[:cut])
		if got := line[cut+1:]; got != trust {
			t.Errorf("%s has trust %q, want %q", nickname, got, trust)
		}
	}
	if nickname == "" {
		t.Fatalf("certutil lists no certificate called …%s:\n%s", ending, list)
	}
	return nickname
}

func (j *judge) signs(t *testing.T) {
	t.Helper()
	signed, out, signer := filepath.Join(j.dir, "s.p7"), filepath.Join(j.dir, "out"), filepath.Join(j.dir, "signer.pem")
	j.must(t, "cmsutil", "-S", "-d", j.db(), "-f", j.n.PasswordFile, "-N", j.nickname, "-i", j.body, "-G", "-P", "-o", signed)
	verify := func(file, root string) (string, bool) {
		return j.try(t, "openssl", "cms", "-verify", "-inform", "DER", "-in", file, "-CAfile", root,
			"-purpose", "smimesign", "-signer", signer, "-out", out)
	}
	if said, ok := verify(signed, j.root); !ok {
		t.Fatalf("openssl refuses the signature: %s", said)
	}
	if !bytes.Equal(j.read(t, out), j.read(t, j.body)) {
		t.Error("openssl read another text than was signed")
	}
	if block, _ := pem.Decode(j.read(t, signer)); block == nil || !bytes.Equal(block.Bytes, j.leaf.Raw) {
		t.Error("openssl saw another signer")
	}
	changed := j.write(t, "changed.p7", bytes.Replace(j.read(t, signed), []byte("Friday"), []byte("Sunday"), 1))
	if said, ok := verify(changed, j.root); ok || !strings.Contains(said, "content verify error") && !strings.Contains(said, "digest") {
		t.Errorf("openssl on changed content: %v, %s", ok, said)
	}
	if said, ok := j.try(t, "cmsutil", "-D", "-d", j.db(), "-f", j.n.PasswordFile, "-i", changed, "-o", out); ok {
		t.Errorf("cmsutil took changed content: %s", said)
	}
	other := j.writePEM(t, "other.pem", NewAuthority(t).Root)
	if said, ok := verify(signed, other); ok || !strings.Contains(said, "unable to get local issuer certificate") {
		t.Errorf("openssl with another root: %v, %s", ok, said)
	}
}

func (j *judge) decrypts(t *testing.T) {
	t.Helper()
	sealed, out := filepath.Join(j.dir, "e.p7"), filepath.Join(j.dir, "plain")
	j.must(t, "openssl", "cms", "-encrypt", "-aes256", "-binary", "-in", j.body, "-outform", "DER", "-out", sealed, j.leafFile)
	j.must(t, "cmsutil", "-D", "-d", j.db(), "-f", j.n.PasswordFile, "-i", sealed, "-o", out)
	if !bytes.Equal(j.read(t, out), j.read(t, j.body)) {
		t.Error("cmsutil decrypted another text than was encrypted")
	}
	stranger := NewAuthority(t).Chain(t, newStrangerRSA(t), 0)[0]
	foreign := j.writePEM(t, "foreign.pem", stranger)
	j.must(t, "openssl", "cms", "-encrypt", "-aes256", "-binary", "-in", j.body, "-outform", "DER", "-out", sealed, foreign)
	if said, ok := j.try(t, "cmsutil", "-D", "-d", j.db(), "-f", j.n.PasswordFile, "-i", sealed, "-o", out); ok {
		t.Errorf("cmsutil decrypted what was not for us: %s", said)
	}
}

package winestore

import (
	"bytes"
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"smime-agent/platform/platformtest"
)

// wineVariable holds the path of wine64; the prefix is in Wine's own variable.
// The driver of the tests under Wine sets both.
const wineVariable = "SMIME_AGENT_WINE"

type bench struct {
	dir, wine, tests, judge, mailbox string
}

func newBench(t *testing.T) bench {
	t.Helper()
	wine := os.Getenv(wineVariable)
	if wine == "" {
		t.Skip("SKIP: " + wineVariable + " is not set; make e2e-wine sets it")
	}
	platformtest.NeedPrograms(t, "x86_64-w64-mingw32-gcc", "openssl", "go")
	b := bench{dir: t.TempDir(), wine: wine, mailbox: strings.ToLower(rand.Text()) + "@example.com"}
	b.tests, b.judge = filepath.Join(b.dir, "driven.exe"), filepath.Join(b.dir, "judge.exe")
	b.run(t, []string{"GOOS=windows", "GOARCH=amd64", "CGO_ENABLED=0"}, "go", "test", "-c", "-o", b.tests, ".")
	b.run(t, nil, "x86_64-w64-mingw32-gcc", "-Wall", "-Werror", "-Os", "-s", "-o", b.judge, "testdata/judge.c", "-lcrypt32", "-ladvapi32")
	return b
}

func (b bench) path(name string) string { return filepath.Join(b.dir, name) }

// try runs a program. Its output goes through a file: Wine's own services
// inherit a pipe and hold it open for as long as they live.
func (b bench) try(t *testing.T, env []string, name string, args ...string) (string, bool) {
	t.Helper()
	out, err := os.CreateTemp(b.dir, "output-")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = out, out
	ran := cmd.Run()
	text, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(text), "\r", ""), ran == nil
}

func (b bench) run(t *testing.T, env []string, name string, args ...string) string {
	t.Helper()
	text, ok := b.try(t, env, name, args...)
	if !ok {
		t.Fatalf("%s %v:\n%s", filepath.Base(name), args, text)
	}
	return text
}

// windows is a path as Wine's programs see it.
func windows(path string) string { return "Z:" + strings.ReplaceAll(path, "/", `\`) }

func (b bench) drive(t *testing.T, test, kind string) {
	t.Helper()
	text := b.run(t, []string{"SMIME_TEST_DIR=" + windows(b.dir), "SMIME_TEST_KIND=" + kind, "SMIME_TEST_MAILBOX=" + b.mailbox}, b.wine, b.tests, "-test.v", "-test.run=^"+test+"$")
	if !strings.Contains(text, "--- PASS: "+test) {
		t.Fatalf("%s did not run:\n%s", test, text)
	}
}

func (b bench) write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(b.path(name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (b bench) read(t *testing.T, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(b.path(name))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

const body = "Content-Type: text/plain\r\n\r\nThe parcel comes on Friday.\r\n"

// TestJudged: a mail program of another hand finds the certificate by mailbox
// and signs with its key, OpenSSL accepts that and refuses what it must, and
// what OpenSSL encrypts our keys decrypt, the old one too.
func TestJudged(t *testing.T) {
	for _, kind := range []string{"rsa-2048", "rsa-3072"} {
		t.Run(kind, func(t *testing.T) {
			b := newBench(t)
			b.drive(t, "TestMake", kind)
			b.write(t, "body", body)
			b.signs(t)
			b.decrypts(t)
			b.drive(t, "TestClear", kind)
			if text, ok := b.try(t, nil, b.wine, b.judge, b.mailbox, windows(b.path("body")), windows(b.path("none"))); ok || !strings.Contains(text, "nobody has") {
				t.Errorf("after all was taken away the judge says: %s", text)
			}
		})
	}
}

func (b bench) signs(t *testing.T) {
	t.Helper()
	said := b.run(t, nil, b.wine, b.judge, strings.ToUpper(b.mailbox), windows(b.path("body")), windows(b.path("signed.p7s")))
	t.Logf("the judge says: %s", strings.ReplaceAll(said, "\n", "; "))
	if !strings.Contains(said, "certificates 2\n") || !strings.Contains(said, "name S/MIME "+b.mailbox) {
		t.Error("the judge should find two certificates and the newer one's name")
	}
	verify := func(content, root string) (string, bool) {
		return b.try(t, nil, "openssl", "cms", "-verify", "-binary", "-inform", "DER", "-in", b.path("signed.p7s"), "-content", b.path(content),
			"-CAfile", b.path(root), "-purpose", "smimesign", "-signer", b.path("signer.pem"), "-out", b.path("read"))
	}
	if said, ok := verify("body", "root.pem"); !ok {
		t.Fatalf("openssl refuses the signature: %s", said)
	}
	if !bytes.Equal(b.read(t, "signer.pem"), b.read(t, "new.pem")) {
		t.Error("the signer is not the newer certificate")
	}
	b.write(t, "changed", strings.Replace(body, "Friday", "Sunday", 1))
	if said, ok := verify("changed", "root.pem"); ok || !strings.Contains(said, "content verify error") {
		t.Errorf("openssl on changed content: %v, %s", ok, said)
	}
	b.run(t, nil, "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", b.path("foreign.key"), "-subj", "/CN=Foreign", "-out", b.path("foreign.pem"))
	if said, ok := verify("body", "foreign.pem"); ok || !strings.Contains(said, "issuer certificate") {
		t.Errorf("openssl with another root: %v, %s", ok, said)
	}
}

func (b bench) decrypts(t *testing.T) {
	t.Helper()
	for _, name := range []string{"old", "new", "foreign"} {
		b.run(t, nil, "openssl", "cms", "-encrypt", "-aes256", "-binary", "-in", b.path("body"), "-outform", "DER", "-out", b.path(name+".sealed"), b.path(name+".pem"))
	}
	b.drive(t, "TestDecrypt", "")
	for _, name := range []string{"old", "new"} {
		if got := b.read(t, name+".opened"); string(got) != body {
			t.Errorf("%s: decrypted %q", name, got)
		}
	}
}

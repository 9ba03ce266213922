package e2e_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"smime-agent/platform/platformtest"
)

// publisher is a CA of the test's with a certificate for signing programs, which
// ends tomorrow, and one of a timestamp server.
type publisher struct {
	t   *testing.T
	dir string
}

func newPublisher(t *testing.T) publisher {
	t.Helper()
	platformtest.NeedPrograms(t, "osslsigncode", "openssl", "faketime")
	p := publisher{t, t.TempDir()}
	must(t, os.WriteFile(p.at("password"), []byte("a secret"), 0o600))
	output(t, "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", p.at("ca.key"), "-out", p.at("ca.pem"), "-days", "30", "-subj", "/CN=Test CA")
	p.issue("leaf", "codeSigning", "1")
	p.issue("clock", "critical,timeStamping", "30")
	output(t, "openssl", "pkcs12", "-export", "-in", p.at("leaf.pem"), "-inkey", p.at("leaf.key"), "-certfile", p.at("ca.pem"), "-out", p.at("leaf.p12"), "-passout", "file:"+p.at("password"))
	return p
}

func (p publisher) at(name string) string { return filepath.Join(p.dir, name) }

func (p publisher) issue(name, usage, days string) {
	p.t.Helper()
	must(p.t, os.WriteFile(p.at("extensions"), []byte("basicConstraints=CA:FALSE\nkeyUsage=digitalSignature\nextendedKeyUsage="+usage+"\n"), 0o600))
	output(p.t, "openssl", "req", "-newkey", "rsa:2048", "-nodes", "-keyout", p.at(name+".key"), "-out", p.at(name+".csr"), "-subj", "/CN=Example "+name)
	output(p.t, "openssl", "x509", "-req", "-in", p.at(name+".csr"), "-CA", p.at("ca.pem"), "-CAkey", p.at("ca.key"), "-CAcreateserial", "-days", days,
		"-extfile", p.at("extensions"), "-out", p.at(name+".pem"))
}

// sign runs the product's step with these variables.
func (p publisher) sign(file string, variables ...string) (string, error) {
	cmd := exec.CommandContext(p.t.Context(), filepath.Join(windowsInstaller, "sign.sh"), file)
	cmd.Env = append(os.Environ(), variables...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// verify asks osslsigncode, as on the day that faketime understands.
func (p publisher) verify(file, day string) (string, error) {
	out, err := exec.CommandContext(p.t.Context(), "faketime", day,
		"osslsigncode", "verify", "-CAfile", p.at("ca.pem"), "-TSA-CAfile", p.at("ca.pem"), "-in", file).CombinedOutput()
	return string(out), err
}

// program is a copy of the smaller of our own.
func (p publisher) program(name string) string {
	p.t.Helper()
	dist := filepath.Dir(built(p.t, ".msi"))
	must(p.t, os.WriteFile(p.at(name), []byte(read(filepath.Join(dist, "windows", "smime-helper.exe"))), 0o600))
	return p.at(name)
}

// TestSigned signs with a certificate of a CA of the test's, and asks osslsigncode
// who signed.
func TestSigned(t *testing.T) {
	platformtest.NeedPrograms(t, "msiextract")
	p := newPublisher(t)
	sign, err := filepath.Abs(filepath.Join(windowsInstaller, "sign.sh"))
	must(t, err)
	msi := buildMSI(t, p.dir, "1.0.0", map[string]string{"SIGN_WITH": sign, "SIGN_PKCS12": p.at("leaf.p12"), "SIGN_PASSWORD_FILE": p.at("password")})
	output(t, "msiextract", "--directory", p.at("unpacked"), msi)
	inside, err := filepath.Glob(p.at("unpacked/smime-agent/*.exe"))
	must(t, err)
	if len(inside) != 2 {
		t.Fatalf("in the package: %v", inside)
	}
	for _, file := range append(inside, msi, p.at("signed/smime-agent.exe"), p.at("signed/smime-helper.exe")) {
		if out, err := p.verify(file, "+1 hour"); err != nil {
			t.Errorf("%s: %v\n%s", filepath.Base(file), err, out)
		}
	}
	for _, wrong := range judgeMSI(tablesOf(t, msi)) {
		t.Error(wrong)
	}
	// A single byte of a program, and of the package.
	for _, file := range []string{inside[0], msi} {
		changed := []byte(read(file))
		changed[len(changed)/2] ^= 1
		must(t, os.WriteFile(p.at("changed"), changed, 0o600))
		if out, err := p.verify(p.at("changed"), "+1 hour"); err == nil {
			t.Errorf("%s with a changed byte is accepted:\n%s", filepath.Base(file), out)
		}
	}
}

// TestSignedInTime: with a timestamp the signature outlives its certificate,
// without one it does not; and if the server does not answer nothing is signed.
func TestSignedInTime(t *testing.T) {
	p := newPublisher(t)
	clock := httptest.NewServer(p.timestamps())
	defer clock.Close()
	who := []string{"SIGN_PKCS12=" + p.at("leaf.p12"), "SIGN_PASSWORD_FILE=" + p.at("password")}
	with, without := p.program("with.exe"), p.program("without.exe")
	for file, variables := range map[string][]string{with: append(who, "SIGN_TIMESTAMP="+clock.URL), without: who} {
		if out, err := p.sign(file, variables...); err != nil {
			t.Fatalf("%s: %v\n%s", filepath.Base(file), err, out)
		}
		if out, err := p.verify(file, "+1 hour"); err != nil {
			t.Errorf("%s today: %v\n%s", filepath.Base(file), err, out)
		}
	}
	if out, err := p.verify(with, "+10 days"); err != nil {
		t.Errorf("after the certificate's end the timestamp does not help: %v\n%s", err, out)
	}
	if out, err := p.verify(without, "+10 days"); err == nil {
		t.Errorf("a signature without timestamp outlives its certificate:\n%s", out)
	}
	clock.Close()
	unsigned := p.program("unsigned.exe")
	before := read(unsigned)
	if out, err := p.sign(unsigned, append(who, "SIGN_TIMESTAMP="+clock.URL)...); err == nil {
		t.Errorf("signed without the timestamp that was wanted:\n%s", out)
	}
	if read(unsigned) != before {
		t.Error("the program was changed although it could not be signed")
	}
}

// timestamps answers as RFC 3161 §3.4 says, by openssl.
func (p publisher) timestamps() http.Handler {
	must(p.t, os.WriteFile(p.at("clock.serial"), []byte("01\n"), 0o600))
	must(p.t, os.WriteFile(p.at("clock.cnf"), []byte(strings.Join([]string{
		"[tsa]", "serial = " + p.at("clock.serial"), "crypto_device = builtin", "default_policy = 1.2.3.4.1",
		"digests = sha1, sha256, sha384, sha512", "signer_digest = sha256", "certs = " + p.at("ca.pem"), "ess_cert_id_alg = sha256", "",
	}, "\n")), 0o600))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query, err := io.ReadAll(r.Body)
		if err == nil {
			err = os.WriteFile(p.at("query"), query, 0o600)
		}
		if err != nil {
			p.t.Error(err)
		}
		cmd := exec.CommandContext(r.Context(), "openssl", "ts", "-reply", "-config", p.at("clock.cnf"), "-section", "tsa",
			"-queryfile", p.at("query"), "-signer", p.at("clock.pem"), "-inkey", p.at("clock.key"))
		var wrong bytes.Buffer
		cmd.Stderr = &wrong
		reply, err := cmd.Output()
		if err != nil {
			p.t.Errorf("timestamp: %v\n%s", err, wrong.String())
		}
		w.Header().Set("Content-Type", "application/timestamp-reply")
		_, _ = w.Write(reply)
	})
}

// TestSignedByToken signs with a key that is in a token, and that nobody can take
// out of it.
func TestSignedByToken(t *testing.T) {
	p := newPublisher(t)
	platformtest.NeedPrograms(t, "softhsm2-util")
	const module, engine = "/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/engines-3/pkcs11.so"
	platformtest.NeedFile(t, "SoftHSM2 (softhsm2)", module)
	platformtest.NeedFile(t, "OpenSSL's engine for PKCS #11 (libengine-pkcs11-openssl)", engine)
	must(t, os.Mkdir(p.at("tokens"), 0o700))
	must(t, os.WriteFile(p.at("softhsm2.conf"), []byte("directories.tokendir = "+p.at("tokens")+"\nobjectstore.backend = file\n"), 0o600))
	t.Setenv("SOFTHSM2_CONF", p.at("softhsm2.conf"))
	output(t, "softhsm2-util", "--init-token", "--free", "--label", "signing", "--pin", "1234", "--so-pin", "5678")
	output(t, "openssl", "pkcs8", "-topk8", "-nocrypt", "-in", p.at("leaf.key"), "-out", p.at("leaf.p8"))
	output(t, "softhsm2-util", "--import", p.at("leaf.p8"), "--token", "signing", "--label", "leaf", "--id", "01", "--pin", "1234")
	must(t, os.Remove(p.at("leaf.key")))
	variables := []string{
		"SIGN_CERTIFICATES=" + p.at("leaf.pem"), "SIGN_PKCS11_MODULE=" + module, "SIGN_PKCS11_ENGINE=" + engine,
		"SIGN_KEY=pkcs11:token=signing;object=leaf;type=private;pin-value=1234",
	}
	file := p.program("token.exe")
	if out, err := p.sign(file, variables...); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err := p.verify(file, "+1 hour"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	variables[3] = "SIGN_KEY=pkcs11:token=signing;object=another;type=private;pin-value=1234"
	before := read(file)
	if out, err := p.sign(file, variables...); err == nil || read(file) != before {
		t.Errorf("with a key that is not there: %v\n%s", err, out)
	}
}

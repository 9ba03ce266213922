package smime

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// judge is the openssl program with the files of one credential.
type judge struct {
	dir  string
	ca   *authority
	leaf *x509.Certificate
}

// newJudge skips where there is no openssl, unless the run is one that must not
// skip (SMIME_AGENT_REQUIRE=1).
func newJudge(t *testing.T, k keyKind) judge {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		if os.Getenv("SMIME_AGENT_REQUIRE") == "1" {
			t.Fatalf("openssl is required: %v", err)
		}
		t.Skipf("no openssl to judge by: %v", err)
	}
	j := judge{dir: t.TempDir(), ca: newAuthority(t, "Corp")}
	j.leaf = j.ca.leaf(t, k.key.Public(), nil)
	key, err := x509.MarshalPKCS8PrivateKey(k.raw)
	if err != nil {
		t.Fatal(err)
	}
	j.write(t, "leaf.pem", encodePEM("CERTIFICATE", j.leaf.Raw))
	j.write(t, "issuing.pem", encodePEM("CERTIFICATE", j.ca.issuing.Raw))
	j.write(t, "root.pem", encodePEM("CERTIFICATE", j.ca.root.Raw))
	j.write(t, "key.pem", encodePEM("PRIVATE KEY", key))
	j.write(t, "body", body)
	return j
}

func encodePEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func (j judge) write(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(j.dir, name), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (j judge) read(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(j.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// cms runs "openssl cms" and gives what it says on stderr.
func (j judge) cms(t *testing.T, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "openssl", append([]string{"cms", "-binary"}, args...)...)
	cmd.Dir = j.dir
	var said bytes.Buffer
	cmd.Stderr = &said
	err := cmd.Run()
	return said.String(), err
}

func (j judge) must(t *testing.T, args ...string) {
	t.Helper()
	if said, err := j.cms(t, args...); err != nil {
		t.Fatalf("openssl cms %s: %v\n%s", strings.Join(args, " "), err, said)
	}
}

// perKind runs a test per kind of key against openssl.
func perKind(t *testing.T, test func(*testing.T, keyKind, judge)) {
	for _, k := range keyKinds(t) {
		t.Run(k.name, func(t *testing.T) { test(t, k, newJudge(t, k)) })
	}
}

func TestOpenSSLVerifiesOurs(t *testing.T) {
	perKind(t, func(t *testing.T, k keyKind, j judge) {
		verify := []string{"-verify", "-inform", "DER", "-in", "signed", "-CAfile", "root.pem", "-purpose", "smimesign", "-out", "out", "-signer", "signer.pem"}
		for _, detached := range []bool{false, true} {
			o := SignOptions{Detached: detached, Time: time.Now(), EncryptionCertificate: j.leaf}
			der, err := Sign(body, j.leaf, j.ca.chain(), k.key, o)
			if err != nil {
				t.Fatal(err)
			}
			j.write(t, "signed", der)
			args := verify
			if detached {
				args = append(args, "-content", "body")
			}
			j.must(t, args...)
			if got := j.read(t, "out"); !bytes.Equal(got, body) {
				t.Errorf("detached %t: openssl verified %q", detached, got)
			}
			if got := j.read(t, "signer.pem"); !bytes.Equal(got, encodePEM("CERTIFICATE", j.leaf.Raw)) {
				t.Errorf("detached %t: openssl names another signer", detached)
			}
			if detached {
				j.write(t, "body", []byte("other\r\n"))
				if said, err := j.cms(t, args...); err == nil || !strings.Contains(said, "verif") {
					t.Errorf("openssl accepts changed content: %s", said)
				}
			} else {
				j.write(t, "signed", bytes.Replace(der, []byte("numbers"), []byte("figures"), 1))
				if said, err := j.cms(t, args...); err == nil {
					t.Errorf("openssl accepts changed content: %s", said)
				}
			}
		}
	})
}

func TestWeVerifyOpenSSL(t *testing.T) {
	perKind(t, func(t *testing.T, _ keyKind, j judge) {
		sign := []string{"-sign", "-in", "body", "-signer", "leaf.pem", "-inkey", "key.pem", "-certfile", "issuing.pem", "-outform", "DER", "-out", "signed"}
		for _, o := range [][]string{{"-nodetach"}, {}, {"-nodetach", "-stream"}, {"-nodetach", "-keyid"}, {"-nodetach", "-md", "sha512"}, {"-nodetach", "-nosmimecap"}} {
			j.must(t, append(sign, o...)...)
			var content []byte
			if len(o) == 0 {
				content = body
			}
			signed, err := Verify(j.read(t, "signed"), content, j.ca.expected())
			if err != nil {
				t.Errorf("%v: %v", o, err)
				continue
			}
			if !bytes.Equal(signed.Content, body) || !signed.Signer.Equal(j.leaf) || signed.Time.IsZero() {
				t.Errorf("%v: verified %q", o, signed.Content)
			}
		}
		for _, weak := range [][]string{{"-nodetach", "-md", "sha1"}, {"-nodetach", "-noattr"}} {
			j.must(t, append(sign, weak...)...)
			if _, err := Verify(j.read(t, "signed"), nil, j.ca.expected()); !errors.Is(err, ErrUnsupported) {
				t.Errorf("%v: %v", weak, err)
			}
		}
	})
}

func TestOpenSSLDecryptsOurs(t *testing.T) {
	perKind(t, func(t *testing.T, _ keyKind, j judge) {
		for _, o := range []EncryptOptions{{}, {Authenticated: true}} {
			// A second recipient, so that openssl has to find its own.
			other := j.ca.leaf(t, newECPublic(t), nil)
			der, err := Encrypt(body, []*x509.Certificate{other, j.leaf}, o)
			if err != nil {
				t.Fatal(err)
			}
			j.write(t, "encrypted", der)
			j.must(t, "-decrypt", "-inform", "DER", "-in", "encrypted", "-recip", "leaf.pem", "-inkey", "key.pem", "-out", "out")
			if got := j.read(t, "out"); !bytes.Equal(got, body) {
				t.Errorf("%+v: openssl decrypted %q", o, got)
			}
		}
	})
}

func TestWeDecryptOpenSSL(t *testing.T) {
	perKind(t, func(t *testing.T, k keyKind, j judge) {
		options := [][]string{
			{"-aes256"}, {"-aes192"}, {"-aes128"}, {"-des3"}, {"-aes-256-gcm"}, {"-aes-128-gcm"},
			{"-aes256", "-stream"}, {"-aes256", "-indef"}, {"-aes256", "-keyid"}, {"-aes256", "-stream", "-keyid"},
			{"-aes-256-gcm", "-keyid"},
		}
		after := [][]string{{}}
		if strings.HasPrefix(k.name, "rsa") {
			after = append(after,
				[]string{"-keyopt", "rsa_padding_mode:oaep"},
				[]string{"-keyopt", "rsa_padding_mode:oaep", "-keyopt", "rsa_oaep_md:sha256", "-keyopt", "rsa_mgf1_md:sha384"})
		} else {
			for _, md := range []string{"sha224", "sha256", "sha384", "sha512"} {
				after = append(after, []string{"-keyopt", "ecdh_kdf_md:" + md})
			}
			after = append(after, []string{"-keyopt", "ecdh_cofactor_mode:1"})
		}
		for _, o := range options {
			for _, a := range after {
				args := append([]string{"-encrypt", "-in", "body", "-outform", "DER", "-out", "encrypted"}, o...)
				j.must(t, append(append(args, "-recip", "leaf.pem"), a...)...)
				opened, err := Decrypt(j.read(t, "encrypted"), j.leaf, k.key)
				if err != nil || !bytes.Equal(opened.Content, body) {
					t.Errorf("%v %v: %v", o, a, err)
					continue
				}
				recipients, err := Recipients(j.read(t, "encrypted"))
				if err != nil || len(recipients) != 1 || !recipients[0].Matches(j.leaf) {
					t.Errorf("%v %v: recipients %+v, %v", o, a, recipients, err)
				}
			}
		}
	})
}

// TestWeDecryptLongStreams reads what comes in many pieces.
func TestWeDecryptLongStreams(t *testing.T) {
	perKind(t, func(t *testing.T, k keyKind, j judge) {
		long := bytes.Repeat(body, 20000)
		j.write(t, "body", long)
		j.must(t, "-encrypt", "-in", "body", "-outform", "DER", "-out", "encrypted", "-stream", "-aes256", "leaf.pem")
		opened, err := Decrypt(j.read(t, "encrypted"), j.leaf, k.key)
		if err != nil || !bytes.Equal(opened.Content, long) {
			t.Fatal(err)
		}
		j.must(t, "-sign", "-nodetach", "-stream", "-in", "body", "-signer", "leaf.pem", "-inkey", "key.pem", "-certfile", "issuing.pem", "-outform", "DER", "-out", "signed")
		signed, err := Verify(j.read(t, "signed"), nil, j.ca.expected())
		if err != nil || !bytes.Equal(signed.Content, long) {
			t.Fatal(err)
		}
	})
}

func TestWeRefuseCiphersWeDoNotKnow(t *testing.T) {
	perKind(t, func(t *testing.T, k keyKind, j judge) {
		j.must(t, "-encrypt", "-in", "body", "-outform", "DER", "-out", "encrypted", "-camellia256", "leaf.pem")
		if _, err := Decrypt(j.read(t, "encrypted"), j.leaf, k.key); !errors.Is(err, ErrUnsupported) {
			t.Errorf("camellia: %v", err)
		}
	})
}

package oldmail

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"fmt"
	"math/big"
	"mime/quotedprintable"
	"strings"
	"testing"
	"time"

	"smime-agent/agent/smime"
)

// certificate makes one that mail can be encrypted to.
func certificate(t testing.TB, serial int64) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "Test CA"}, SubjectKeyId: []byte{1, byte(serial)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageKeyAgreement,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func encrypt(t testing.TB, content string, to ...*x509.Certificate) []byte {
	t.Helper()
	der, err := smime.Encrypt([]byte(content), to, smime.EncryptOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// wrapped is base64 in lines of 64, each with that end.
func wrapped(der []byte, end string) string {
	s := base64.StdEncoding.EncodeToString(der)
	var b strings.Builder
	for len(s) > 64 {
		b.WriteString(s[:64] + end)
		s = s[64:]
	}
	return b.String() + s + end
}

func quoted(t testing.TB, der []byte) string {
	t.Helper()
	var b strings.Builder
	w := quotedprintable.NewWriter(&b)
	w.Binary = true
	if _, err := w.Write(der); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// of reads one message from a text.
func of(t testing.TB, text string) *Census {
	t.Helper()
	s := scan{ctx: context.Background(), census: newCensus()}
	if err := s.read(strings.NewReader(text), formMessage, "here"); err != nil {
		t.Fatal(err)
	}
	return s.census
}

const enveloped = "Content-Type: application/pkcs7-mime; smime-type=enveloped-data; name=smime.p7m\r\n"

func TestShapes(t *testing.T) {
	to := certificate(t, 7)
	der := encrypt(t, strings.Repeat("secret\r\n", 20000), to)
	b64 := wrapped(der, "\r\n")
	inner := enveloped + "Content-Transfer-Encoding: base64\r\n\r\n" + b64
	folded := "Content-Type: application/x-pkcs7-mime;\r\n\tsmime-type=\"enveloped-data\"\r\nContent-Transfer-Encoding:  BASE64 \r\nSubject: x\r\n\r\n"
	mixed := "Subject: x\r\nContent-Type: multipart/mixed; boundary=\"a=b\"\r\n\r\npreamble\r\n--a=b\r\n\r\ntext\r\n--a=b\r\n"
	for name, text := range map[string]string{
		"plain":              "Subject: hello\r\n" + inner,
		"bare newlines":      "Subject: hello\n" + strings.ReplaceAll(inner, "\r\n", "\n"),
		"folded, old type":   folded + b64,
		"binary":             enveloped + "Content-Transfer-Encoding: binary\r\n\r\n" + string(der),
		"binary, unnamed":    enveloped + "\r\n" + string(der),
		"base64, unnamed":    enveloped + "\r\n" + b64,
		"base64 in one line": enveloped + "Content-Transfer-Encoding: base64\r\n\r\n" + strings.ReplaceAll(b64, "\r\n", ""),
		"quoted":             enveloped + "Content-Transfer-Encoding: quoted-printable\r\n\r\n" + quoted(t, der),
		"no parameters":      "Content-Type: application/pkcs7-mime\r\nContent-Transfer-Encoding: base64\r\n\r\n" + b64,
		"attachment":         mixed + inner + "\r\n--a=b--\r\nepilogue\r\n",
		"by its name": mixed + "Content-Type: application/octet-stream\r\nContent-Disposition: attachment; filename=\"SMIME.P7M\"\r\n" +
			"Content-Transfer-Encoding: base64\r\n\r\n" + b64 + "--a=b--\r\n",
		"signed outside": "Content-Type: multipart/signed; protocol=\"application/pkcs7-signature\"; boundary=xx\r\n\r\n--xx\r\n" + inner + "\r\n--xx\r\nContent-Type: application/pkcs7-signature\r\n\r\nMII\r\n--xx--\r\n",
		"forwarded":      mixed + "Content-Type: message/rfc822\r\n\r\nSubject: inner\r\n" + inner + "--a=b--\r\n",
		"forwarded, encoded": mixed + "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n" +
			wrapped([]byte("Subject: inner\r\n"+inner), "\r\n") + "--a=b--\r\n",
		"forwarded, encoded in one line": mixed + "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n" +
			base64.StdEncoding.EncodeToString([]byte("Subject: inner\n"+strings.ReplaceAll(inner, "\r\n", "\n"))) + "\r\n--a=b--\r\n",
		"forwarded, quoted": mixed + "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" +
			quoted(t, []byte("Subject: inner\r\n"+inner)) + "\r\n--a=b--\r\n",
		"forwarded twice, encoded twice": mixed + "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n" +
			wrapped([]byte("Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n"+wrapped([]byte(inner), "\n")), "\r\n") + "--a=b--\r\n",
		"forwarded, encoded, cut off": mixed + "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n" +
			wrapped([]byte(inner), "\r\n")[:8000],
		"multipart within":    mixed + "Content-Type: multipart/related; boundary=in\r\n\r\n--in\r\n" + inner + "--in--\r\n--a=b--\r\n",
		"never closed":        mixed + inner,
		"inner never closed":  mixed + "Content-Type: multipart/related; boundary=in\r\n\r\n--in\r\n\r\ntext\r\n--a=b\r\n" + inner,
		"broken parameters":   "Content-Type: application/pkcs7-mime; smime-type=enveloped-data; name=smime.p7m; name=again; ;; x\r\n" + "Content-Transfer-Encoding: base64\r\n\r\n" + b64,
		"broken header lines": "no field at all\r\n\tfolded nothing\r\n: empty\r\n" + inner,
		"odd characters":      strings.Replace("Subject: hello\r\n"+inner, b64[:64], b64[:20]+" \t!"+b64[20:64], 1),
		"cut in the content":  "Subject: x\r\n" + inner[:len(inner)/2],
		"digest of many":      mixed + strings.Repeat("Content-Type: message/rfc822\r\n\r\nSubject: i\r\n\r\ntext\r\n--a=b\r\n", 200) + inner,
	} {
		t.Run(name, func(t *testing.T) {
			c := of(t, text)
			a := c.Account([]Key{{Identity: Of(to), Presence: Here}})
			if c.Messages != 1 || c.Encrypted != 1 || c.Obscure != 0 || a.Opened != 1 || a.Closed != 0 {
				t.Errorf("%+v, %+v", c, a)
			}
		})
	}
}

func TestNotEncrypted(t *testing.T) {
	for name, text := range map[string]string{
		"empty":       "",
		"text":        "Subject: x\r\n\r\nMIIB is how DER begins\r\n",
		"clear":       "Content-Type: multipart/signed; boundary=x\r\n\r\n--x\r\n\r\nhello\r\n--x\r\nContent-Type: application/pkcs7-signature; name=smime.p7s\r\n\r\nMII=\r\n--x--\r\n",
		"opaque":      "Content-Type: application/pkcs7-mime; smime-type=signed-data\r\n\r\nMIAGCSqGSIb3DQEHAqCA\r\n",
		"unnamed":     "Content-Type: application/pkcs7-mime\r\nContent-Transfer-Encoding: base64\r\n\r\nMIAGCSqGSIb3DQEHAqCA\r\n",
		"other file":  "Content-Type: application/octet-stream; name=a.zip\r\n\r\nPK\r\n",
		"no boundary": "Content-Type: multipart/mixed\r\n\r\n--\r\n" + enveloped + "\r\n",
	} {
		if c := of(t, text); c.Messages != 1 || c.Encrypted != 0 {
			t.Errorf("%s: %+v", name, c)
		}
	}
}

// TestObscure: what calls itself encrypted and cannot be understood is counted as
// that, and hinders nothing.
func TestObscure(t *testing.T) {
	der := encrypt(t, "x", certificate(t, 7))
	for name, body := range map[string]string{
		"garbage":   "this is no CMS",
		"cut early": base64.StdEncoding.EncodeToString(der[:60]),
		"endless":   strings.Repeat("MIAGCSqGSIb3DQEHA6CAMIACAQAxgA==", 1)[:28] + strings.Repeat("MIAG", 6<<20),
	} {
		c := of(t, enveloped+"Content-Transfer-Encoding: base64\r\n\r\n"+body+"\r\n")
		if c.Messages != 1 || c.Encrypted != 1 || c.Obscure != 1 {
			t.Errorf("%s: %+v", name, c)
		}
	}
}

func TestMbox(t *testing.T) {
	one, two := certificate(t, 1), certificate(t, 2)
	letter := func(to *x509.Certificate) string {
		return "Subject: x\n" + strings.ReplaceAll(enveloped, "\r\n", "\n") + "Content-Transfer-Encoding: base64\n\n" + wrapped(encrypt(t, "x", to), "\n") + "\n"
	}
	text := "From - Mon Nov 16 10:00:00 2026\n" + letter(one) +
		"From ann@example.com Tue Nov 17 10:00:00 2026\n" + letter(two) +
		"From - Tue Nov 17 10:00:00 2026\nX-Mozilla-Status: 0009\n" + letter(two) +
		"From - Tue Nov 17 10:00:00 2026\nContent-Type: multipart/mixed; boundary=q\n\n--q\n\nHello,\n\nFrom Monday on we are closed.\n\n--q\n" +
		letter(one) + "--q--\n"
	s := scan{ctx: context.Background(), census: newCensus()}
	if err := s.read(strings.NewReader(text), formMbox, "Inbox"); err != nil {
		t.Fatal(err)
	}
	a := s.census.Account([]Key{{Identity: Of(one), Presence: Here, Name: "one"}, {Identity: Of(two), Presence: Gone, Name: "two"}})
	if s.census.Messages != 3 || a.Opened != 2 || a.Closed != 1 || len(a.Uses) != 2 {
		t.Fatalf("%+v, %+v", s.census, a)
	}
	if u := a.Uses[1]; u.Name != "two" || u.Messages != 1 || fmt.Sprint(u.Folders) != "[{Inbox 1}]" {
		t.Errorf("%+v", u)
	}
}

func FuzzRead(f *testing.F) {
	to := certificate(f, 7)
	der := encrypt(f, "x", to)
	f.Add([]byte("From - Mon Nov 16 10:00:00 2026\r\n"+enveloped+"\r\n"+wrapped(der, "\r\n")), true)
	f.Add([]byte("Content-Type: multipart/mixed; boundary=q\n\n--q\nContent-Type: message/rfc822\n\n"+enveloped+"\n"+string(der)+"\n--q--\n"), false)
	f.Add([]byte("Content-Type: multipart/mixed; boundary=q\n\n--q\nContent-Type: multipart/mixed; boundary=\"q--\"\n\n--q--\n"), false)
	f.Fuzz(func(t *testing.T, in []byte, mbox bool) {
		kind := formMessage
		if mbox {
			kind = formMbox
		}
		s := scan{ctx: context.Background(), census: newCensus()}
		if err := s.read(strings.NewReader(string(in)), kind, "x"); err != nil {
			t.Fatal(err)
		}
		c := s.census
		a := c.Account([]Key{{Identity: Of(to), Presence: Gone}})
		if c.Encrypted > c.Messages || a.Opened != 0 || a.Closed+c.Obscure != c.Encrypted {
			t.Fatalf("%+v, %+v", c, a)
		}
	})
}

package smime

import (
	"bytes"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"testing"
)

func seeds(f *testing.F, ca *authority) (leaf *x509.Certificate, key ecKey) {
	f.Helper()
	key = ecKey{newEC(f, elliptic.P256())}
	leaf = ca.leaf(f, key.Public(), nil)
	signed, err := Sign(body, leaf, ca.chain(), key, SignOptions{EncryptionCertificate: leaf})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(signed)
	f.Add(encrypted(f, leaf, EncryptOptions{}))
	f.Add(encrypted(f, leaf, EncryptOptions{Authenticated: true}))
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(encrypted(f, ca.leaf(f, rsaKey.Public(), nil), EncryptOptions{}))
	for _, h := range []string{"3080a0800201010000", "24800401610000", "308006092a864886f70d010703a0803080020100", "3084ffffffff"} {
		b, err := hex.DecodeString(h)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	return leaf, key
}

func FuzzNormalize(f *testing.F) {
	seeds(f, newAuthority(f, "Corp"))
	f.Fuzz(func(t *testing.T, in []byte) {
		before := bytes.Clone(in)
		out, err := normalize(in)
		if !bytes.Equal(in, before) {
			t.Fatal("the input was changed")
		}
		if err != nil {
			return
		}
		if len(out) > 2*len(in)+16 {
			t.Fatalf("%d octets became %d", len(in), len(out))
		}
		again, err := normalize(out)
		if err != nil || !bytes.Equal(again, out) {
			t.Fatalf("not settled after once: %x, %x, %v", out, again, err)
		}
	})
}

func FuzzVerify(f *testing.F) {
	ca := newAuthority(f, "Corp")
	leaf, _ := seeds(f, ca)
	x := ca.expected()
	f.Fuzz(func(t *testing.T, in []byte) {
		signed, err := Verify(in, nil, x)
		if err == nil && (!bytes.Equal(signed.Content, body) || !signed.Signer.Equal(leaf)) {
			t.Fatalf("a forgery was verified: %x", in)
		}
		_, _ = Verify(in, body, x)
	})
}

func FuzzDecrypt(f *testing.F) {
	ca := newAuthority(f, "Corp")
	leaf, key := seeds(f, ca)
	f.Fuzz(func(t *testing.T, in []byte) {
		recipients, err := Recipients(in)
		if err == nil && len(recipients) > maxRecipients {
			t.Fatalf("%d recipients", len(recipients))
		}
		opened, err := Decrypt(in, leaf, key)
		if err == nil && len(opened.Content) > len(in) {
			t.Fatalf("%d octets of content from %d", len(opened.Content), len(in))
		}
	})
}

func FuzzUnwrap(f *testing.F) {
	f.Add(make([]byte, 24), make([]byte, 40))
	f.Fuzz(func(_ *testing.T, kek, wrapped []byte) {
		_, _ = unwrapAES(kek, wrapped)
		_, _ = unwrapDES3(kek, wrapped)
	})
}

package smime

import (
	"bytes"
	"crypto/elliptic"
	"crypto/x509"
	"errors"
	"strings"
	"testing"
	"time"
)

var body = []byte("Dear Chen,\r\nthe numbers are attached.\r\n")

func TestSignVerify(t *testing.T) {
	ca := newAuthority(t, "Corp")
	at := time.Now().Truncate(time.Second).UTC()
	for _, k := range keyKinds(t) {
		leaf := ca.leaf(t, k.key.Public(), nil)
		for _, detached := range []bool{false, true} {
			der, err := Sign(body, leaf, ca.chain(), k.key, SignOptions{Detached: detached, Time: at, EncryptionCertificate: leaf})
			if err != nil {
				t.Fatalf("%s: %v", k.name, err)
			}
			if bytes.Contains(der, body) == detached {
				t.Errorf("%s: content in the message: %t", k.name, !detached)
			}
			var content []byte
			if detached {
				content = body
			}
			signed, err := Verify(der, content, ca.expected())
			if err != nil {
				t.Fatalf("%s: %v", k.name, err)
			}
			if !bytes.Equal(signed.Content, body) || !signed.Signer.Equal(leaf) || !signed.Time.Equal(at) {
				t.Errorf("%s: verified %q by %v at %v", k.name, signed.Content, signed.Signer.Subject, signed.Time)
			}
		}
	}
}

func TestVerifyRefuses(t *testing.T) {
	ca, other := newAuthority(t, "Corp"), newAuthority(t, "Other")
	key := ecKey{newEC(t, elliptic.P256())}
	leaf := ca.leaf(t, key.Public(), nil)
	sign := func(c *x509.Certificate) []byte {
		der, err := Sign(body, c, ca.chain(), key, SignOptions{Time: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	good := sign(leaf)
	changed := bytes.Replace(good, []byte("numbers"), []byte("figures"), 1)
	forged := bytes.Clone(good)
	forged[len(forged)-3] ^= 1 // inside the signature
	x := ca.expected()
	tests := []struct {
		name    string
		der     []byte
		content []byte
		x       Expected
		want    error
	}{
		{"content changed", changed, nil, x, ErrSignature},
		{"signature changed", forged, nil, x, ErrSignature},
		{"content given twice", good, body, x, ErrMalformed},
		{"other mailbox", good, nil, Expected{"eve@corp.example", x.Anchors, x.At}, ErrMailbox},
		{"no mailbox", good, nil, Expected{"", x.Anchors, x.At}, ErrMailbox},
		{"other root", good, nil, Expected{mailbox, []*x509.Certificate{other.root}, x.At}, ErrChain},
		{"no anchors", good, nil, Expected{mailbox, nil, x.At}, ErrChain},
		{"no time", good, nil, Expected{mailbox, x.Anchors, time.Time{}}, ErrChain},
		{"expired", good, nil, Expected{mailbox, x.Anchors, leaf.NotAfter.Add(time.Hour)}, ErrChain},
		{"not yet valid", good, nil, Expected{mailbox, x.Anchors, leaf.NotBefore.Add(-time.Hour)}, ErrChain},
		{"for servers", sign(ca.leaf(t, key.Public(), func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		})), nil, x, ErrChain},
		{"for nothing", sign(ca.leaf(t, key.Public(), func(c *x509.Certificate) { c.ExtKeyUsage = nil })), nil, x, ErrChain},
		{"encrypted, not signed", encrypted(t, leaf, EncryptOptions{}), nil, x, ErrUnsupported},
		{"empty", nil, nil, x, ErrMalformed},
	}
	for _, tt := range tests {
		if _, err := Verify(tt.der, tt.content, tt.x); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	for n := range good {
		if _, err := Verify(good[:n], nil, x); err == nil {
			t.Fatalf("cut off after %d of %d octets: verified", n, len(good))
		}
	}
}

func TestEveryFlippedBitOfASignatureIsSeen(t *testing.T) {
	ca := newAuthority(t, "Corp")
	key := ecKey{newEC(t, elliptic.P256())}
	leaf := ca.leaf(t, key.Public(), nil)
	good, err := Sign(body, leaf, ca.chain(), key, SignOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1 << (i % 8)
		signed, err := Verify(bad, nil, ca.expected())
		// What is outside of the signature (a version, an issuer that is not needed)
		// may change; what was signed and who signed may not.
		if err == nil && (!bytes.Equal(signed.Content, body) || !signed.Signer.Equal(leaf)) {
			t.Fatalf("octet %d changed: verified as %q", i, signed.Content)
		}
	}
}

func TestSignRefuses(t *testing.T) {
	ca := newAuthority(t, "Corp")
	key, other := ecKey{newEC(t, elliptic.P256())}, ecKey{newEC(t, elliptic.P256())}
	if _, err := Sign(body, ca.leaf(t, other.Public(), nil), nil, key, SignOptions{}); !errors.Is(err, ErrKey) {
		t.Errorf("with another's certificate: %v", err)
	}
	encryptOnly := ca.leaf(t, key.Public(), func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyAgreement })
	if _, err := Sign(body, encryptOnly, nil, key, SignOptions{}); !errors.Is(err, ErrUsage) {
		t.Errorf("with a certificate for encryption: %v", err)
	}
	p224 := ecKey{newEC(t, elliptic.P224())}
	if _, err := Sign(body, ca.leaf(t, p224.Public(), nil), nil, p224, SignOptions{}); !errors.Is(err, ErrUnsupported) {
		t.Errorf("on P-224: %v", err)
	}
}

func encrypted(t testing.TB, leaf *x509.Certificate, o EncryptOptions) []byte {
	t.Helper()
	der, err := Encrypt(body, []*x509.Certificate{leaf}, o)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestEncryptDecrypt(t *testing.T) {
	ca := newAuthority(t, "Corp")
	kinds := keyKinds(t)
	var all []*x509.Certificate
	for _, k := range kinds {
		all = append(all, ca.leaf(t, k.key.Public(), nil))
	}
	for _, o := range []EncryptOptions{{}, {Authenticated: true}} {
		for _, content := range [][]byte{{}, body, bytes.Repeat([]byte("0123456789abcdef"), 4096)} {
			der, err := Encrypt(content, all, o)
			if err != nil {
				t.Fatal(err)
			}
			recipients, err := Recipients(der)
			if err != nil || len(recipients) != len(all) {
				t.Fatalf("recipients: %v, %v", recipients, err)
			}
			for i, k := range kinds {
				opened, err := Decrypt(der, all[i], k.key)
				if err != nil || !bytes.Equal(opened.Content, content) {
					t.Errorf("%s, %+v, %d octets: %v", k.name, o, len(content), err)
					continue
				}
				n := 0
				for _, r := range recipients {
					if r.Matches(all[i]) {
						n++
						if r.Algorithm != opened.KeyAlgorithm {
							t.Errorf("%s: %s and %s", k.name, r.Algorithm, opened.KeyAlgorithm)
						}
					}
				}
				if n != 1 {
					t.Errorf("%s is %d of the recipients", k.name, n)
				}
			}
		}
	}
}

func TestDecryptRefuses(t *testing.T) {
	ca := newAuthority(t, "Corp")
	for _, k := range keyKinds(t) {
		leaf, elsewhere := ca.leaf(t, k.key.Public(), nil), ca.leaf(t, k.key.Public(), nil)
		stranger := ecKey{newEC(t, elliptic.P256())}
		for _, o := range []EncryptOptions{{}, {Authenticated: true}} {
			der := encrypted(t, leaf, o)
			if _, err := Decrypt(der, leaf, stranger); !errors.Is(err, ErrKey) {
				t.Errorf("%s: with another's key: %v", k.name, err)
			}
			if _, err := Decrypt(der, ca.leaf(t, stranger.Public(), nil), stranger); !errors.Is(err, ErrNotRecipient) {
				t.Errorf("%s: by a stranger: %v", k.name, err)
			}
			if _, err := Decrypt(der, elsewhere, k.key); !errors.Is(err, ErrNotRecipient) {
				t.Errorf("%s: by another certificate for the key: %v", k.name, err)
			}
			for _, n := range []int{0, 1, 20, len(der) / 2, len(der) - 1} {
				if _, err := Decrypt(der[:n], leaf, k.key); !errors.Is(err, ErrMalformed) {
					t.Errorf("%s: cut off after %d: %v", k.name, n, err)
				}
			}
			changed := bytes.Clone(der)
			changed[len(changed)-1] ^= 1
			opened, err := Decrypt(changed, leaf, k.key)
			if o.Authenticated && !errors.Is(err, ErrDecrypt) {
				t.Errorf("%s: changed tag: %v", k.name, err)
			}
			if err == nil && bytes.Equal(opened.Content, body) {
				t.Errorf("%s: %+v: change went unseen", k.name, o)
			}
		}
	}
}

func TestDecryptNeedsTheRightAbility(t *testing.T) {
	ca := newAuthority(t, "Corp")
	for _, k := range keyKinds(t) {
		leaf := ca.leaf(t, k.key.Public(), nil)
		onlySigns := struct{ PrivateKey }{k.key}
		if _, err := Decrypt(encrypted(t, leaf, EncryptOptions{}), leaf, onlySigns); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: %v", k.name, err)
		}
	}
}

func TestEncryptRefuses(t *testing.T) {
	ca := newAuthority(t, "Corp")
	for _, k := range keyKinds(t) {
		leaf := ca.leaf(t, k.key.Public(), func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature })
		if _, err := Encrypt(body, []*x509.Certificate{leaf}, EncryptOptions{}); !errors.Is(err, ErrUsage) {
			t.Errorf("%s: to a certificate for signing: %v", k.name, err)
		}
	}
	if _, err := Encrypt(body, nil, EncryptOptions{}); err == nil {
		t.Error("encrypted to nobody")
	}
}

func TestErrorsAreSilentAboutContent(t *testing.T) {
	ca := newAuthority(t, "Corp")
	key := ecKey{newEC(t, elliptic.P256())}
	der, err := Sign(body, ca.leaf(t, key.Public(), nil), ca.chain(), key, SignOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range der {
		bad := bytes.Clone(der)
		bad[i] ^= 0xff
		if _, err := Verify(bad, nil, ca.expected()); err != nil && strings.Contains(err.Error(), "numbers") {
			t.Fatalf("the error shows the content: %v", err)
		}
	}
}

func TestSameKeyFailsClosed(t *testing.T) {
	k := newEC(t, elliptic.P256())
	der, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	again, err := x509.ParsePKIXPublicKey(der)
	if err != nil || !sameKey(k.Public(), again) {
		t.Error("equal keys differ")
	}
	for _, bad := range [][2]any{{nil, nil}, {"a", "a"}, {k.Public(), nil}, {k.Public(), newEC(t, elliptic.P256()).Public()}} {
		if sameKey(bad[0], bad[1]) {
			t.Errorf("same: %v", bad)
		}
	}
}

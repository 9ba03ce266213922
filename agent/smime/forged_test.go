package smime

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"testing"

	"golang.org/x/crypto/cryptobyte"
	cryptoasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// forge signs the given attributes, with the right key, whatever they are.
func forge(t *testing.T, leaf *x509.Certificate, chain []*x509.Certificate, key crypto.Signer, contentType asn1.ObjectIdentifier, attributes [][]byte) []byte {
	t.Helper()
	s := scheme{crypto.SHA256, oidSHA256, oidECDSASHA256, false}
	b := cryptobyte.NewBuilder(nil)
	addSetOf(b, cryptoasn1.SET, attributes)
	signature, err := key.Sign(rand.Reader, digest(s.hash, b.BytesOrPanic()), s.hash)
	if err != nil {
		t.Fatal(err)
	}
	der, err := buildContentInfo(oidSignedData, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(1)
		b.AddASN1(cryptoasn1.SET, func(b *cryptobyte.Builder) { addAlgorithm(b, s.digest) })
		b.AddASN1(cryptoasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(contentType)
			b.AddASN1(context0Constructed, func(b *cryptobyte.Builder) { b.AddASN1OctetString(body) })
		})
		addCertificates(b, leaf, chain)
		b.AddASN1(cryptoasn1.SET, func(b *cryptobyte.Builder) { addSignerInfo(b, leaf, s, attributes, signature) })
	})
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func attribute(t *testing.T, oid asn1.ObjectIdentifier, value cryptobyte.BuilderContinuation) []byte {
	t.Helper()
	b := cryptobyte.NewBuilder(nil)
	b.AddASN1(cryptoasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oid)
		b.AddASN1(cryptoasn1.SET, value)
	})
	return b.BytesOrPanic()
}

// TestForgedAttributes plants messages whose signature holds and whose
// attributes do not say what they must (RFC 5652 §5.3, §11).
func TestForgedAttributes(t *testing.T) {
	ca := newAuthority(t, "Corp")
	key := ecKey{newEC(t, elliptic.P256())}
	leaf := ca.leaf(t, key.Public(), nil)
	kind := attribute(t, oidContentType, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oidData) })
	hash := attribute(t, oidMessageDigest, func(b *cryptobyte.Builder) { b.AddASN1OctetString(digest(crypto.SHA256, body)) })
	other := attribute(t, oidMessageDigest, func(b *cryptobyte.Builder) { b.AddASN1OctetString(digest(crypto.SHA256, []byte("other"))) })
	two := attribute(t, oidMessageDigest, func(b *cryptobyte.Builder) {
		b.AddASN1OctetString(digest(crypto.SHA256, body))
		b.AddASN1OctetString(digest(crypto.SHA256, body))
	})
	for _, tt := range []struct {
		name       string
		oid        asn1.ObjectIdentifier
		attributes [][]byte
		want       error
	}{
		{"right", oidData, [][]byte{kind, hash}, nil},
		{"other content type inside", oidEnvelopedData, [][]byte{kind, hash}, ErrSignature},
		{"no digest", oidData, [][]byte{kind}, ErrSignature},
		{"no content type", oidData, [][]byte{hash}, ErrSignature},
		{"no attributes", oidData, nil, ErrSignature},
		{"digest of something else", oidData, [][]byte{kind, other}, ErrSignature},
		{"two digests", oidData, [][]byte{kind, hash, other}, ErrSignature},
		{"digest with two values", oidData, [][]byte{kind, two}, ErrSignature},
		{"two content types", oidData, [][]byte{kind, kind, hash}, ErrSignature},
	} {
		der := forge(t, leaf, ca.chain(), key, tt.oid, tt.attributes)
		if _, err := Verify(der, nil, ca.expected()); !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	encryptOnly := ca.leaf(t, key.Public(), func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyAgreement })
	der := forge(t, encryptOnly, ca.chain(), key, oidData, [][]byte{kind, hash})
	if _, err := Verify(der, nil, ca.expected()); !errors.Is(err, ErrUsage) {
		t.Errorf("signed with a key for encryption: %v", err)
	}
	crowd := make([]*x509.Certificate, maxCertificates)
	for i := range crowd {
		crowd[i] = ca.leaf(t, key.Public(), nil)
	}
	der = forge(t, leaf, crowd, key, oidData, [][]byte{kind, hash})
	if _, err := Verify(der, nil, ca.expected()); !errors.Is(err, ErrMalformed) {
		t.Errorf("%d certificates: %v", len(crowd)+1, err)
	}
}

// TestCipherMustFitTheStructure plants content that claims to be authenticated
// and is not: AuthEnvelopedData with CBC, and GCM without a tag.
func TestCipherMustFitTheStructure(t *testing.T) {
	ca := newAuthority(t, "Corp")
	key := ecKey{newEC(t, elliptic.P256())}
	leaf := ca.leaf(t, key.Public(), nil)
	contentKey := bytes.Repeat([]byte{7}, 32)
	info, err := recipientInfo(leaf, contentKey)
	if err != nil {
		t.Fatal(err)
	}
	cbc, err := sealCBC(contentKey, body)
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := sealGCM(contentKey, body)
	if err != nil {
		t.Fatal(err)
	}
	build := func(oid asn1.ObjectIdentifier, s sealed, mac []byte) []byte {
		der, err := buildContentInfo(oid, func(b *cryptobyte.Builder) {
			addSealed(b, 0, [][]byte{info}, s)
			if mac != nil {
				b.AddASN1OctetString(mac)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	for name, der := range map[string][]byte{
		"CBC that claims to be authenticated": build(oidAuthEnvelopedData, cbc, make([]byte, 16)),
		"GCM without a tag":                   build(oidEnvelopedData, gcm, nil),
		"GCM with a short tag":                build(oidAuthEnvelopedData, gcm, gcm.mac[:8]),
	} {
		if _, err := Decrypt(der, leaf, key); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if opened, err := Decrypt(build(oidAuthEnvelopedData, gcm, gcm.mac), leaf, key); err != nil || !bytes.Equal(opened.Content, body) {
		t.Errorf("as it should be: %v", err)
	}
	infos := make([][]byte, maxRecipients+1)
	for i := range infos {
		infos[i] = info
	}
	crowd, err := buildContentInfo(oidEnvelopedData, func(b *cryptobyte.Builder) { addSealed(b, 2, infos, cbc) })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Recipients(crowd); !errors.Is(err, ErrUnsupported) {
		t.Errorf("%d recipients: %v", len(infos), err)
	}
}

// agreementInfo is a KeyAgreeRecipientInfo with user keying material, which
// some senders add, to a recipient named by key identifier.
func agreementInfo(t *testing.T, leaf *x509.Certificate, point, material, contentKey []byte) []byte {
	t.Helper()
	remote, err := leaf.PublicKey.(*ecdsa.PublicKey).ECDH()
	if err != nil {
		t.Fatal(err)
	}
	ephemeral, err := remote.Curve().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := ephemeral.ECDH(remote)
	if err != nil {
		t.Fatal(err)
	}
	if point == nil {
		point = ephemeral.PublicKey().Bytes()
	}
	wrap, err := derAlgorithm(oidAES128Wrap)
	if err != nil {
		t.Fatal(err)
	}
	kek, err := agreedKey(oidCofactorDHSHA256, secret, wrap, 16, material)
	if err != nil {
		t.Fatal(err)
	}
	wrapped, err := wrapAES(kek, contentKey)
	if err != nil {
		t.Fatal(err)
	}
	b := cryptobyte.NewBuilder(nil)
	b.AddASN1(context1Constructed, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(3)
		b.AddASN1(context0Constructed, func(b *cryptobyte.Builder) {
			b.AddASN1(context1Constructed, func(b *cryptobyte.Builder) {
				addAlgorithm(b, oidECPublicKey)
				b.AddASN1BitString(point)
			})
		})
		b.AddASN1(context1Constructed, func(b *cryptobyte.Builder) { b.AddASN1OctetString(material) })
		addAlgorithmWith(b, oidCofactorDHSHA256, func(b *cryptobyte.Builder) { b.AddBytes(wrap) })
		b.AddASN1(cryptoasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(cryptoasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1(context0Constructed, func(b *cryptobyte.Builder) { b.AddASN1OctetString(leaf.SubjectKeyId) })
				b.AddASN1OctetString(wrapped)
			})
		})
	})
	return b.BytesOrPanic()
}

func TestUserKeyingMaterialAndBadPoints(t *testing.T) {
	ca := newAuthority(t, "Corp")
	key := ecKey{newEC(t, elliptic.P256())}
	leaf := ca.leaf(t, key.Public(), nil)
	contentKey := bytes.Repeat([]byte{7}, 32)
	s, err := sealCBC(contentKey, body)
	if err != nil {
		t.Fatal(err)
	}
	build := func(info []byte) []byte {
		der, err := buildContentInfo(oidEnvelopedData, func(b *cryptobyte.Builder) { addSealed(b, 2, [][]byte{info}, s) })
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	for _, material := range [][]byte{{}, []byte("salt")} {
		opened, err := Decrypt(build(agreementInfo(t, leaf, nil, material, contentKey)), leaf, key)
		if err != nil || !bytes.Equal(opened.Content, body) {
			t.Errorf("material %q: %v", material, err)
		}
	}
	off := append([]byte{4}, bytes.Repeat([]byte{1}, 64)...)
	for name, point := range map[string][]byte{"off the curve": off, "infinity": {0}, "too short": {4, 1}} {
		if _, err := Decrypt(build(agreementInfo(t, leaf, point, []byte("salt"), contentKey)), leaf, key); !errors.Is(err, ErrMalformed) {
			t.Errorf("point %s: %v", name, err)
		}
	}
}

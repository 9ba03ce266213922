package platformtest

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha256" // the hashes that checkSign asks for
	_ "crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"testing"

	"smime-agent/platform"
)

func checkKind(t *testing.T, a platform.KeyAlgorithm, public crypto.PublicKey) {
	t.Helper()
	ok := false
	switch key := public.(type) {
	case *rsa.PublicKey:
		bits := map[platform.KeyAlgorithm]int{platform.RSA2048: 2048, platform.RSA3072: 3072, platform.RSA4096: 4096}
		ok = key.N.BitLen() == bits[a] && key.E == 65537
	case *ecdsa.PublicKey:
		curves := map[platform.KeyAlgorithm]elliptic.Curve{platform.P256: elliptic.P256(), platform.P384: elliptic.P384()}
		ok = key.Curve == curves[a]
	}
	if !ok {
		t.Errorf("asked for %s, got %T %v", a, public, public)
	}
}

// checkSign lets Go's own crypto judge signatures over each hash of S/MIME.
func checkSign(t *testing.T, k platform.Key) {
	t.Helper()
	for _, hash := range []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512} {
		digest := digestOf(hash, "to be signed")
		signature, err := k.Sign(rand.Reader, digest, hash)
		if err != nil {
			t.Errorf("Sign with %v: %v", hash, err)
			continue
		}
		if !verify(k.Public(), hash, digest, signature) {
			t.Errorf("signature with %v does not verify", hash)
		}
		if verify(k.Public(), hash, digestOf(hash, "something else"), signature) {
			t.Errorf("signature with %v verifies for another text", hash)
		}
	}
}

func digestOf(hash crypto.Hash, text string) []byte {
	h := hash.New()
	h.Write([]byte(text))
	return h.Sum(nil)
}

func verify(public crypto.PublicKey, hash crypto.Hash, digest, signature []byte) bool {
	switch key := public.(type) {
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(key, hash, digest, signature) == nil
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(key, digest, signature)
	}
	return false
}

// unable says that a store that may lack an operation says so properly.
func unable(t *testing.T, must bool, what string, err error) bool {
	t.Helper()
	if !must && errors.Is(err, platform.ErrUnsupported) {
		t.Logf("the store cannot do %s: %v", what, err)
		return true
	}
	return false
}

func checkPSS(t *testing.T, k platform.Key, must bool) {
	public, ok := k.Public().(*rsa.PublicKey)
	if !ok {
		return // only RSA keys have it
	}
	for _, hash := range []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512} {
		digest := digestOf(hash, "to be signed")
		opts := &rsa.PSSOptions{Hash: hash, SaltLength: rsa.PSSSaltLengthEqualsHash}
		signature, err := k.Sign(rand.Reader, digest, opts)
		if unable(t, must, "PSS with "+hash.String(), err) {
			continue
		}
		if err != nil {
			t.Errorf("Sign with PSS and %v: %v", hash, err)
			continue
		}
		if err := rsa.VerifyPSS(public, hash, digest, signature, opts); err != nil {
			t.Errorf("PSS signature with %v: %v", hash, err)
		}
	}
}

func checkDecrypt(t *testing.T, k platform.Key, mustOAEP bool) {
	public, ok := k.Public().(*rsa.PublicKey)
	if !ok {
		return // only RSA keys have it
	}
	decrypter, ok := k.(crypto.Decrypter)
	if !ok {
		t.Fatalf("%T is no crypto.Decrypter", k)
	}
	secret := []byte("0123456789abcdef0123456789abcdef")
	sealed, err := rsa.EncryptPKCS1v15(rand.Reader, public, secret) //nolint:staticcheck // what S/MIME 3.2 mail uses
	if err != nil {
		t.Fatal(err)
	}
	for _, opts := range []crypto.DecrypterOpts{nil, &rsa.PKCS1v15DecryptOptions{}, &rsa.PKCS1v15DecryptOptions{SessionKeyLen: 32}} { //nolint:staticcheck // what mail programs still send
		plain, err := decrypter.Decrypt(rand.Reader, sealed, opts)
		if err != nil || !bytes.Equal(plain, secret) {
			t.Errorf("Decrypt with %#v: %q, %v", opts, plain, err)
		}
	}
	checkBadPadding(t, decrypter, public)
	for _, hash := range []crypto.Hash{crypto.SHA1, crypto.SHA256} {
		sealed, err := rsa.EncryptOAEP(hash.New(), rand.Reader, public, secret, nil)
		if err != nil {
			t.Fatal(err)
		}
		plain, err := decrypter.Decrypt(rand.Reader, sealed, &rsa.OAEPOptions{Hash: hash})
		if unable(t, mustOAEP, "OAEP with "+hash.String(), err) {
			continue
		}
		if err != nil || !bytes.Equal(plain, secret) {
			t.Errorf("Decrypt with OAEP and %v: %q, %v", hash, plain, err)
		}
	}
}

// checkBadPadding: where a session key's length is given, what was not
// encrypted for the key decrypts to some key of that length, without an error
// that would tell an attacker of the padding. It may be the same key each
// time: NSS answers noise by itself, with a key drawn from the ciphertext.
func checkBadPadding(t *testing.T, k crypto.Decrypter, public *rsa.PublicKey) {
	t.Helper()
	noise := make([]byte, public.Size())
	if _, err := rand.Read(noise[1:]); err != nil {
		t.Fatal(err)
	}
	opts := &rsa.PKCS1v15DecryptOptions{SessionKeyLen: 32} //nolint:staticcheck // what mail programs still send
	key, err := k.Decrypt(rand.Reader, noise, opts)
	if err != nil || len(key) != 32 || bytes.Equal(key, make([]byte, 32)) {
		t.Errorf("Decrypt of noise as a session key: %x, %v", key, err)
	}
}

func checkAgree(t *testing.T, k platform.Key, must bool) {
	public, ok := k.Public().(*ecdsa.PublicKey)
	if !ok {
		return // only EC keys have it
	}
	agreer, ok := k.(platform.Agreer)
	if !ok {
		t.Fatalf("%T is no platform.Agreer", k)
	}
	own, err := public.ECDH()
	if err != nil {
		t.Fatal(err)
	}
	other, err := own.Curve().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := agreer.ECDH(other.PublicKey())
	if unable(t, must, "key agreement", err) {
		return
	}
	want, e := other.ECDH(own)
	if e != nil {
		t.Fatal(e)
	}
	if err != nil || !bytes.Equal(secret, want) {
		t.Errorf("ECDH: %x, %v; want %x", secret, err, want)
	}
	stranger, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := agreer.ECDH(stranger.PublicKey()); err == nil {
		t.Error("ECDH with a key of another curve went through")
	}
}

func checkRequest(t *testing.T, k platform.Key) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "alice@example.com"}, EmailAddresses: []string{"alice@example.com"},
	}, k)
	if err != nil {
		t.Fatalf("CreateCertificateRequest: %v", err)
	}
	request, err := x509.ParseCertificateRequest(der)
	if err != nil {
		t.Fatal(err)
	}
	if err := request.CheckSignature(); err != nil {
		t.Errorf("request: %v", err)
	}
	if !samePublic(request.PublicKey, k.Public()) {
		t.Error("the request is for another key")
	}
}

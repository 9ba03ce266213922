package helper

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"

	"smime-agent/agent/enroll"
	"smime-agent/agent/smime"
	"smime-agent/platform"
)

// MakeRequest makes the key under the enrollment's name, finds the one that an
// earlier attempt made, or takes that of another enrollment, and gives a CSR
// signed by it. A key of a kind that is not accepted is an error; no key is ever
// replaced.
func (s *Session) MakeRequest(ctx context.Context, w enroll.RequestWanted) (enroll.RequestMade, error) {
	return run(ctx, s, job[enroll.RequestMade]{w.Store, w.ID, w.Modules, func(ctx context.Context, store platform.Store) (enroll.RequestMade, error) {
		key, err := s.keyFor(ctx, store, w)
		if err != nil {
			return enroll.RequestMade{}, err
		}
		defer closeKey(key)
		algorithm := algorithmOf(key.Public())
		if !slices.Contains(w.Keys, string(algorithm)) {
			return enroll.RequestMade{}, s.unsuitable(store, fmt.Errorf("key %s is of kind %q, accepted are %q", key.ID(), algorithm, w.Keys))
		}
		if w.Encrypt && !canDecrypt(key) {
			return enroll.RequestMade{}, s.unsuitable(store, fmt.Errorf("key %s cannot decrypt", key.ID()))
		}
		csr, err := request(key, w)
		if err != nil {
			return enroll.RequestMade{}, s.failure(aboutKey, w.Store, err)
		}
		return enroll.RequestMade{CSR: csr, Algorithm: string(algorithm), Protection: string(store.Info().Protection)}, nil
	}})
}

func (s *Session) unsuitable(store platform.Store, err error) error {
	return s.fail(enroll.Waiting, enroll.CodeStoreUnsuitable, store.Info().Name, err)
}

// keyFor opens the key, or creates it where it may.
func (s *Session) keyFor(ctx context.Context, store platform.Store, w enroll.RequestWanted) (platform.Key, error) {
	if w.ReuseKeyOf != "" {
		if err := s.ours(w.Store, w.ReuseKeyOf); err != nil {
			return nil, err
		}
		return s.openKey(ctx, store, w.ReuseKeyOf)
	}
	key, err := store.Open(ctx, platform.KeyID(w.ID))
	if err == nil {
		return key, nil
	}
	if !errors.Is(err, platform.ErrNotFound) {
		return nil, s.failure(aboutKey, w.Store, fmt.Errorf("open key %s: %w", w.ID, err))
	}
	return s.createKey(ctx, store, w)
}

// createKey makes a key of the best accepted kind that the store can make. What
// a store lists it may still not make for this use: a TPM makes signing keys on
// P-256, but none that agree (tpm2-pkcs11 1.9), and RSA keys that do both.
func (s *Session) createKey(ctx context.Context, store platform.Store, w enroll.RequestWanted) (platform.Key, error) {
	has := store.Info().Algorithms
	owner := ""
	if len(w.Mailboxes) > 0 {
		owner = w.Mailboxes[0]
	}
	why := fmt.Errorf("store %s makes %q, accepted are %q", w.Store, has, w.Keys)
	for _, kind := range w.Keys {
		spec := platform.KeySpec{Algorithm: platform.KeyAlgorithm(kind), Sign: w.Sign, Decrypt: w.Encrypt, Owner: owner}
		if !slices.Contains(has, spec.Algorithm) {
			continue
		}
		key, err := store.Create(ctx, platform.KeyID(w.ID), spec)
		switch {
		case err == nil:
			return key, nil
		case !errors.Is(err, platform.ErrUnsupported):
			return nil, s.failure(aboutStore, w.Store, fmt.Errorf("create key %s: %w", w.ID, err))
		}
		why = fmt.Errorf("create key %s: %w", w.ID, err)
	}
	return nil, s.unsuitable(store, why)
}

// algorithmOf is empty for a kind that has no name here.
func algorithmOf(public crypto.PublicKey) platform.KeyAlgorithm {
	switch k := public.(type) {
	case *rsa.PublicKey:
		switch k.N.BitLen() {
		case 2048:
			return platform.RSA2048
		case 3072:
			return platform.RSA3072
		case 4096:
			return platform.RSA4096
		}
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			return platform.P256
		case elliptic.P384():
			return platform.P384
		}
	}
	return ""
}

func canDecrypt(key platform.Key) bool {
	if _, ok := key.Public().(*rsa.PublicKey); ok {
		_, ok = key.(crypto.Decrypter)
		return ok
	}
	_, ok := key.(smime.Agreer)
	return ok
}

// request signs a CSR (RFC 2986) and looks at it as a stranger would. Its
// subject is advice; what counts is the key.
func request(key platform.Key, w enroll.RequestWanted) ([]byte, error) {
	if len(w.Mailboxes) == 0 {
		return nil, errors.New("a request without a mailbox")
	}
	name := w.DisplayName
	if name == "" {
		name = w.Mailboxes[0]
	}
	extensions, err := requestedUse(key.Public(), w)
	if err != nil {
		return nil, err
	}
	template := &x509.CertificateRequest{
		Subject:         pkix.Name{CommonName: name},
		EmailAddresses:  w.Mailboxes,
		ExtraExtensions: extensions,
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		return nil, fmt.Errorf("sign CSR with %s: %w", key.ID(), err)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("read back CSR of %s: %w", key.ID(), err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("verify CSR of %s: %w", key.ID(), err)
	}
	if !sameKey(csr.PublicKey, key.Public()) {
		return nil, fmt.Errorf("CSR of %s is for another key", key.ID())
	}
	return der, nil
}

var (
	oidKeyUsage    = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidExtKeyUsage = asn1.ObjectIdentifier{2, 5, 29, 37}
	// id-kp-emailProtection, RFC 5280 §4.2.1.12
	oidEmailProtection = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 4}
)

// requestedUse asks for keyUsage (bits of RFC 5280 §4.2.1.3, numbered from the
// left; S/MIME BR §7.1.2.3.e) and extKeyUsage.
func requestedUse(public crypto.PublicKey, w enroll.RequestWanted) ([]pkix.Extension, error) {
	var bits byte
	if w.Sign {
		bits |= 0x80 // digitalSignature (0)
	}
	_, isRSA := public.(*rsa.PublicKey)
	switch {
	case w.Encrypt && isRSA:
		bits |= 0x20 // keyEncipherment (2)
	case w.Encrypt:
		bits |= 0x08 // keyAgreement (4)
	}
	if bits == 0 {
		return nil, errors.New("a request for neither signing nor encryption")
	}
	length := 8
	for b := bits; b&1 == 0; b >>= 1 {
		length-- // DER leaves trailing zero bits out (X.690 §11.2.2)
	}
	usage, err := asn1.Marshal(asn1.BitString{Bytes: []byte{bits}, BitLength: length})
	if err != nil {
		return nil, err
	}
	extended, err := asn1.Marshal([]asn1.ObjectIdentifier{oidEmailProtection})
	if err != nil {
		return nil, err
	}
	return []pkix.Extension{{Id: oidKeyUsage, Critical: true, Value: usage}, {Id: oidExtKeyUsage, Value: extended}}, nil
}

// sameKey compares public keys. Their Equal methods take a crypto.PublicKey,
// which is why the assertion is to that very form; a kind without it is unequal.
func sameKey(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}

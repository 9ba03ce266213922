package smime

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	cryptoasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// EncryptOptions says how to encrypt.
type EncryptOptions struct {
	// Authenticated makes an AuthEnvelopedData with AES-256-GCM, which new mail
	// programs read. Else it is an EnvelopedData with AES-256-CBC, which all read.
	Authenticated bool
}

// Encrypt encrypts content to each of the recipients: RSA by PKCS #1 v1.5, EC by
// ephemeral-static ECDH (RFC 5753). Errors wrap [ErrUsage] for a certificate
// that is not for encryption, [ErrUnsupported] for a kind of key that cannot.
func Encrypt(content []byte, recipients []*x509.Certificate, o EncryptOptions) ([]byte, error) {
	if len(recipients) == 0 {
		return nil, errors.New("encrypt: no recipients")
	}
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails (crypto/rand)
	version := int64(0)
	var infos [][]byte
	for _, c := range recipients {
		info, err := recipientInfo(c, key)
		if err != nil {
			return nil, fmt.Errorf("encrypt to %v: %w", c.EmailAddresses, err)
		}
		if _, ok := c.PublicKey.(*rsa.PublicKey); !ok {
			version = 2 // RFC 5652 §6.1
		}
		infos = append(infos, info)
	}
	if o.Authenticated {
		s, err := sealGCM(key, content)
		if err != nil {
			return nil, err
		}
		return buildContentInfo(oidAuthEnvelopedData, func(b *cryptobyte.Builder) {
			addSealed(b, 0, infos, s)
			b.AddASN1OctetString(s.mac)
		})
	}
	s, err := sealCBC(key, content)
	if err != nil {
		return nil, err
	}
	return buildContentInfo(oidEnvelopedData, func(b *cryptobyte.Builder) { addSealed(b, version, infos, s) })
}

func addSealed(b *cryptobyte.Builder, version int64, infos [][]byte, s sealed) {
	b.AddASN1Int64(version)
	addSetOf(b, cryptoasn1.SET, infos)
	b.AddASN1(cryptoasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oidData)
		b.AddBytes(s.algorithm)
		b.AddASN1(context0, func(b *cryptobyte.Builder) { b.AddBytes(s.ciphertext) })
	})
}

func recipientInfo(c *x509.Certificate, key []byte) ([]byte, error) {
	switch public := c.PublicKey.(type) {
	case *rsa.PublicKey:
		if c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageKeyEncipherment == 0 {
			return nil, fmt.Errorf("%w: key encipherment", ErrUsage)
		}
		return keyTransport(c, public, key)
	case *ecdsa.PublicKey:
		if c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageKeyAgreement == 0 {
			return nil, fmt.Errorf("%w: key agreement", ErrUsage)
		}
		return keyAgreement(c, public, key)
	default:
		return nil, fmt.Errorf("%w: encrypting to this kind of key", ErrUnsupported)
	}
}

// keyTransport makes a KeyTransRecipientInfo (RFC 5652 §6.2.1).
func keyTransport(c *x509.Certificate, public *rsa.PublicKey, key []byte) ([]byte, error) {
	// PKCS #1 v1.5 is what every mail program and every card can open; OAEP is not.
	encrypted, err := rsa.EncryptPKCS1v15(rand.Reader, public, key) //nolint:staticcheck // see above
	if err != nil {
		return nil, err
	}
	b := cryptobyte.NewBuilder(nil)
	b.AddASN1(cryptoasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(0)
		addIssuerAndSerial(b, cryptoasn1.SEQUENCE, c)
		addAlgorithmWith(b, oidRSA, addNull)
		b.AddASN1OctetString(encrypted)
	})
	return b.Bytes()
}

// keyAgreement makes a KeyAgreeRecipientInfo (RFC 5753 §3.1).
func keyAgreement(c *x509.Certificate, public *ecdsa.PublicKey, key []byte) ([]byte, error) {
	remote, err := public.ECDH()
	if err != nil {
		return nil, fmt.Errorf("%w: curve: %w", ErrUnsupported, err)
	}
	ephemeral, err := remote.Curve().GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	secret, err := ephemeral.ECDH(remote)
	if err != nil {
		return nil, err
	}
	derivation := oidStdDHSHA256
	if remote.Curve() != ecdh.P256() {
		derivation = oidStdDHSHA384
	}
	wrapAlgorithm, err := derAlgorithm(oidAES256Wrap)
	if err != nil {
		return nil, err
	}
	kek, err := agreedKey(derivation, secret, wrapAlgorithm, 32, nil)
	if err != nil {
		return nil, err
	}
	wrapped, err := wrapAES(kek, key)
	if err != nil {
		return nil, err
	}
	b := cryptobyte.NewBuilder(nil)
	b.AddASN1(context1Constructed, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(3)
		addOriginator(b, ephemeral.PublicKey())
		addAlgorithmWith(b, derivation, func(b *cryptobyte.Builder) { b.AddBytes(wrapAlgorithm) })
		b.AddASN1(cryptoasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(cryptoasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				addIssuerAndSerial(b, cryptoasn1.SEQUENCE, c)
				b.AddASN1OctetString(wrapped)
			})
		})
	})
	return b.Bytes()
}

func addOriginator(b *cryptobyte.Builder, ephemeral *ecdh.PublicKey) {
	b.AddASN1(context0Constructed, func(b *cryptobyte.Builder) {
		b.AddASN1(context1Constructed, func(b *cryptobyte.Builder) {
			addAlgorithm(b, oidECPublicKey)
			b.AddASN1BitString(ephemeral.Bytes())
		})
	})
}

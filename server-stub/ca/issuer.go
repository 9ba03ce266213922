package ca

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Lint judges a certificate (DER) whose signature is worth nothing.
type Lint interface {
	Check(der []byte) error
}

// Settings are what all certificates of a CA have in common.
type Settings struct {
	// CRLURL and IssuerURL are http URLs (BR 7.1.2.3 b, c).
	CRLURL    string
	IssuerURL string
	// OCSPURL is where the responder is; empty puts none into certificates.
	OCSPURL string
	// Reserved puts in the CA/Browser Forum's OID, which asserts compliance.
	Reserved bool
	// OwnPolicy is the company's own OID in dots, beside or instead; may be empty.
	OwnPolicy string
}

// Issuer is the issuing CA at work. Its methods may be called by many at once.
type Issuer struct {
	Serials Serials

	cert      *x509.Certificate
	key       crypto.Signer
	chain     [][]byte
	algorithm x509.SignatureAlgorithm
	sigID     []byte // AlgorithmIdentifier, DER
	void      []byte // a static signature, for the lint
	fixed     map[Validation][]byte
	lint      Lint
	pool      *pool
}

// NewIssuer readies a CA. The roots follow the issuing CA in chain.
func NewIssuer(chain []*x509.Certificate, key crypto.Signer, lint Lint, settings Settings) (*Issuer, error) {
	if len(chain) == 0 {
		return nil, errors.New("open issuing CA: no certificate")
	}
	cert := chain[0]
	public, ok := cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(key.Public()) {
		return nil, errors.New("open issuing CA: key and certificate do not belong together")
	}
	i := &Issuer{cert: cert, key: key, lint: lint, pool: newPool(), fixed: map[Validation][]byte{}}
	for _, c := range chain {
		i.chain = append(i.chain, c.Raw)
	}
	if err := i.chooseAlgorithm(); err != nil {
		return nil, err
	}
	for _, v := range []Validation{MailboxValidated, OrganizationValidated, SponsorValidated} {
		fixed, err := fixedExtensions(cert, settings, v)
		if err != nil {
			return nil, err
		}
		i.fixed[v] = fixed
	}
	return i, nil
}

// chooseAlgorithm binds the hash to the key as BR 7.1.3.2 does, and makes the
// static signature, of the right form and length, over nothing.
func (i *Issuer) chooseAlgorithm() error {
	oid := asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}
	null := false
	switch key := i.key.Public().(type) {
	case *rsa.PublicKey:
		i.algorithm, oid, null = x509.SHA256WithRSA, asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}, true
	case *ecdsa.PublicKey:
		i.algorithm = x509.ECDSAWithSHA256
		if key.Curve == elliptic.P384() {
			i.algorithm, oid = x509.ECDSAWithSHA384, asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 3}
		}
	default:
		return fmt.Errorf("open issuing CA: key of type %T cannot sign here", key)
	}
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oid)
		if null {
			b.AddASN1NULL()
		}
	})
	var err error
	if i.sigID, err = b.Bytes(); err != nil {
		return fmt.Errorf("open issuing CA: %w", err)
	}
	i.void, err = i.sign(nil)
	return err
}

// Chain gives the CA's certificates, the issuing one first, each DER.
func (i *Issuer) Chain() [][]byte { return i.chain }

// Certificate gives the issuing CA's own certificate.
func (i *Issuer) Certificate() *x509.Certificate { return i.cert }

// Wanted is what a certificate is to say.
type Wanted struct {
	Serial  Serial
	Profile Profile
	Subject Subject
	// Key is the subscriber's public key; possession is the caller's to check.
	Key crypto.PublicKey
	// Now is the moment of issue.
	Now time.Time
	// Life is 0 for [Life].
	Life time.Duration
}

// Issue builds, lints and signs a certificate (DER). Errors are the lint's own,
// [ErrKeyKind], [ErrOverloaded], or a failure of the CA key.
func (i *Issuer) Issue(ctx context.Context, w Wanted) ([]byte, error) {
	release, err := i.pool.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	tbs, err := i.content(w)
	if err != nil {
		return nil, err
	}
	draft, err := assemble(tbs, i.sigID, i.void)
	if err != nil {
		return nil, err
	}
	if err := i.lint.Check(draft); err != nil {
		return nil, err
	}
	signature, err := i.sign(tbs)
	if err != nil {
		return nil, err
	}
	// Guards against a fault of the machine at signing, which would give the key away.
	if err := i.cert.CheckSignature(i.algorithm, tbs, signature); err != nil {
		return nil, fmt.Errorf("check own signature: %w", err)
	}
	return assemble(tbs, i.sigID, signature)
}

func (i *Issuer) content(w Wanted) ([]byte, error) {
	kind, err := KeyKind(w.Key)
	if err != nil {
		return nil, err
	}
	// Encoded anew: what a CSR brings may have parameters that BR 7.1.3.1 forbids.
	spki, err := x509.MarshalPKIXPublicKey(w.Key)
	if err != nil {
		return nil, fmt.Errorf("encode public key: %w", err)
	}
	life := w.Life
	if life == 0 {
		life = Life
	}
	begin := w.Now.Add(-Backdate).UTC().Truncate(time.Second)
	end := begin.Add(life - time.Second) // both ends count (RFC 5280, 4.1.2.5)
	if end.After(i.cert.NotAfter) {
		return nil, fmt.Errorf("issue certificate: the issuing CA ends at %s, before the certificate would", i.cert.NotAfter.Format(time.DateOnly))
	}
	return content{
		serial: w.Serial, algorithm: i.sigID, issuer: i.cert.RawSubject,
		notBefore: begin, notAfter: end,
		subject: w.Subject, profile: w.Profile, kind: kind, spki: spki, fixed: i.fixed[w.Profile.Validation],
	}.encode()
}

// sign gives the signature over data.
func (i *Issuer) sign(data []byte) ([]byte, error) {
	var digest []byte
	hash := crypto.SHA256
	if i.algorithm == x509.ECDSAWithSHA384 {
		hash = crypto.SHA384
		sum := sha512.Sum384(data)
		digest = sum[:]
	} else {
		sum := sha256.Sum256(data)
		digest = sum[:]
	}
	signature, err := i.key.Sign(rand.Reader, digest, hash)
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	return signature, nil
}

func assemble(tbs, algorithm, signature []byte) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(tbs)
		b.AddBytes(algorithm)
		b.AddASN1BitString(signature)
	})
	der, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("encode certificate: %w", err)
	}
	return der, nil
}

// fixedExtensions are those that depend on nothing but the CA and the validation.
func fixedExtensions(cert *x509.Certificate, s Settings, v Validation) ([]byte, error) {
	policies, err := policyOIDs(s, v)
	if err != nil {
		return nil, err
	}
	var b cryptobyte.Builder
	addExtension(&b, asn1.ObjectIdentifier{2, 5, 29, 37}, false, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 4}) // emailProtection
		})
	})
	addExtension(&b, asn1.ObjectIdentifier{2, 5, 29, 35}, false, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.Tag(0).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes(cert.SubjectKeyId) })
		})
	})
	addExtension(&b, asn1.ObjectIdentifier{2, 5, 29, 32}, false, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			for _, oid := range policies {
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oid) })
			}
		})
	})
	addExtension(&b, asn1.ObjectIdentifier{2, 5, 29, 31}, false, func(b *cryptobyte.Builder) { addDistributionPoint(b, s.CRLURL) })
	addExtension(&b, asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 1}, false, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			if s.OCSPURL != "" {
				addAccess(b, 1, s.OCSPURL) // ocsp
			}
			addAccess(b, 2, s.IssuerURL) // caIssuers
		})
	})
	der, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("encode extensions: %w", err)
	}
	return der, nil
}

// addAccess adds an access method of id-ad (RFC 5280, 4.2.2.1).
func addAccess(b *cryptobyte.Builder, method int, url string) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, method})
		addURI(b, url)
	})
}

func addDistributionPoint(b *cryptobyte.Builder, url string) {
	outer := cbasn1.Tag(0).ContextSpecific().Constructed()
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(outer, func(b *cryptobyte.Builder) { // distributionPoint
				b.AddASN1(outer, func(b *cryptobyte.Builder) { addURI(b, url) }) // fullName
			})
		})
	})
}

func addURI(b *cryptobyte.Builder, url string) {
	b.AddASN1(cbasn1.Tag(6).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes([]byte(url)) })
}

func policyOIDs(s Settings, v Validation) ([]asn1.ObjectIdentifier, error) {
	var out []asn1.ObjectIdentifier
	if s.Reserved {
		out = append(out, v.reservedPolicy())
	}
	if s.OwnPolicy != "" {
		oid, err := ParseOID(s.OwnPolicy)
		if err != nil {
			return nil, err
		}
		out = append(out, oid)
	}
	if len(out) == 0 {
		return nil, errors.New("open issuing CA: no certificate policy is set")
	}
	return out, nil
}

//go:build cgo || windows

package platform

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"strings"

	"smime-agent/platform/internal/pkcs11"
)

// Install files the issuers first and the leaf last, so that whoever sees the
// leaf finds its chain.
func (s *tokenStore) Install(ctx context.Context, id KeyID, chain []*x509.Certificate) error {
	return s.withPublic(ctx, access{write: true}, "install certificate for key", id,
		func(ss *pkcs11.Session, key crypto.PublicKey, _ []pkcs11.Filed) error {
			if err := checkLeaf(key, chain); err != nil {
				return err
			}
			for _, issuer := range chain[1:] {
				spec := pkcs11.CertificateSpec{Label: issuerLabel(issuer), ID: issuer.SubjectKeyId}
				if err := ss.PutCertificate(issuer, spec); err != nil {
					return err
				}
			}
			keyID, err := pkcs11.KeyID(key)
			if err != nil {
				return err
			}
			spec := pkcs11.CertificateSpec{Label: leafLabel(id, chain[0]), ID: keyID}
			if s.nss != nil && len(chain[0].EmailAddresses) > 0 {
				// NSS looks for addresses in lower case only (CERT_FixupEmailAddr).
				spec.Email = strings.ToLower(chain[0].EmailAddresses[0])
			}
			return ss.PutCertificate(chain[0], spec)
		})
}

// leafLabel is what people see in the certificate manager of Thunderbird, and
// what NSS's programs and Thunderbird's settings name the certificate by. So
// it begins with the mailbox, which says something, and ends with the key's
// ID, without which the certificates of a renewal would share one name: by a
// shared name NSS picks one as it likes. A colon would make NSS read the part
// before it as a token's name.
func leafLabel(id KeyID, leaf *x509.Certificate) string {
	who := leaf.Subject.CommonName
	if len(leaf.EmailAddresses) > 0 {
		who = leaf.EmailAddresses[0]
	}
	if who == "" {
		return string(id)
	}
	return strings.ReplaceAll(who, ":", " ") + " " + string(id)
}

func issuerLabel(issuer *x509.Certificate) string {
	name := issuer.Subject.CommonName
	if name == "" {
		name = issuer.Subject.String()
	}
	return strings.ReplaceAll(name, ":", " ")
}

func (s *tokenStore) Find(ctx context.Context, id KeyID) ([]*x509.Certificate, error) {
	var chain []*x509.Certificate
	err := s.withPublic(ctx, access{}, "find certificate for key", id,
		func(_ *pkcs11.Session, key crypto.PublicKey, filed []pkcs11.Filed) error {
			var certs []*x509.Certificate
			for _, f := range filed {
				certs = append(certs, f.Cert)
			}
			leaf, ok := newestFor(key, certs)
			if !ok {
				return ErrNotFound
			}
			chain = chainOf(leaf, certs)
			return nil
		})
	return chain, err
}

// withPublic runs fn with the key's public part, which needs no login. Only if
// no good public object is seen does it look again after a login.
func (s *tokenStore) withPublic(ctx context.Context, a access, what string, id KeyID,
	fn func(*pkcs11.Session, crypto.PublicKey, []pkcs11.Filed) error,
) error {
	hidden := false
	look := func(ss *pkcs11.Session) error {
		pairs, filed, err := a.look(ss, id)
		if err != nil {
			return err
		}
		p, ok := best(pairs)
		if !ok && !a.private && ss.Token.LoginRequired() {
			p, ok = bestPublic(pairs)
			// A half without its final ID needs mending, and so its other half.
			ok = ok && (!a.write || finalID(*p.public, p.key))
			hidden = !ok
		}
		if !ok {
			return ErrNotFound
		}
		if a.write && p.private != nil {
			if err := mend(ss, p); err != nil {
				return err
			}
		}
		return fn(ss, p.key, filed)
	}
	err := s.use(ctx, a, what+" "+string(id), look)
	if hidden {
		a.private = true
		err = s.use(ctx, a, what+" "+string(id), look)
	}
	return err
}

// look finds what bears the ID. Who files a certificate does not read those that
// are there, unless he needs them to choose.
func (a access) look(ss *pkcs11.Session, id KeyID) ([]pair, []pkcs11.Filed, error) {
	if a.write {
		pairs, err := findKey(ss, string(id))
		return pairs, nil, err
	}
	return findPairs(ss, string(id))
}

// bestPublic picks, of what is seen without login, a certified key first.
func bestPublic(pairs []pair) (pair, bool) {
	for _, certified := range []bool{true, false} {
		for _, p := range pairs {
			if p.public != nil && p.key != nil && p.certified == certified {
				return p, true
			}
		}
	}
	return pair{}, false
}

func (s *tokenStore) Remove(ctx context.Context, cert *x509.Certificate) error {
	err := s.use(ctx, access{write: true}, "remove certificate", func(ss *pkcs11.Session) error {
		return ss.RemoveCertificate(cert, s.nss != nil)
	})
	if errors.Is(err, errNoDatabase) {
		return nil
	}
	return err
}

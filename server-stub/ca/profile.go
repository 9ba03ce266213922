// Package ca is the reference server's certification authority: the profiles
// of S/MIME certificates, the issuing CA that fills them in, its revocation
// list, and the separate transport CA for the TLS identities of the server, of
// devices and of administrators.
//
// It follows the CA/Browser Forum's S/MIME Baseline Requirements ("BR") of its
// own will: a root that no software supplier ships is outside their scope.
package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Life is how long our certificates are valid: 365 days, well under the 825 of BR 6.3.2.
const Life = 365 * 24 * time.Hour

// Backdate is how far notBefore lies back, for clocks that are a little slow.
const Backdate = time.Hour

// Validation is the type of BR 7.1.6.1, all in the Strict generation.
type Validation int

// The validations that our profiles use.
const (
	MailboxValidated Validation = iota + 1
	OrganizationValidated
	SponsorValidated
)

// Profile is a kind of certificate. All are Strict.
type Profile struct {
	Name       string
	Validation Validation
	Sign       bool
	Encrypt    bool
	// Keys are the accepted kinds, best first.
	Keys []string
}

// The kinds of key.
const (
	RSA2048 = "rsa-2048"
	RSA3072 = "rsa-3072"
	RSA4096 = "rsa-4096"
	P256    = "p-256"
	P384    = "p-384"
)

// ErrKeyKind: the key is of no kind that any profile takes.
var ErrKeyKind = errors.New("key is none of RSA 2048, 3072, 4096, P-256, P-384")

// Profiles are those that the server ships, by the order of its documentation.
// RSA comes first wherever mail is to be encrypted to the key: classic Outlook
// looks for keyEncipherment when it picks a recipient's certificate.
func Profiles() []Profile {
	rsaFirst := []string{RSA3072, RSA4096, RSA2048, P256, P384}
	return []Profile{
		{Name: "employee-dual", Validation: SponsorValidated, Sign: true, Encrypt: true, Keys: rsaFirst},
		{Name: "employee-sign", Validation: SponsorValidated, Sign: true, Keys: rsaFirst},
		{Name: "employee-encrypt", Validation: SponsorValidated, Encrypt: true, Keys: rsaFirst},
		{Name: "department-dual", Validation: OrganizationValidated, Sign: true, Encrypt: true, Keys: rsaFirst},
		{Name: "mailbox-dual", Validation: MailboxValidated, Sign: true, Encrypt: true, Keys: rsaFirst},
	}
}

// ProfileByName finds one of [Profiles].
func ProfileByName(name string) (Profile, bool) {
	all := Profiles()
	i := slices.IndexFunc(all, func(p Profile) bool { return p.Name == name })
	if i < 0 {
		return Profile{}, false
	}
	return all[i], true
}

// KeyKind names the kind of a public key, or gives [ErrKeyKind].
func KeyKind(public crypto.PublicKey) (string, error) {
	switch key := public.(type) {
	case *rsa.PublicKey:
		switch key.N.BitLen() {
		case 2048:
			return RSA2048, nil
		case 3072:
			return RSA3072, nil
		case 4096:
			return RSA4096, nil
		}
		return "", fmt.Errorf("RSA key of %d bits: %w", key.N.BitLen(), ErrKeyKind)
	case *ecdsa.PublicKey:
		switch key.Curve {
		case elliptic.P256():
			return P256, nil
		case elliptic.P384():
			return P384, nil
		}
		return "", fmt.Errorf("EC key on %s: %w", key.Curve.Params().Name, ErrKeyKind)
	}
	return "", fmt.Errorf("key of type %T: %w", public, ErrKeyKind)
}

// usage gives the bits of keyUsage, first octet only (RFC 5280, 4.2.1.3), as BR
// 7.1.2.3.e has them: keys that encrypt are RSA with keyEncipherment or EC with
// keyAgreement.
func (p Profile) usage(kind string) byte {
	const digitalSignature, keyEncipherment, keyAgreement = 0x80, 0x20, 0x08
	var bits byte
	if p.Sign {
		bits |= digitalSignature
	}
	if p.Encrypt {
		if kind == P256 || kind == P384 {
			bits |= keyAgreement
		} else {
			bits |= keyEncipherment
		}
	}
	return bits
}

// reservedPolicy is the Strict OID of BR 7.1.6.1.
func (v Validation) reservedPolicy() []int {
	return []int{2, 23, 140, 1, 5, int(v), 3}
}

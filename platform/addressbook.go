package platform

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"slices"
	"strings"
)

// AddressBook is where mail programs look for the certificates of those whom a
// person writes to. What is filed here knows apart what the person filed himself.
// A certificate of somebody else needs no trust of its own: its chain decides.
type AddressBook interface {
	// Name is that of the store beside, such as "nss:default" or "windows".
	Name() string
	// Put files certificates: of people, or issuers that their chains need. One
	// that is there already stays as it is, and whose it is.
	Put(ctx context.Context, certs []*x509.Certificate) error
	// Ours lists those that Put filed and that are still there.
	Ours(ctx context.Context) ([]*x509.Certificate, error)
	// Remove takes away what Put filed. It leaves alone, without an error, what is
	// not there, what Put did not file, what has its private key beside it, and an
	// issuer of something that stays.
	Remove(ctx context.Context, certs []*x509.Certificate) error
}

// AddressBooks finds those of the user. Those that exist but cannot be used now
// are left out of the list and joined in the error, beside the list.
func AddressBooks(ctx context.Context, o StoreOptions) ([]AddressBook, error) {
	return addressBooks(ctx, o)
}

// partnerMark is in the name of each certificate that an address book filed.
// People see it in their program's list, and may well read it.
const partnerMark = "(filed by smime-agent)"

// partnerName says whose certificate it is, and differs for each certificate:
// NSS takes one name for one certificate. A colon would make NSS read the part
// before it as a token's name.
func partnerName(c *x509.Certificate) string {
	who := c.Subject.CommonName
	if len(c.EmailAddresses) > 0 {
		who = strings.ToLower(c.EmailAddresses[0])
	}
	sum := sha256.Sum256(c.Raw)
	return strings.ReplaceAll(who, ":", " ") + " " + hex.EncodeToString(sum[:4]) + " " + partnerMark
}

func isPartnerName(name string) bool { return strings.HasSuffix(name, partnerMark) }

// unneeded leaves issuers out of what shall go that something else of all needs.
func unneeded(gone, all []*x509.Certificate) []*x509.Certificate {
	going := make(map[string]bool, len(gone))
	for _, c := range gone {
		going[string(c.Raw)] = true
	}
	needed := map[string]bool{}
	for _, c := range all {
		if !going[string(c.Raw)] && !bytes.Equal(c.RawIssuer, c.RawSubject) {
			needed[string(c.RawIssuer)] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(gone), func(c *x509.Certificate) bool {
		return c.IsCA && needed[string(c.RawSubject)]
	})
}

// both gives those of a that are in b too.
func both(a, b []*x509.Certificate) []*x509.Certificate {
	in := make(map[string]bool, len(b))
	for _, c := range b {
		in[string(c.Raw)] = true
	}
	var out []*x509.Certificate
	for _, c := range a {
		if in[string(c.Raw)] {
			out = append(out, c)
		}
	}
	return out
}

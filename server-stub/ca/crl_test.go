package ca

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"math/big"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

func founded(t *testing.T, at time.Time) *Hierarchy {
	t.Helper()
	h, err := Found(Founding{Organization: "Example GmbH", Country: "DE", Now: at, Settings: Settings{Reserved: true}})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// TestRootLists: no list of a root may be relied on for more than twelve months (BR
// 4.9.7), their numbers grow, and a CA that was taken back stands in all of them
// once, with its first time; a compromise is not forgotten for a lesser reason.
func TestRootLists(t *testing.T) {
	begin := time.Date(2027, 3, 1, 0, 30, 0, 0, time.UTC) // a year without a leap day lies before it
	h := founded(t, begin)
	last, before := h.RootCRL, big.NewInt(0)
	for year, more := range [][]RootRevocation{
		nil,
		{{Serial: h.Issuing.Cert.SerialNumber, At: begin, Reason: "superseded"}},
		{{Serial: h.Issuing.Cert.SerialNumber, At: begin.AddDate(2, 0, 0), Reason: "cACompromise"}},
		{{Serial: h.Issuing.Cert.SerialNumber, At: begin.AddDate(3, 0, 0), Reason: "superseded"}},
	} {
		next, err := NextRootList(h.Root, last, more, begin.AddDate(year, 0, 0))
		if err != nil {
			t.Fatal(err)
		}
		for _, der := range [][]byte{last, next} {
			list, err := x509.ParseRevocationList(der)
			if err != nil {
				t.Fatal(err)
			}
			if list.NextUpdate.After(list.ThisUpdate.AddDate(1, 0, 0)) {
				t.Errorf("a list holds from %v to %v", list.ThisUpdate, list.NextUpdate)
			}
		}
		list, err := x509.ParseRevocationList(next)
		if err != nil {
			t.Fatal(err)
		}
		if list.Number.Cmp(before) <= 0 {
			t.Errorf("list %v follows %v", list.Number, before)
		}
		if n := len(list.RevokedCertificateEntries); n != min(year, 1) {
			t.Errorf("list of year %d has %d entries", year, n)
		} else if n == 1 && (list.RevokedCertificateEntries[0].ReasonCode != []int{0, 4, 2, 2}[year] || !list.RevokedCertificateEntries[0].RevocationTime.Equal(begin)) {
			t.Errorf("the entry of year %d: %+v", year, list.RevokedCertificateEntries[0])
		}
		last, before = next, list.Number
	}
}

// TestRootListWithoutNumber follows a list without the extension, as "openssl ca
// -gencrl" makes them where no crlnumber is configured.
func TestRootListWithoutNumber(t *testing.T) {
	now := time.Now()
	h := founded(t, now)
	next, err := NextRootList(h.Root, unnumbered(t, h.Root, now), nil, now)
	if err != nil {
		t.Fatal(err)
	}
	if list, err := x509.ParseRevocationList(next); err != nil || list.Number.Cmp(big.NewInt(1)) != 0 {
		t.Errorf("list %v, %v, want number 1", list, err)
	}
}

// unnumbered makes a list of the first version of the format (RFC 5280, 5.1.2.1).
func unnumbered(t *testing.T, root Pair, now time.Time) []byte {
	t.Helper()
	algorithm := []byte{0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02} // ecdsa-with-SHA256
	var body cryptobyte.Builder
	body.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(1)
		b.AddBytes(algorithm)
		b.AddBytes(root.Cert.RawSubject)
		b.AddASN1UTCTime(now.UTC())
		b.AddASN1UTCTime(now.UTC().Add(24 * time.Hour))
	})
	tbs, err := body.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256(tbs)
	signature, err := root.Key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	var whole cryptobyte.Builder
	whole.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(tbs)
		b.AddBytes(algorithm)
		b.AddASN1BitString(signature)
	})
	der, err := whole.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return der
}

package oldmail

import (
	"cmp"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"

	"smime-agent/agent/smime"
)

// Identity names a certificate as a message does: by issuer and serial number,
// or by the identifier of its key.
type Identity struct {
	// Issuer is a name in the form of RFC 4514, as [pkix.Name.String] writes it.
	Issuer string `json:"issuer,omitempty"`
	// Serial and KeyID are lower-case hex without a separator.
	Serial string `json:"serial,omitempty"`
	KeyID  string `json:"key_id,omitempty"`
}

func (i Identity) compare(o Identity) int {
	return cmp.Or(cmp.Compare(i.Issuer, o.Issuer), cmp.Compare(i.Serial, o.Serial), cmp.Compare(i.KeyID, o.KeyID))
}

func identityOf(r smime.Recipient) Identity {
	switch {
	case len(r.KeyID) > 0:
		return Identity{KeyID: hex.EncodeToString(r.KeyID[:min(len(r.KeyID), longest)])}
	case r.Serial == nil:
		return Identity{}
	case r.Serial.BitLen() > 8*longest: // RFC 5280 allows 20 octets
		return Identity{Issuer: issuerName(r.Issuer), Serial: "too long"}
	}
	return Identity{Issuer: issuerName(r.Issuer), Serial: r.Serial.Text(16)}
}

// longest bounds a serial number and a key's identifier, and longestName an
// issuer's name, in octets: what is longer names no certificate that anybody has.
const (
	longest     = 64
	longestName = 4096
)

// issuerName writes a DER Name as [Of] does. One that does not parse stays apart
// from all others by its hash.
func issuerName(der []byte) string {
	odd := sha256.Sum256(der)
	if len(der) > longestName {
		return "#" + hex.EncodeToString(odd[:])
	}
	var sequence pkix.RDNSequence
	if rest, err := asn1.Unmarshal(der, &sequence); err != nil || len(rest) > 0 {
		return "#" + hex.EncodeToString(odd[:])
	}
	var name pkix.Name
	name.FillFromRDNSequence(&sequence)
	return name.String()
}

// Of names a certificate in all ways in which a message can.
func Of(c *x509.Certificate) Identity {
	id := Identity{Issuer: c.Issuer.String(), KeyID: hex.EncodeToString(c.SubjectKeyId)}
	if c.SerialNumber != nil {
		id.Serial = c.SerialNumber.Text(16)
	}
	return id
}

// means says that a recipient is the certificate of that whole identity.
func (i Identity) means(certificate Identity) bool {
	if i.Serial != "" {
		return i.Serial == certificate.Serial && i.Issuer == certificate.Issuer
	}
	return i.KeyID != "" && i.KeyID == certificate.KeyID
}

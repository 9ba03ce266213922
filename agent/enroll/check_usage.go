package enroll

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
)

// The last two arcs of a policy OID that BR §7.1.6.1 reserves:
// 2.23.140.1.5.kind.generation.
const (
	organizationValidated = 2
	sponsorValidated      = 3

	legacy       = 1
	multipurpose = 2
	strict       = 3
)

var oidReserved = asn1.ObjectIdentifier{2, 23, 140, 1, 5}

func isReserved(oid asn1.ObjectIdentifier) bool {
	return len(oid) == len(oidReserved)+2 && oid[:len(oidReserved)].Equal(oidReserved)
}

// reservedPolicy gives kind and generation of the first reserved OID, or zeros.
func reservedPolicy(c *x509.Certificate) (kind, generation int) {
	for _, oid := range c.PolicyIdentifiers {
		if isReserved(oid) {
			return oid[len(oid)-2], oid[len(oid)-1]
		}
	}
	return 0, 0
}

func generationOf(c *x509.Certificate) int {
	_, g := reservedPolicy(c)
	return g
}

// checkPolicies refuses Legacy, which may not be issued since July 2025
// (BR §7.1.6.1), and two answers to one question (BR §7.1.2.3.a). A company's
// own arc is welcome.
func checkPolicies(leaf *x509.Certificate, _ ChainRules) *ChainError {
	reserved := 0
	for _, oid := range leaf.PolicyIdentifiers {
		if !isReserved(oid) {
			continue
		}
		if reserved++; oid[len(oid)-1] == legacy {
			return fails("policy", "Legacy profile %s", oid)
		}
	}
	if reserved > 1 {
		return fails("policy", "%d reserved policies", reserved)
	}
	return nil
}

// checkUsage: keyUsage as BR §7.1.2.3.e has it for what was ordered, no CA, and
// emailProtection without what §7.1.2.3.f forbids.
func checkUsage(leaf *x509.Certificate, r ChainRules) *ChainError {
	if leaf.IsCA || leaf.MaxPathLen > 0 {
		return fails("usage", "the certificate is a CA's")
	}
	must, may := keyUsages(leaf, r)
	switch {
	case must == 0:
		return fails("usage", "neither signing nor encryption was ordered")
	case leaf.KeyUsage&must != must:
		return fails("usage", "keyUsage %#x lacks %#x", int(leaf.KeyUsage), int(must))
	case leaf.KeyUsage&^(must|may) != 0:
		return fails("usage", "keyUsage %#x has more than %#x", int(leaf.KeyUsage), int(must|may))
	}
	return checkExtended(leaf)
}

func keyUsages(leaf *x509.Certificate, r ChainRules) (must, may x509.KeyUsage) {
	if r.Sign {
		must |= x509.KeyUsageDigitalSignature
		may |= x509.KeyUsageContentCommitment
	}
	if !r.Encrypt {
		return must, may
	}
	if _, ok := leaf.PublicKey.(*rsa.PublicKey); !ok {
		return must | x509.KeyUsageKeyAgreement, may | x509.KeyUsageEncipherOnly | x509.KeyUsageDecipherOnly
	}
	if generationOf(leaf) == multipurpose {
		may |= x509.KeyUsageDataEncipherment
	}
	return must | x509.KeyUsageKeyEncipherment, may
}

func checkExtended(leaf *x509.Certificate) *ChainError {
	mail := false
	for _, u := range leaf.ExtKeyUsage {
		switch u {
		case x509.ExtKeyUsageEmailProtection:
			mail = true
		case x509.ExtKeyUsageAny, x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageCodeSigning,
			x509.ExtKeyUsageTimeStamping, x509.ExtKeyUsageOCSPSigning:
			return fails("usage", "extended key usage %d is forbidden", u)
		default:
			if generationOf(leaf) == strict {
				return fails("usage", "extended key usage %d in a Strict certificate", u)
			}
		}
	}
	if len(leaf.UnknownExtKeyUsage) > 0 && generationOf(leaf) == strict {
		return fails("usage", "extended key usage %s in a Strict certificate", leaf.UnknownExtKeyUsage[0])
	}
	if !mail {
		return fails("usage", "not for e-mail")
	}
	return nil
}

package enroll

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// ordered is an order with what came for it.
type ordered struct {
	ca    *ca
	key   *ecdsa.PrivateKey
	rules ChainRules
	tmpl  *x509.Certificate
	pub   any // the key in the certificate
}

func order(t testing.TB) *ordered {
	o := &ordered{ca: newCA(t)}
	var err error
	if o.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	o.rules = ChainRules{
		CSR: newCSR(t, o.key), Mailboxes: []string{"a@example.com", "b@example.com"}, Sign: true, Encrypt: true,
		MaxValidity: 365 * day, Anchors: [][]byte{o.ca.root.Raw}, Now: now, Ahead: 10 * time.Minute,
	}
	o.tmpl = o.ca.template(o.rules.Mailboxes, now, 365*day)
	o.pub = &o.key.PublicKey
	return o
}

func (o *ordered) chain(t testing.TB) [][]byte {
	return [][]byte{sign(t, o.tmpl, o.ca.issuing, o.pub, o.ca.key).Raw, o.ca.issuing.Raw}
}

func TestCheckChainBelieves(t *testing.T) {
	for name, change := range map[string]func(*ordered){
		"plain":                func(*ordered) {},
		"host in upper case":   func(o *ordered) { o.rules.Mailboxes[0] = "a@EXAMPLE.com" },
		"begins a little late": func(o *ordered) { o.tmpl.NotBefore = o.rules.Now.Add(5 * time.Minute) },
		"own policy arc":       func(o *ordered) { o.tmpl.PolicyIdentifiers = []asn1.ObjectIdentifier{{1, 3, 6, 1, 4, 1, 99999, 1}} },
		"non-repudiation":      func(o *ordered) { o.tmpl.KeyUsage |= x509.KeyUsageContentCommitment },
		"address in the subject": func(o *ordered) {
			o.tmpl.Subject.ExtraNames = []pkix.AttributeTypeAndValue{{Type: oidEmailAddress, Value: "b@example.com"}}
		},
		"multipurpose with client authentication": func(o *ordered) {
			o.tmpl.PolicyIdentifiers = []asn1.ObjectIdentifier{{2, 23, 140, 1, 5, 1, 2}}
			o.tmpl.ExtKeyUsage = append(o.tmpl.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
		},
		"found in a store": func(o *ordered) {
			o.rules.CSR = nil
			o.rules.PublicKey, _ = x509.MarshalPKIXPublicKey(&o.key.PublicKey)
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := order(t)
			change(o)
			if _, err := CheckChain(o.chain(t), o.rules); err != nil {
				t.Error(err)
			}
		})
	}
}

func san(t *testing.T, values ...asn1.RawValue) []pkix.Extension {
	der, err := asn1.Marshal(values)
	if err != nil {
		t.Fatal(err)
	}
	return []pkix.Extension{{Id: oidSAN, Value: der}}
}

func generalName(tag int, s string) asn1.RawValue {
	return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, Bytes: []byte(s)}
}

func reserved(kind, generation int) asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{2, 23, 140, 1, 5, kind, generation}
}

func (o *ordered) subject(oid asn1.ObjectIdentifier) {
	o.tmpl.Subject.ExtraNames = append(o.tmpl.Subject.ExtraNames, pkix.AttributeTypeAndValue{Type: oid, Value: "x"})
}

func rsaKey(t *testing.T, bits int) func(*ordered) {
	return func(o *ordered) {
		key, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			t.Fatal(err)
		}
		o.rules.CSR, o.pub = newCSR(t, key), &key.PublicKey
		o.tmpl.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment
	}
}

// TestCheckChainRefuses plants one fault per certificate (faults.md F12, and
// those of the Baseline Requirements that concern a subscriber).
func TestCheckChainRefuses(t *testing.T) {
	for _, c := range []struct {
		check, name string
		change      func(*ordered)
	}{
		{"key", "another key", func(o *ordered) { o.pub = &o.ca.rootKey.PublicKey }},
		{"key", "no order", func(o *ordered) { o.rules.CSR = nil }},
		{"key", "CSR with a broken signature", func(o *ordered) { o.rules.CSR[len(o.rules.CSR)-1] ^= 1 }},
		{"mailbox", "other address", func(o *ordered) { o.tmpl.EmailAddresses = []string{"c@example.com", "b@example.com"} }},
		{"mailbox", "one missing", func(o *ordered) { o.tmpl.EmailAddresses = []string{"a@example.com"} }},
		{"mailbox", "one too many", func(o *ordered) { o.tmpl.EmailAddresses = append(o.tmpl.EmailAddresses, "c@example.com") }},
		{"mailbox", "local part in other case", func(o *ordered) { o.tmpl.EmailAddresses = []string{"A@example.com", "b@example.com"} }},
		{"mailbox", "no subjectAltName", func(o *ordered) { o.tmpl.EmailAddresses = nil }},
		{"mailbox", "nothing ordered", func(o *ordered) { o.rules.Mailboxes = nil }},
		{"names", "dNSName (Z3)", func(o *ordered) { o.tmpl.DNSNames = []string{"example.com"} }},
		{"names", "IP (Z3)", func(o *ordered) { o.tmpl.IPAddresses = []net.IP{net.IPv4(1, 2, 3, 4)} }},
		{"names", "URI (Z3)", func(o *ordered) { o.tmpl.URIs = []*url.URL{{Scheme: "https", Host: "example.com"}} }},
		{"names", "registeredID (Z3)", func(o *ordered) {
			o.tmpl.ExtraExtensions = san(t, generalName(1, "a@example.com"), generalName(1, "b@example.com"), generalName(8, "\x2a\x03"))
		}},
		{"usage", "a CA", func(o *ordered) { o.tmpl.IsCA = true }},
		{"usage", "no keyUsage", func(o *ordered) { o.tmpl.KeyUsage = 0 }},
		{"usage", "signing only", func(o *ordered) { o.tmpl.KeyUsage = x509.KeyUsageDigitalSignature }},
		{"usage", "more than ordered", func(o *ordered) { o.rules.Encrypt = false }},
		{"usage", "certSign", func(o *ordered) { o.tmpl.KeyUsage |= x509.KeyUsageCertSign }},
		{"usage", "RSA's bit for an EC key", func(o *ordered) { o.tmpl.KeyUsage |= x509.KeyUsageKeyEncipherment }},
		{"usage", "no EKU", func(o *ordered) { o.tmpl.ExtKeyUsage = nil }},
		{"usage", "EKU of a server only", func(o *ordered) { o.tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }},
		{"usage", "EKU of a server too", func(o *ordered) {
			o.tmpl.PolicyIdentifiers = nil
			o.tmpl.ExtKeyUsage = append(o.tmpl.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
		}},
		{"usage", "any EKU", func(o *ordered) {
			o.tmpl.PolicyIdentifiers = nil
			o.tmpl.ExtKeyUsage = append(o.tmpl.ExtKeyUsage, x509.ExtKeyUsageAny)
		}},
		{"usage", "Strict with a second EKU", func(o *ordered) { o.tmpl.ExtKeyUsage = append(o.tmpl.ExtKeyUsage, x509.ExtKeyUsageClientAuth) }},
		{"usage", "Strict with an unknown EKU", func(o *ordered) { o.tmpl.UnknownExtKeyUsage = []asn1.ObjectIdentifier{{1, 2, 3}} }},
		{"usage", "nothing ordered", func(o *ordered) { o.rules.Sign, o.rules.Encrypt = false, false }},
		{"policy", "Legacy mailbox", func(o *ordered) { o.tmpl.PolicyIdentifiers = []asn1.ObjectIdentifier{reserved(1, 1)} }},
		{"policy", "Legacy organization", func(o *ordered) { o.tmpl.PolicyIdentifiers = []asn1.ObjectIdentifier{reserved(2, 1)} }},
		{"policy", "Legacy sponsor", func(o *ordered) { o.tmpl.PolicyIdentifiers = []asn1.ObjectIdentifier{reserved(3, 1)} }},
		{"policy", "Legacy individual", func(o *ordered) { o.tmpl.PolicyIdentifiers = []asn1.ObjectIdentifier{reserved(4, 1)} }},
		{"policy", "two reserved", func(o *ordered) { o.tmpl.PolicyIdentifiers = append(o.tmpl.PolicyIdentifiers, reserved(1, 2)) }},
		{"subject", "foreign emailAddress", func(o *ordered) {
			o.tmpl.Subject.ExtraNames = []pkix.AttributeTypeAndValue{{Type: oidEmailAddress, Value: "c@example.com"}}
		}},
		{"subject", "foreign address as CN", func(o *ordered) { o.tmpl.Subject.CommonName = "c@example.com" }},
		{"subject", "sponsor without organizationIdentifier (Z4)", func(o *ordered) { o.tmpl.PolicyIdentifiers[0] = reserved(3, 3) }},
		{"subject", "organization without organizationIdentifier (Z4)", func(o *ordered) { o.tmpl.PolicyIdentifiers[0] = reserved(2, 2) }},
		{"subject", "street in Strict (Z5)", func(o *ordered) { o.subject(oidStreet) }},
		{"subject", "postal code in Strict (Z5)", func(o *ordered) { o.subject(oidPostalCode) }},
		{"subject", "pseudonym beside a name (Z6)", func(o *ordered) { o.subject(oidPseudonym); o.subject(oidSurname) }},
		{"serial", "short (Z2)", func(o *ordered) { o.tmpl.SerialNumber = big.NewInt(5) }},
		{"life", "longer than ordered", func(o *ordered) { o.tmpl.NotAfter = o.tmpl.NotBefore.Add(367 * day) }},
		{"life", "over 825 days (Z1)", func(o *ordered) {
			o.rules.MaxValidity = 3650 * day
			o.tmpl.NotAfter = o.tmpl.NotBefore.Add(825 * day) // one second too many
		}},
		{"life", "over 825 days without an order (Z1)", func(o *ordered) {
			o.rules.MaxValidity = 0
			o.tmpl.NotAfter = o.tmpl.NotBefore.Add(1000 * day)
		}},
		{"time", "expired", func(o *ordered) { o.rules.Now = o.rules.Now.Add(400 * day) }},
		{"time", "not yet valid", func(o *ordered) { o.rules.Now = o.rules.Now.Add(-2 * time.Hour) }},
		{"time", "no clock", func(o *ordered) { o.rules.Now = time.Time{} }},
		{"path", "no anchors", func(o *ordered) { o.rules.Anchors = nil }},
		{"path", "unreadable anchor", func(o *ordered) { o.rules.Anchors = [][]byte{{1}} }},
		{"path", "the leaf as its anchor's twin", func(o *ordered) { o.rules.Anchors = [][]byte{newCA(t).root.Raw} }},
		{"path", "issuer ended", func(o *ordered) { o.ca.endIssuer(t, o.rules.Now) }},
		{"path", "issuer for servers only", func(o *ordered) {
			o.ca.reissue(t, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })
		}},
		{"path", "issuer that is no CA", func(o *ordered) {
			o.ca.reissue(t, func(c *x509.Certificate) { c.IsCA = false; c.KeyUsage = x509.KeyUsageDigitalSignature })
		}},
		{"path", "critical extension nobody knows", func(o *ordered) {
			o.tmpl.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}}}
		}},
		{"strength", "RSA below 2048 (Z8)", rsaKey(t, 1024)},
		{"strength", "RSA bits not divisible by 8 (Z7)", rsaKey(t, 2049)},
		{"strength", "curve P-224 (Z9)", func(o *ordered) {
			key, _ := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
			o.rules.CSR, o.pub = newCSR(t, key), &key.PublicKey
		}},
		{"strength", "key that no profile orders", func(o *ordered) {
			pub, key, _ := ed25519.GenerateKey(rand.Reader)
			o.rules.CSR, o.pub = newCSR(t, key), pub
		}},
		{"strength", "SHA-1", func(o *ordered) { o.tmpl.SignatureAlgorithm = x509.ECDSAWithSHA1 }},
		{"strength", "weak issuer", func(o *ordered) { o.ca.weakIssuer(t) }},
	} {
		t.Run(c.check+" "+c.name, func(t *testing.T) {
			o := order(t)
			c.change(o)
			chain := o.issueFor(t)
			refuses(t, chain, o.rules, c.check)
		})
	}
}

// issueFor signs with whatever key the issuing CA has by now.
func (o *ordered) issueFor(t *testing.T) [][]byte {
	t.Setenv("GODEBUG", "rsa1024min=0") // the planted CA and leaf keys are too short on purpose
	return o.chain(t)
}

func refuses(t *testing.T, chain [][]byte, r ChainRules, check string) {
	t.Helper()
	leaf, err := CheckChain(chain, r)
	x, ok := errors.AsType[*ChainError](err)
	switch {
	case leaf != nil || !ok:
		t.Errorf("believed, or no ChainError: %v", err)
	case x.Check != check:
		t.Errorf("refused by %q (%v), want %q", x.Check, err, check)
	case x.Passing != (check == "time" || check == "path"):
		t.Errorf("%v: passing is %v", err, x.Passing)
	case strings.Contains(err.Error(), "example.com") && check != "mailbox":
		t.Errorf("%v tells more of the subject than the mailbox", err)
	}
}

func (c *ca) reissue(t *testing.T, change func(*x509.Certificate)) {
	tmpl := *c.issuing
	change(&tmpl)
	c.issuing = sign(t, &tmpl, c.root, &c.key.PublicKey, c.rootKey)
}

func (c *ca) endIssuer(t *testing.T, now time.Time) {
	c.reissue(t, func(i *x509.Certificate) { i.NotAfter = now.Add(-time.Minute) })
}

func (c *ca) weakIssuer(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c.key = key
	c.reissue(t, func(*x509.Certificate) {})
}

func TestCheckChainUnreadable(t *testing.T) {
	o := order(t)
	good := o.chain(t)
	for name, chain := range map[string][][]byte{
		"nothing":      nil,
		"empty":        {{}},
		"garbage":      {[]byte("certificate")},
		"cut short":    {good[0][:len(good[0])-1]},
		"bad issuer":   {good[0], {1, 2, 3}},
		"too many":     {good[0], good[1], good[1], good[1], good[1], good[1], good[1], good[1], good[1]},
		"too large":    {append(slices.Clip(good[0]), make([]byte, maxCertificate)...)},
		"issuer first": {good[1], good[0]},
	} {
		t.Run(name, func(t *testing.T) {
			if leaf, err := CheckChain(chain, o.rules); err == nil || leaf != nil {
				t.Error("believed")
			}
		})
	}
	refuses(t, good[:1], o.rules, "path") // the issuer is left out
}

// TestCheckChainOwnAnchor: a self-signed certificate is not believed because
// somebody configured it as an anchor.
func TestCheckChainOwnAnchor(t *testing.T) {
	o := order(t)
	leaf := sign(t, o.tmpl, o.tmpl, &o.key.PublicKey, o.key)
	o.rules.Anchors = [][]byte{leaf.Raw}
	if _, err := CheckChain([][]byte{leaf.Raw}, o.rules); err == nil {
		t.Error("believed")
	}
}

func TestCheckChainSerialTwice(t *testing.T) {
	o := order(t)
	first, second := o.chain(t), o.chain(t)
	o.rules.Earlier = [][]byte{first[0], {0}}
	if _, err := CheckChain(first, o.rules); err != nil {
		t.Errorf("the same certificate again: %v", err)
	}
	refuses(t, second, o.rules, "serial")
}

// TestSameKey guards against the assertion to Equal(any), which never holds and
// lets every key through.
func TestSameKey(t *testing.T) {
	a, b := order(t).key.PublicKey, order(t).key.PublicKey
	if !sameKey(&a, &a) || sameKey(&a, &b) || sameKey(&a, nil) || sameKey(nil, &a) || sameKey("x", "x") {
		t.Error("keys are not compared")
	}
}

package smime

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cryptoasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Expected is what a signed message is judged by.
type Expected struct {
	// Mailbox must be in the signer's certificate.
	Mailbox string
	// Anchors are the only roots that count; none means that no chain is good.
	Anchors []*x509.Certificate
	// At is the moment at which the chain must be valid.
	At time.Time
}

// Signed is a message whose signature holds.
type Signed struct {
	Content []byte
	Signer  *x509.Certificate
	// Certificates are all that came with the message.
	Certificates []*x509.Certificate
	// Time is what the signer claims; zero if he does not.
	Time time.Time
	// Algorithm is the signature's, such as "SHA256-RSA".
	Algorithm string
}

// Verify checks the one signature of a SignedData, then the signer's mailbox,
// then his chain. content is what a detached signature is about, and nil if the
// message contains it. Signatures without signed attributes or with a digest
// weaker than SHA-256 are refused. Errors wrap [ErrMalformed], [ErrUnsupported],
// [ErrSignature], [ErrUsage], [ErrMailbox] or [ErrChain]; with the last two the
// Signed is given too, as the signature itself holds.
func Verify(der, content []byte, x Expected) (*Signed, error) {
	m, err := readSigned(der)
	if err != nil {
		return nil, err
	}
	if m.detached == (content == nil) {
		return nil, fmt.Errorf("%w: content is missing, or is there twice", ErrMalformed)
	}
	if !m.detached {
		content = m.content
	}
	signed, err := m.check(content)
	if err != nil {
		return nil, err
	}
	if !hasMailbox(signed.Signer, x.Mailbox) {
		return signed, ErrMailbox
	}
	return signed, VerifyChain(signed.Signer, m.certificates, x.Anchors, x.At)
}

// VerifyChain checks that a path leads from leaf over issuers to one of anchors,
// valid at that moment and for e-mail. The leaf must say emailProtection itself
// (S/MIME BR §7.1.2.3.f). Errors wrap [ErrChain].
func VerifyChain(leaf *x509.Certificate, issuers, anchors []*x509.Certificate, at time.Time) error {
	if !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageEmailProtection) {
		return fmt.Errorf("%w: the certificate is not for e-mail", ErrChain)
	}
	if at.IsZero() {
		return fmt.Errorf("%w: no time to check at", ErrChain) // x509 would take the clock's
	}
	roots, middle := x509.NewCertPool(), x509.NewCertPool()
	for _, c := range anchors {
		roots.AddCert(c)
	}
	for _, c := range issuers {
		middle.AddCert(c)
	}
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: middle, CurrentTime: at,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection},
	})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrChain, err)
	}
	return nil
}

// hasMailbox compares without regard to case, as mail servers do.
func hasMailbox(c *x509.Certificate, mailbox string) bool {
	return mailbox != "" && slices.ContainsFunc(c.EmailAddresses, func(a string) bool {
		return strings.EqualFold(a, mailbox)
	})
}

// signedMessage is a SignedData that nobody has checked.
type signedMessage struct {
	contentType  asn1.ObjectIdentifier
	content      []byte
	detached     bool
	certificates []*x509.Certificate
	signer       signerInfo
}

type signerInfo struct {
	id         certID
	digest     algorithm
	attributes []byte // content octets of the SET
	signature  algorithm
	value      []byte
}

// maxCertificates bounds what a stranger can make us parse.
const maxCertificates = 64

func readSigned(der []byte) (*signedMessage, error) {
	oid, in, err := openContentInfo(der)
	if err != nil {
		return nil, err
	}
	if !oid.Equal(oidSignedData) {
		return nil, fmt.Errorf("%w: not signed data", ErrUnsupported)
	}
	var body, digests, certificates, signers cryptobyte.String
	var version int64
	m := &signedMessage{}
	if !in.ReadASN1(&body, cryptoasn1.SEQUENCE) || !body.ReadASN1Integer(&version) ||
		!body.ReadASN1(&digests, cryptoasn1.SET) {
		return nil, fmt.Errorf("%w: signed data", ErrMalformed)
	}
	if err := m.readContent(&body); err != nil {
		return nil, err
	}
	if !body.ReadOptionalASN1(&certificates, nil, context0Constructed) || !body.SkipOptionalASN1(context1Constructed) ||
		!body.ReadASN1(&signers, cryptoasn1.SET) {
		return nil, fmt.Errorf("%w: signed data", ErrMalformed)
	}
	if m.certificates, err = readCertificates(certificates); err != nil {
		return nil, err
	}
	if m.signer, err = readSigner(&signers); err != nil {
		return nil, err
	}
	if !signers.Empty() {
		return nil, fmt.Errorf("%w: more than one signature", ErrUnsupported)
	}
	return m, nil
}

func (m *signedMessage) readContent(in *cryptobyte.String) error {
	var info, wrapped, content cryptobyte.String
	var has bool
	if !in.ReadASN1(&info, cryptoasn1.SEQUENCE) || !info.ReadASN1ObjectIdentifier(&m.contentType) ||
		!info.ReadOptionalASN1(&wrapped, &has, context0Constructed) {
		return fmt.Errorf("%w: signed content", ErrMalformed)
	}
	m.detached = !has
	if has && (!wrapped.ReadASN1(&content, cryptoasn1.OCTET_STRING) || !wrapped.Empty()) {
		return fmt.Errorf("%w: signed content", ErrMalformed)
	}
	m.content = content
	return nil
}

// readCertificates leaves out what x509 cannot parse: a message may carry
// certificates that have nothing to do with its signature.
func readCertificates(in cryptobyte.String) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	for n := 0; !in.Empty(); n++ {
		var one cryptobyte.String
		var tag cryptoasn1.Tag
		if n == maxCertificates || !in.ReadAnyASN1Element(&one, &tag) {
			return nil, fmt.Errorf("%w: certificates", ErrMalformed)
		}
		if tag != cryptoasn1.SEQUENCE {
			continue // attribute certificates and the like
		}
		if c, err := x509.ParseCertificate(one); err == nil {
			all = append(all, c)
		}
	}
	return all, nil
}

func readSigner(in *cryptobyte.String) (s signerInfo, err error) {
	bad := fmt.Errorf("%w: signature", ErrMalformed)
	var body, attributes, value cryptobyte.String
	var version int64
	if !in.ReadASN1(&body, cryptoasn1.SEQUENCE) || !body.ReadASN1Integer(&version) {
		return s, bad
	}
	if s.id, err = readCertID(&body); err != nil {
		return s, err
	}
	if s.digest, err = readAlgorithm(&body); err != nil {
		return s, err
	}
	var has bool
	if !body.ReadOptionalASN1(&attributes, &has, context0Constructed) {
		return s, bad
	}
	if !has {
		return s, fmt.Errorf("%w: signature without signed attributes", ErrUnsupported)
	}
	if s.signature, err = readAlgorithm(&body); err != nil {
		return s, err
	}
	if !body.ReadASN1(&value, cryptoasn1.OCTET_STRING) || !body.SkipOptionalASN1(context1Constructed) || !body.Empty() {
		return s, bad
	}
	s.attributes, s.value = attributes, value
	return s, nil
}

// check verifies the signature over content.
func (m *signedMessage) check(content []byte) (*Signed, error) {
	i := slices.IndexFunc(m.certificates, m.signer.id.matches)
	if i < 0 {
		return nil, fmt.Errorf("%w: the signer's certificate is not in the message", ErrUnsupported)
	}
	signed := &Signed{Content: content, Signer: m.certificates[i], Certificates: m.certificates}
	hash, signature, err := m.signer.algorithms()
	if err != nil {
		return nil, err
	}
	if signed.Time, err = m.checkAttributes(content, hash); err != nil {
		return nil, err
	}
	// What is signed is the SET, not its implicit tag (RFC 5652 §5.4).
	set := append(appendHeader(nil, cryptoasn1.SET, len(m.signer.attributes)), m.signer.attributes...)
	if err := signed.Signer.CheckSignature(signature, set, m.signer.value); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSignature, err)
	}
	if u := signed.Signer.KeyUsage; u != 0 && u&(x509.KeyUsageDigitalSignature|x509.KeyUsageContentCommitment) == 0 {
		return nil, fmt.Errorf("%w: signing", ErrUsage)
	}
	signed.Algorithm = signature.String()
	return signed, nil
}

// algorithms gives the pair of digest and signature that the signer names.
func (s signerInfo) algorithms() (crypto.Hash, x509.SignatureAlgorithm, error) {
	known := []struct {
		digest    asn1.ObjectIdentifier
		hash      crypto.Hash
		rsa       asn1.ObjectIdentifier
		rsaScheme x509.SignatureAlgorithm
		ec        asn1.ObjectIdentifier
		ecScheme  x509.SignatureAlgorithm
	}{
		{oidSHA256, crypto.SHA256, oidRSASHA256, x509.SHA256WithRSA, oidECDSASHA256, x509.ECDSAWithSHA256},
		{oidSHA384, crypto.SHA384, oidRSASHA384, x509.SHA384WithRSA, oidECDSASHA384, x509.ECDSAWithSHA384},
		{oidSHA512, crypto.SHA512, oidRSASHA512, x509.SHA512WithRSA, oidECDSASHA512, x509.ECDSAWithSHA512},
	}
	for _, k := range known {
		switch {
		case !s.digest.oid.Equal(k.digest):
		case s.signature.oid.Equal(oidRSA), s.signature.oid.Equal(k.rsa):
			return k.hash, k.rsaScheme, nil
		case s.signature.oid.Equal(k.ec):
			return k.hash, k.ecScheme, nil
		}
	}
	return 0, 0, fmt.Errorf("%w: signature %s with digest %s", ErrUnsupported, s.signature.oid, s.digest.oid)
}

// checkAttributes compares content and its type with what was signed, and gives
// the signing time.
func (m *signedMessage) checkAttributes(content []byte, hash crypto.Hash) (time.Time, error) {
	var at time.Time
	var seenType, seenDigest bool
	for in := cryptobyte.String(m.signer.attributes); !in.Empty(); {
		var one, values cryptobyte.String
		var oid asn1.ObjectIdentifier
		if !in.ReadASN1(&one, cryptoasn1.SEQUENCE) || !one.ReadASN1ObjectIdentifier(&oid) ||
			!one.ReadASN1(&values, cryptoasn1.SET) {
			return at, fmt.Errorf("%w: signed attributes", ErrMalformed)
		}
		switch {
		case oid.Equal(oidContentType):
			var contentType asn1.ObjectIdentifier
			if seenType || !values.ReadASN1ObjectIdentifier(&contentType) || !values.Empty() || !contentType.Equal(m.contentType) {
				return at, fmt.Errorf("%w: content type", ErrSignature)
			}
			seenType = true
		case oid.Equal(oidMessageDigest):
			var want cryptobyte.String
			if seenDigest || !values.ReadASN1(&want, cryptoasn1.OCTET_STRING) || !values.Empty() || !bytes.Equal(want, digest(hash, content)) {
				return at, fmt.Errorf("%w: content was changed", ErrSignature)
			}
			seenDigest = true
		case oid.Equal(oidSigningTime):
			if !values.ReadASN1UTCTime(&at) && !values.ReadASN1GeneralizedTime(&at) {
				return at, fmt.Errorf("%w: signing time", ErrMalformed)
			}
		}
	}
	if !seenType || !seenDigest {
		return at, fmt.Errorf("%w: no content type or digest among what is signed", ErrSignature)
	}
	return at, nil
}

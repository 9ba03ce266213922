package smime

import (
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	cryptoasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Recipient names a certificate to which a message is encrypted: by issuer and
// serial number, or by subject key identifier.
type Recipient struct {
	// Issuer is a DER Name; empty if KeyID is set.
	Issuer []byte
	Serial *big.Int
	KeyID  []byte
	// Algorithm is the way the content's key is encrypted, such as
	// "rsaes-pkcs1-v1_5" or "ecdh-sha256kdf".
	Algorithm string
}

// Matches says that the recipient is the certificate.
func (r Recipient) Matches(c *x509.Certificate) bool {
	return certID{r.Issuer, r.Serial, r.KeyID}.matches(c)
}

// Recipients says to whom an EnvelopedData or AuthEnvelopedData is encrypted. It
// needs no key. Recipients by password or by a shared key are left out.
func Recipients(der []byte) ([]Recipient, error) {
	e, err := readEnvelope(der)
	if err != nil {
		return nil, err
	}
	return e.named(), nil
}

func (e *envelope) named() []Recipient {
	all := make([]Recipient, 0, len(e.recipients))
	for _, r := range e.recipients {
		all = append(all, Recipient{Issuer: r.id.issuer, Serial: r.id.serial, KeyID: r.id.keyID, Algorithm: r.name()})
	}
	return all
}

// maxRecipients bounds what a stranger can make us keep.
const maxRecipients = 10000

// envelope is an EnvelopedData or AuthEnvelopedData.
type envelope struct {
	authenticated bool
	recipients    []recipient
	content       cryptobyte.String // from the encrypted content on
}

// recipient is the content's key, encrypted to one certificate.
type recipient struct {
	id        certID
	algorithm algorithm
	encrypted []byte
	agreement *agreement // nil for key transport
}

// agreement is what a KeyAgreeRecipientInfo says once for several recipients.
type agreement struct {
	point        []byte // the originator's ephemeral key; nil if it is named in another way
	userMaterial []byte
}

func (r recipient) name() string {
	switch {
	case r.agreement != nil:
		if d, err := derivationByOID(r.algorithm.oid); err == nil {
			return d.name
		}
	case r.algorithm.oid.Equal(oidRSA):
		return "rsaes-pkcs1-v1_5"
	case r.algorithm.oid.Equal(oidRSAOAEP):
		return "rsaes-oaep"
	}
	return r.algorithm.oid.String()
}

func readEnvelope(der []byte) (*envelope, error) {
	oid, in, err := openContentInfo(der)
	if err != nil {
		return nil, err
	}
	e := &envelope{authenticated: oid.Equal(oidAuthEnvelopedData)}
	if !e.authenticated && !oid.Equal(oidEnvelopedData) {
		return nil, fmt.Errorf("%w: not encrypted data", ErrUnsupported)
	}
	var body, infos cryptobyte.String
	var version int64
	if !in.ReadASN1(&body, cryptoasn1.SEQUENCE) || !body.ReadASN1Integer(&version) ||
		!body.SkipOptionalASN1(context0Constructed) || !body.ReadASN1(&infos, cryptoasn1.SET) {
		return nil, fmt.Errorf("%w: enveloped data", ErrMalformed)
	}
	e.content = body
	return e, e.readRecipientInfos(infos)
}

func (e *envelope) readRecipientInfos(in cryptobyte.String) error {
	for !in.Empty() {
		if err := e.readRecipientInfo(&in); err != nil {
			return err
		}
		if len(e.recipients) > maxRecipients {
			return fmt.Errorf("%w: more than %d recipients", ErrUnsupported, maxRecipients)
		}
	}
	return nil
}

// readRecipientInfo reads one RecipientInfo (RFC 5652 §6.2): key transport is an
// untagged SEQUENCE, key agreement is [1]; the others are left out.
func (e *envelope) readRecipientInfo(in *cryptobyte.String) error {
	var body cryptobyte.String
	var tag cryptoasn1.Tag
	if !in.ReadAnyASN1(&body, &tag) {
		return fmt.Errorf("%w: recipient", ErrMalformed)
	}
	switch tag {
	case cryptoasn1.SEQUENCE:
		return e.readKeyTransport(body)
	case context1Constructed:
		return e.readKeyAgreement(body)
	default:
		return nil
	}
}

func (e *envelope) readKeyTransport(body cryptobyte.String) error {
	var r recipient
	var version int64
	var encrypted cryptobyte.String
	var err error
	if !body.ReadASN1Integer(&version) {
		return fmt.Errorf("%w: recipient", ErrMalformed)
	}
	if r.id, err = readCertID(&body); err != nil {
		return err
	}
	if r.algorithm, err = readAlgorithm(&body); err != nil {
		return err
	}
	if !body.ReadASN1(&encrypted, cryptoasn1.OCTET_STRING) || !body.Empty() {
		return fmt.Errorf("%w: recipient", ErrMalformed)
	}
	r.encrypted = encrypted
	e.recipients = append(e.recipients, r)
	return nil
}

func (e *envelope) readKeyAgreement(body cryptobyte.String) error {
	var version int64
	var originator, wrapped, material, keys cryptobyte.String
	var has bool
	a := &agreement{}
	if !body.ReadASN1Integer(&version) || !body.ReadASN1(&originator, context0Constructed) ||
		!body.ReadOptionalASN1(&wrapped, &has, context1Constructed) ||
		has && !wrapped.ReadASN1(&material, cryptoasn1.OCTET_STRING) {
		return fmt.Errorf("%w: recipient", ErrMalformed)
	}
	if has {
		a.userMaterial = append([]byte{}, material...) // empty is not absent
	}
	alg, err := readAlgorithm(&body)
	if err != nil {
		return err
	}
	if a.point, err = readOriginator(originator); err != nil {
		return err
	}
	if !body.ReadASN1(&keys, cryptoasn1.SEQUENCE) || !body.Empty() {
		return fmt.Errorf("%w: recipient", ErrMalformed)
	}
	for !keys.Empty() && len(e.recipients) <= maxRecipients {
		r, err := readEncryptedKey(&keys)
		if err != nil {
			return err
		}
		r.algorithm, r.agreement = alg, a
		e.recipients = append(e.recipients, r)
	}
	return nil
}

// readOriginator gives the originator's point, if the message carries it.
func readOriginator(in cryptobyte.String) ([]byte, error) {
	if !in.PeekASN1Tag(context1Constructed) {
		return nil, nil
	}
	var key cryptobyte.String
	var bits asn1.BitString
	if !in.ReadASN1(&key, context1Constructed) {
		return nil, fmt.Errorf("%w: originator", ErrMalformed)
	}
	if _, err := readAlgorithm(&key); err != nil {
		return nil, err
	}
	if !key.ReadASN1BitString(&bits) || bits.BitLength%8 != 0 || len(bits.Bytes) == 0 {
		return nil, fmt.Errorf("%w: originator", ErrMalformed)
	}
	return bits.Bytes, nil
}

// readEncryptedKey reads a RecipientEncryptedKey. Its identifier differs from
// that of key transport: [0] is a SEQUENCE that begins with the key identifier.
func readEncryptedKey(in *cryptobyte.String) (r recipient, err error) {
	var body, encrypted cryptobyte.String
	if !in.ReadASN1(&body, cryptoasn1.SEQUENCE) {
		return r, fmt.Errorf("%w: recipient", ErrMalformed)
	}
	if body.PeekASN1Tag(context0Constructed) {
		var id, key cryptobyte.String
		if !body.ReadASN1(&id, context0Constructed) || !id.ReadASN1(&key, cryptoasn1.OCTET_STRING) || len(key) == 0 {
			return r, fmt.Errorf("%w: key identifier", ErrMalformed)
		}
		r.id.keyID = key
	} else if r.id, err = readCertID(&body); err != nil {
		return r, err
	}
	if !body.ReadASN1(&encrypted, cryptoasn1.OCTET_STRING) || !body.Empty() {
		return r, fmt.Errorf("%w: recipient", ErrMalformed)
	}
	r.encrypted = encrypted
	return r, nil
}

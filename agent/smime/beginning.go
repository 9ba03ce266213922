package smime

import (
	"encoding/asn1"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	cryptoasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// RecipientsAt is [Recipients] for the beginning of a message: nothing behind the
// recipients is looked at, or need be there. [ErrCutOff] says that more is
// needed, [ErrUnsupported] that it is no encrypted message.
func RecipientsAt(beginning []byte) ([]Recipient, error) {
	infos, err := recipientInfos(beginning)
	if err != nil {
		return nil, err
	}
	e := &envelope{}
	if err := e.readRecipientInfos(infos); err != nil {
		return nil, err
	}
	return e.named(), nil
}

// recipientInfos finds the content of the SET of RecipientInfo.
func recipientInfos(in []byte) (cryptobyte.String, error) {
	in, err := enter(in, cryptoasn1.SEQUENCE)
	if err != nil {
		return nil, err
	}
	oid, in, err := take(in)
	if err != nil {
		return nil, err
	}
	if err := encryptedType(oid); err != nil {
		return nil, err
	}
	for _, tag := range []cryptoasn1.Tag{context0Constructed, cryptoasn1.SEQUENCE} {
		if in, err = enter(in, tag); err != nil {
			return nil, err
		}
	}
	if _, in, err = take(in); err != nil { // the version
		return nil, err
	}
	infos, in, err := take(in)
	if err == nil && cryptoasn1.Tag(infos[0]) == context0Constructed { // the originator's certificates
		infos, _, err = take(in)
	}
	if err != nil {
		return nil, err
	}
	der, err := normalize(infos)
	if err != nil {
		return nil, err
	}
	var set cryptobyte.String
	if s := cryptobyte.String(der); !s.ReadASN1(&set, cryptoasn1.SET) {
		return nil, fmt.Errorf("%w: enveloped data", ErrMalformed)
	}
	return set, nil
}

func encryptedType(element []byte) error {
	var oid asn1.ObjectIdentifier
	if s := cryptobyte.String(element); !s.ReadASN1ObjectIdentifier(&oid) {
		return fmt.Errorf("%w: content info", ErrMalformed)
	}
	if !oid.Equal(oidEnvelopedData) && !oid.Equal(oidAuthEnvelopedData) {
		return fmt.Errorf("%w: not encrypted data", ErrUnsupported)
	}
	return nil
}

// enter steps over the header of an element with that tag.
func enter(in []byte, tag cryptoasn1.Tag) ([]byte, error) {
	e, err := readHeader(in)
	if err != nil {
		return nil, err
	}
	if e.tag != tag {
		return nil, fmt.Errorf("%w: tag %#x, want %#x", ErrMalformed, byte(e.tag), byte(tag))
	}
	return in[e.header:], nil
}

// take cuts a whole element off.
func take(in []byte) (whole, rest []byte, err error) {
	n, err := sizeOf(in, 0)
	if err != nil {
		return nil, nil, err
	}
	return in[:n], in[n:], nil
}

//go:build cgo || windows

package pkcs11

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // NSS's rule for CKA_ID, no protection rests on it
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"

	p11 "github.com/miekg/pkcs11"
)

// KeySpec is the key pair to make: RSA if Bits is set, else EC.
type KeySpec struct {
	Label string
	Bits  int
	Curve elliptic.Curve
	// Decrypt asks for RSA decryption or EC key agreement beside signing.
	Decrypt bool
	// NSS adds what NSS wants of a key that unwraps content keys, and files the
	// pair as suits NSS.
	NSS bool
}

// Half is a private or a public key object.
type Half struct {
	Object  Object
	Private bool
	Label   string
	ID      []byte
	// Public is nil where the object alone does not yield it: EC private keys.
	Public crypto.PublicKey
}

// Generate makes a pair inside the token. In NSS both objects bear their final
// label and ID when they are filed. Elsewhere they bear the label from the start
// and a random CKA_ID; [Session.SetID] gives them NSS's.
func (s *Session) Generate(spec KeySpec) error {
	id := make([]byte, sha1.Size)
	if _, err := rand.Read(id); err != nil {
		return fmt.Errorf("make key ID: %w", err)
	}
	public, private, err := templates(spec, id)
	if err != nil {
		return err
	}
	kind := uint(p11.CKM_EC_KEY_PAIR_GEN)
	if spec.Bits != 0 {
		kind = p11.CKM_RSA_PKCS_KEY_PAIR_GEN
	}
	publicHandle, privateHandle, err := s.c.GenerateKeyPair(s.h, []*mechanism{newMechanism(kind, nil)}, public, private)
	if err != nil {
		return fmt.Errorf("generate key pair: %w", err)
	}
	if spec.NSS {
		return s.file(Object(publicHandle), Object(privateHandle))
	}
	return nil
}

// file gives a pair that only this session knows NSS's ID and puts it into the
// token, the private half first: nobody shall take a public half alone for a
// key. NSS writes each object and each later change in a transaction of its own,
// so this saves two of four. The session's own objects end with it.
func (s *Session) file(public, private Object) error {
	id, err := KeyID(s.half(public, false).Public)
	if err != nil {
		return err
	}
	for _, o := range []Object{private, public} {
		if err := s.set(o, p11.CKA_ID, id); err != nil {
			return err
		}
		token := []*attr{attribute(p11.CKA_TOKEN, true)}
		if _, err := s.c.CopyObject(s.h, objectHandle(o), token); err != nil {
			return fmt.Errorf("file key: %w", err)
		}
	}
	return nil
}

func templates(spec KeySpec, id []byte) (public, private []*attr, err error) {
	public = []*attr{
		attribute(p11.CKA_TOKEN, !spec.NSS), attribute(p11.CKA_PRIVATE, false), attribute(p11.CKA_VERIFY, true),
		attribute(p11.CKA_ID, id), attribute(p11.CKA_LABEL, spec.Label),
	}
	private = []*attr{
		attribute(p11.CKA_TOKEN, !spec.NSS), attribute(p11.CKA_PRIVATE, true), attribute(p11.CKA_SENSITIVE, true),
		attribute(p11.CKA_EXTRACTABLE, false), attribute(p11.CKA_SIGN, true),
		attribute(p11.CKA_ID, id), attribute(p11.CKA_LABEL, spec.Label),
	}
	if spec.Bits != 0 {
		public = append(public, attribute(p11.CKA_MODULUS_BITS, spec.Bits),
			attribute(p11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1}), attribute(p11.CKA_ENCRYPT, spec.Decrypt))
		private = append(private, attribute(p11.CKA_DECRYPT, spec.Decrypt))
		if spec.NSS {
			public = append(public, attribute(p11.CKA_WRAP, spec.Decrypt))
			private = append(private, attribute(p11.CKA_UNWRAP, spec.Decrypt))
		}
		return public, private, nil
	}
	params, err := curveParams(spec.Curve)
	if err != nil {
		return nil, nil, err
	}
	public = append(public, attribute(p11.CKA_EC_PARAMS, params))
	if spec.Decrypt {
		private = append(private, attribute(p11.CKA_DERIVE, true))
	}
	return public, private, nil
}

// KeyHalves lists the private and public key objects with a label, or all if
// label is empty. Objects that cannot be read are left out: other programs'
// odd keys must not hide ours.
func (s *Session) KeyHalves(label string) ([]Half, error) {
	var halves []Half
	for _, private := range []bool{true, false} {
		class := uint(p11.CKO_PUBLIC_KEY)
		if private {
			class = p11.CKO_PRIVATE_KEY
		}
		template := []*attr{attribute(p11.CKA_CLASS, class), attribute(p11.CKA_TOKEN, true)}
		if label != "" {
			template = append(template, attribute(p11.CKA_LABEL, label))
		}
		objects, err := s.find(template...)
		if err != nil {
			return nil, err
		}
		for _, o := range objects {
			halves = append(halves, s.half(o, private))
		}
	}
	return halves, nil
}

func (s *Session) half(o Object, private bool) Half {
	values := s.getSome(o, p11.CKA_LABEL, p11.CKA_ID, p11.CKA_KEY_TYPE)
	h := Half{Object: o, Private: private, Label: string(values[0]), ID: values[1]}
	if ec := attribute(p11.CKA_KEY_TYPE, uint(p11.CKK_EC)).Value; !bytes.Equal(values[2], ec) {
		values = s.getSome(o, p11.CKA_MODULUS, p11.CKA_PUBLIC_EXPONENT)
		if n, e := values[0], values[1]; len(n) > 0 && len(e) > 0 {
			if exponent := new(big.Int).SetBytes(e); exponent.IsInt64() {
				h.Public = &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(exponent.Int64())}
			}
			return h
		}
	}
	if private {
		return h
	}
	values = s.getSome(o, p11.CKA_EC_PARAMS, p11.CKA_EC_POINT)
	if key, err := parsePoint(values[0], values[1]); err == nil {
		h.Public = key
	}
	return h
}

// SetID gives an object the CKA_ID that NSS computes from the public key, so
// that certificates imported by NSS's own tools find the key too.
func (s *Session) SetID(h Half, id []byte) error {
	if bytes.Equal(h.ID, id) {
		return nil
	}
	return s.set(h.Object, p11.CKA_ID, id)
}

// KeyID is NSS's rule (PK11_MakeIDFromPubKey): SHA-1 of the modulus without
// leading zero, or of the uncompressed point.
func KeyID(public crypto.PublicKey) ([]byte, error) {
	var raw []byte
	switch key := public.(type) {
	case *rsa.PublicKey:
		raw = key.N.Bytes()
	case *ecdsa.PublicKey:
		point, err := key.Bytes()
		if err != nil {
			return nil, fmt.Errorf("encode point: %w", err)
		}
		raw = point
	default:
		return nil, fmt.Errorf("make key ID: no rule for %T", public)
	}
	sum := sha1.Sum(raw) //nolint:gosec // an identifier, see above
	return sum[:], nil
}

// The curves by their DER-encoded names (RFC 5480 §2.1.1.1).
var (
	paramsP256 = []byte{0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07}
	paramsP384 = []byte{0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22}
)

func curveParams(c elliptic.Curve) ([]byte, error) {
	switch c {
	case elliptic.P256():
		return paramsP256, nil
	case elliptic.P384():
		return paramsP384, nil
	}
	return nil, errors.New("no such curve")
}

// parsePoint reads CKA_EC_POINT, which the standard wants as DER OCTET STRING
// and some modules give bare. It checks that the point lies on the curve.
func parsePoint(params, point []byte) (*ecdsa.PublicKey, error) {
	var curve elliptic.Curve
	switch {
	case bytes.Equal(params, paramsP256):
		curve = elliptic.P256()
	case bytes.Equal(params, paramsP384):
		curve = elliptic.P384()
	default:
		return nil, errors.New("parse public key: unknown curve")
	}
	// A bare point begins with 4 (SEC 1 §2.3.3), which is the tag of an OCTET STRING
	// too; now and then its first byte of x is a fitting length. Its size decides.
	var inner []byte
	bare := len(point) == 1+2*((curve.Params().BitSize+7)/8)
	if rest, err := asn1.Unmarshal(point, &inner); err == nil && len(rest) == 0 && !bare {
		point = inner
	}
	key, err := ecdsa.ParseUncompressedPublicKey(curve, point)
	if err != nil {
		return nil, fmt.Errorf("parse public key: %w", err)
	}
	return key, nil
}

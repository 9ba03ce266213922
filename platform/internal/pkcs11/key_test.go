//go:build cgo || windows

package pkcs11

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"encoding/asn1"
	"errors"
	"fmt"
	"testing"

	p11 "github.com/miekg/pkcs11"
)

func TestParsePoint(t *testing.T) {
	for params, curve := range map[string]elliptic.Curve{string(paramsP256): elliptic.P256(), string(paramsP384): elliptic.P384()} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		bare, err := key.PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		wrapped, err := asn1.Marshal(bare)
		if err != nil {
			t.Fatal(err)
		}
		for name, point := range map[string][]byte{"bare": bare, "wrapped": wrapped} {
			got, err := parsePoint([]byte(params), point)
			if err != nil || !got.Equal(&key.PublicKey) {
				t.Errorf("%s point: %v, %v", name, got, err)
			}
		}
		id, err := KeyID(&key.PublicKey)
		if want := sha1.Sum(bare); err != nil || !bytes.Equal(id, want[:]) {
			t.Errorf("key ID %x, %v; want %x", id, err, want)
		}
		off := bytes.Clone(bare)
		off[len(off)-1] ^= 1
		for name, bad := range map[string][]byte{"off the curve": off, "cut": bare[:len(bare)-1], "empty": nil, "infinity": {0}} {
			if got, err := parsePoint([]byte(params), bad); err == nil {
				t.Errorf("a point that is %s gave %v", name, got)
			}
		}
		if got, err := parsePoint([]byte("another curve"), bare); err == nil {
			t.Errorf("an unknown curve gave %v", got)
		}
	}
}

func TestKeyIDHasNoRule(t *testing.T) {
	for _, key := range []any{nil, "text"} {
		if id, err := KeyID(key); err == nil {
			t.Errorf("KeyID of %T gave %x", key, id)
		}
	}
}

func TestClassOf(t *testing.T) {
	joined := fmt.Errorf("decrypt: %w: %w", Code(p11.CKR_ENCRYPTED_DATA_INVALID), Code(p11.CKR_GENERAL_ERROR))
	for err, want := range map[error]Class{
		nil:                                      "",
		errors.New("plain"):                      "",
		Code(p11.CKR_OK):                         "",
		Code(p11.CKR_HOST_MEMORY):                "",
		Code(p11.CKR_GENERAL_ERROR):              Failed,
		Code(cKRNSSCertDBFailed):                 Denied,
		joined:                                   Unreadable,
		errors.Join(errors.New("x"), errNoToken): Absent,
	} {
		if got := ClassOf(err); got != want {
			t.Errorf("ClassOf(%v) = %q, want %q", err, got, want)
		}
	}
}

func TestLoadRefuses(t *testing.T) {
	if _, err := Load("/nowhere/module.so"); err == nil {
		t.Error("a missing library was loaded")
	}
	if _, err := Load("libc.so.6"); err == nil {
		t.Error("a library that is no module was loaded")
	}
}

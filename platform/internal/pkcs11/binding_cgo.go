//go:build cgo && !windows

package pkcs11

import (
	"fmt"

	p11 "github.com/miekg/pkcs11"
)

// The binding where a C compiler is at hand. binding_windows.go has the same
// names for a program built without one; what uses them knows no difference.
type (
	binding       = p11.Ctx
	attr          = p11.Attribute
	mechanism     = p11.Mechanism
	objectHandle  = p11.ObjectHandle
	sessionHandle = p11.SessionHandle
)

// Code is a function's answer (CK_RV) that is not CKR_OK.
type Code = p11.Error

func newAttribute(kind uint, value any) *attr { return p11.NewAttribute(kind, value) }

func newMechanism(kind uint, params any) *mechanism { return p11.NewMechanism(kind, params) }

func newPSSParams(hash, mgf, salt uint) any { return p11.NewPSSParams(hash, mgf, salt) }

func newOAEPParams(hash, mgf, source uint, label []byte) any {
	return p11.NewOAEPParams(hash, mgf, source, label)
}

func newECDH1Params(kdf uint, shared, public []byte) any {
	return p11.NewECDH1DeriveParams(kdf, shared, public)
}

// bind loads the library, after the siblings that it does not find by itself.
func bind(path string, siblings []string) (*binding, error) {
	for _, s := range siblings {
		if err := openGlobal(s); err != nil {
			return nil, fmt.Errorf("load %s: %w", s, err)
		}
	}
	if err := probe(path); err != nil {
		return nil, fmt.Errorf("load %s: %w", path, err)
	}
	b := p11.New(path)
	if b == nil {
		return nil, fmt.Errorf("load %s: the library cannot be loaded", path)
	}
	return b, nil
}

// initialize calls C_Initialize. The text goes along as pReserved, where NSS,
// whose structure has one field more, looks for its parameters.
func initialize(b *binding, text string) error {
	if text == "" {
		return b.Initialize()
	}
	pointer, free := reserved(text)
	defer free()
	return b.Initialize(p11.InitializeWithReserved(pointer))
}

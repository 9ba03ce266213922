//go:build cgo || windows

package pkcs11

import (
	"context"
	"fmt"

	p11 "github.com/miekg/pkcs11"
)

// Place says which token of which module.
type Place struct {
	Module *Module
	// Init goes to C_Initialize as pReserved; only NSS knows such a thing.
	Init string
	// Label picks the token; empty picks the only one that is set up.
	Label string
	// Files are all that the token keeps, for a module that keeps it in files and
	// reads them at each operation. Then one use may go on where the last one
	// ended a moment ago, without another C_Initialize, if nobody wrote to them.
	Files []string
}

// Token is what a token says of itself.
type Token struct {
	Label, Model, Manufacturer string
	// Flags are CK_TOKEN_INFO.flags, SlotFlags CK_SLOT_INFO.flags.
	Flags, SlotFlags uint
	slot             uint
}

// Hardware is the slot's word (CKF_HW_SLOT) that a device does the work.
func (t Token) Hardware() bool { return t.SlotFlags&p11.CKF_HW_SLOT != 0 }

// LoginRequired says that private keys are seen only after a login.
func (t Token) LoginRequired() bool { return t.Flags&p11.CKF_LOGIN_REQUIRED != 0 }

// PINSet says that the user's PIN was ever set, be it to the empty one.
func (t Token) PINSet() bool { return t.Flags&p11.CKF_USER_PIN_INITIALIZED != 0 }

// PINBlocked says that no PIN is accepted any more.
func (t Token) PINBlocked() bool { return t.Flags&p11.CKF_USER_PIN_LOCKED != 0 }

// LastTry says that one more wrong PIN blocks the token.
func (t Token) LastTry() bool { return t.Flags&p11.CKF_USER_PIN_FINAL_TRY != 0 }

// PINPad says that the PIN is typed at the device, which this package cannot use.
func (t Token) PINPad() bool { return t.Flags&p11.CKF_PROTECTED_AUTHENTICATION_PATH != 0 }

// Session is a token in use.
type Session struct {
	Token Token
	c     *binding
	h     sessionHandle
}

// Use opens the place, hands it to fn and closes it again. write asks for a
// session that may change the token.
func (p Place) Use(ctx context.Context, write bool, fn func(*Session) error) error {
	return p.Module.use(ctx, p, func() error {
		c := p.Module.c
		token, err := p.find(c)
		if err != nil {
			return err
		}
		flags := uint(p11.CKF_SERIAL_SESSION)
		if write {
			flags |= p11.CKF_RW_SESSION
		}
		h, err := c.OpenSession(token.slot, flags)
		if err != nil {
			return fmt.Errorf("open session on token %q: %w", token.Label, err)
		}
		// C_Finalize would close it too; an error here changes nothing.
		defer func() { _ = c.CloseSession(h) }()
		return fn(&Session{Token: token, c: c, h: h})
	})
}

func (p Place) find(c *binding) (Token, error) {
	slots, err := c.GetSlotList(true)
	if err != nil {
		return Token{}, fmt.Errorf("list tokens of %s: %w", p.Module.path, err)
	}
	var found []Token
	for _, slot := range slots {
		t, err := readToken(c, slot)
		if err != nil {
			continue // pulled out meanwhile, or unreadable: not the one we look for
		}
		if p.Label == "" && t.Flags&p11.CKF_TOKEN_INITIALIZED != 0 || p.Label != "" && t.Label == p.Label {
			found = append(found, t)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) == 0:
		return Token{}, fmt.Errorf("find token %q of %s: %w", p.Label, p.Module.path, errNoToken)
	}
	return Token{}, fmt.Errorf("find token %q of %s: %d tokens fit, one label must name one token",
		p.Label, p.Module.path, len(found))
}

func readToken(c *binding, slot uint) (Token, error) {
	s, err := c.GetSlotInfo(slot)
	if err != nil {
		return Token{}, err
	}
	t, err := c.GetTokenInfo(slot)
	if err != nil {
		return Token{}, err
	}
	return Token{Label: t.Label, Model: t.Model, Manufacturer: t.ManufacturerID,
		Flags: t.Flags, SlotFlags: s.Flags, slot: slot}, nil
}

// Login shows the user's PIN to the token.
func (s *Session) Login(pin string) error {
	err := s.c.Login(s.h, p11.CKU_USER, pin)
	if is(err, p11.CKR_USER_ALREADY_LOGGED_IN) {
		return nil
	}
	return err
}

// SetEmptyPIN makes a new NSS database usable without a password, as
// Thunderbird does with a new profile. It needs a session that may write, and
// changes nothing in a database whose password was ever set.
func (s *Session) SetEmptyPIN() error {
	if s.Token.PINSet() {
		return nil
	}
	if err := s.c.Login(s.h, p11.CKU_SO, ""); err != nil {
		return fmt.Errorf("set up new database: %w", err)
	}
	if err := s.c.InitPIN(s.h, ""); err != nil {
		return fmt.Errorf("set empty password: %w", err)
	}
	if err := s.c.Logout(s.h); err != nil {
		return fmt.Errorf("set up new database: %w", err)
	}
	t, err := readToken(s.c, s.Token.slot)
	if err != nil {
		return fmt.Errorf("reread token: %w", err)
	}
	s.Token = t
	return nil
}

// Generates says whether the token makes such keys, by its own word
// (CK_MECHANISM_INFO gives the least and the greatest size in bits).
func (s *Session) Generates(spec KeySpec) bool {
	if spec.Bits != 0 {
		return s.supports(p11.CKM_RSA_PKCS_KEY_PAIR_GEN, spec.Bits)
	}
	return s.supports(p11.CKM_EC_KEY_PAIR_GEN, spec.Curve.Params().BitSize)
}

// Decrypts says whether such a key could decrypt mail: tpm2-pkcs11 1.9 makes
// EC keys that cannot agree.
func (s *Session) Decrypts(spec KeySpec) bool {
	if spec.Bits != 0 {
		return s.supports(p11.CKM_RSA_PKCS, spec.Bits)
	}
	return s.supports(p11.CKM_ECDH1_DERIVE, spec.Curve.Params().BitSize)
}

func (s *Session) supports(kind uint, bits int) bool {
	i, err := s.c.GetMechanismInfo(s.Token.slot, []*mechanism{newMechanism(kind, nil)})
	return err == nil && i.MinKeySize <= uint(bits) && uint(bits) <= i.MaxKeySize
}

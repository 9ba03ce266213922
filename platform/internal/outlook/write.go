package outlook

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// OurName is that of our settings in the Trust Center.
const OurName = "smime-agent"

// Change is what is to be set; nil and empty leave what is there.
type Change struct {
	SignSHA1, EncryptSHA1 []byte
	Sign, Encrypt         *bool
	Cipher, Hash          string
}

// Apply writes a change beside the settings of others: first the certificates,
// then the switches that need them, so that what a kill leaves is good at each
// moment and the next Apply completes it. Each value is old or new, never half.
func (a Account) Apply(c Change) error {
	profile, err := a.changedProfile(c)
	if err != nil {
		return err
	}
	flags, err := a.changedFlags(c)
	if err != nil {
		return err
	}
	if err := a.keepFormer(); err != nil {
		return err
	}
	for _, w := range []struct {
		name  string
		value *Value
	}{{profilesValue, profile}, {flagsValue, flags}} {
		if w.value == nil || sameOctets(a.registry, a.security(), w.name, *w.value) {
			continue
		}
		if err := a.registry.Set(a.security(), w.name, *w.value); err != nil {
			return fmt.Errorf("write %s: %w", w.name, err)
		}
		if !sameOctets(a.registry, a.security(), w.name, *w.value) {
			return fmt.Errorf("read back %s: it is not what was written", w.name)
		}
	}
	return nil
}

// changedProfile makes our settings out of those in force; nil if nothing is said
// of certificates and algorithms.
func (a Account) changedProfile(c Change) (*Value, error) {
	if c.SignSHA1 == nil && c.EncryptSHA1 == nil && c.Cipher == "" && c.Hash == "" {
		return nil, nil
	}
	profile, bits, err := a.read()
	if err != nil {
		return nil, err
	}
	base, _ := profile.Default()
	s := Settings{
		Name: OurName, Defaults: DefaultForFormat | GlobalDefault | SendCertificate, SignSHA1: base.SignSHA1(), EncryptSHA1: base.EncryptSHA1(),
	}
	cipher, hash := preferred(base.Capabilities(), ciphers), preferred(base.Capabilities(), hashes)
	if c.SignSHA1 != nil {
		s.SignSHA1 = c.SignSHA1
	}
	if c.EncryptSHA1 != nil {
		s.EncryptSHA1 = c.EncryptSHA1
	}
	if c.Cipher != "" {
		cipher = c.Cipher
	}
	if c.Hash != "" {
		hash = c.Hash
	}
	s.Capabilities = Capabilities(cipher, hash)
	ours, err := New(s)
	if err != nil {
		return nil, err
	}
	if profile, err = profile.With(ours); err != nil {
		return nil, err
	}
	raw, err := profile.Marshal(bits)
	if err != nil {
		return nil, err
	}
	return &Value{Kind: Binary, Data: raw}, nil
}

// changedFlags keeps the bits that nobody knows.
func (a Account) changedFlags(c Change) (*Value, error) {
	if c.Sign == nil && c.Encrypt == nil {
		return nil, nil
	}
	flags, _, err := numberOf(a.registry, a.security(), flagsValue)
	if err != nil {
		return nil, err
	}
	flags = withBit(withBit(flags, signBit, c.Sign), encryptBit, c.Encrypt)
	return &Value{Kind: Binary, Data: binary.LittleEndian.AppendUint32(nil, flags)}, nil
}

func withBit(flags, bit uint32, on *bool) uint32 {
	switch {
	case on == nil:
		return flags
	case *on:
		return flags | bit
	default:
		return flags &^ bit
	}
}

// Names in the backup. What was not there is kept as a number of that name.
const (
	absent  = " absent"
	backed  = "complete"
	keyName = "key"
)

// keepFormer keeps what was there before the first change. It counts once it is
// complete, so that a kill in the middle is begun anew, before any change.
func (a Account) keepFormer() error {
	_, done, err := numberOf(a.registry, a.backup(), backed)
	if err != nil || done {
		return err
	}
	if err := a.forget(); err != nil { // half of an earlier attempt
		return err
	}
	if _, err := a.registry.Keys(CurrentUser, a.security()); errors.Is(err, ErrNone) {
		if err := a.registry.Set(a.backup(), keyName+absent, one()); err != nil {
			return fmt.Errorf("keep the former settings: %w", err)
		}
	}
	for _, name := range []string{profilesValue, flagsValue} {
		v, err := a.registry.Value(CurrentUser, a.security(), name)
		kept := name
		if errors.Is(err, ErrNone) {
			v, err, kept = one(), nil, name+absent
		}
		if err == nil {
			err = a.registry.Set(a.backup(), kept, v)
		}
		if err != nil {
			return fmt.Errorf("keep the former settings: %w", err)
		}
	}
	if err := a.registry.Set(a.backup(), backed, one()); err != nil {
		return fmt.Errorf("keep the former settings: %w", err)
	}
	return nil
}

func one() Value { return Value{Kind: DWord, Data: number(1)} }

// Changed says that Undo has something to put back.
func (a Account) Changed() (bool, error) {
	_, done, err := numberOf(a.registry, a.backup(), backed)
	return done, err
}

// Undo puts back the former values, and forgets them when all are back.
func (a Account) Undo() error {
	if done, err := a.Changed(); err != nil || !done {
		return err
	}
	for _, name := range []string{flagsValue, profilesValue} { // the switches before what they need
		v, err := a.registry.Value(CurrentUser, a.backup(), name)
		switch {
		case errors.Is(err, ErrNone):
			err = a.registry.Unset(a.security(), name)
		case err == nil:
			err = a.registry.Set(a.security(), name, v)
		}
		if err != nil {
			return fmt.Errorf("put %s back: %w", name, err)
		}
	}
	if _, gone, err := numberOf(a.registry, a.backup(), keyName+absent); err != nil {
		return err
	} else if gone {
		if err := a.registry.Unset(a.security(), ""); err != nil {
			return fmt.Errorf("remove the key that was not there: %w", err)
		}
	}
	return a.forget()
}

// forget begins with the mark, so that half a backup counts as none.
func (a Account) forget() error {
	for _, name := range []string{backed, keyName + absent, profilesValue, profilesValue + absent, flagsValue, flagsValue + absent, ""} {
		if err := a.registry.Unset(a.backup(), name); err != nil {
			return fmt.Errorf("forget the former settings: %w", err)
		}
	}
	return nil
}

// UsesNew says that the person has switched to the new Outlook, which has no
// profiles of this kind.
func UsesNew(r Registry) (bool, error) {
	n, _, err := numberOf(r, officeKey+`16.0\Outlook\Preferences`, "UseNewOutlook")
	return n == 1, err
}

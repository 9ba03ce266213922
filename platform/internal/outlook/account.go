package outlook

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// The places. The section of the security settings is the profile section GUID
// {53BC2EC0-D953-11CD-9752-00AA004AE40E} by its octets; the value's names are the
// property tags PR_SECURITY_PROFILES (0x03551102) and 0x03540003, type first.
const (
	officeKey       = `Software\Microsoft\Office\`
	policyKey       = `Software\Policies\Microsoft\Office\`
	accountsSection = `9375CFF0413111d3B88A00104B2A6676`
	securitySection = `c02ebc5353d9cd11975200aa004ae40e`
	profilesValue   = "11020355"
	flagsValue      = "00030354"
)

// The bits of the flags.
const (
	encryptBit = 1
	signBit    = 2
)

// backupKey is where the former values are kept for Undo: a place of the agent's
// own, since nobody knows what Outlook does with values that it does not know.
const backupKey = `Software\smime-agent\outlook\`

// Versions of Outlook that keep their profiles in this way: 2013, and 2016 with
// all that came after it.
func versions() []string { return []string{"16.0", "15.0"} }

// Account is one MAPI profile that has the mailbox.
type Account struct {
	registry Registry
	// Version is "16.0", Profile the profile's name, Mailbox the address as the
	// profile spells it.
	Version, Profile, Mailbox string
}

// Accounts finds the profiles with a mailbox. Those that cannot be read are left
// out and joined in the error.
func Accounts(r Registry, mailbox string) ([]Account, error) {
	var found []Account
	var failed error
	for _, version := range versions() {
		profiles, err := keysOf(r, officeKey+version+`\Outlook\Profiles`)
		failed = errors.Join(failed, err)
		for _, profile := range profiles {
			a := Account{registry: r, Version: version, Profile: profile}
			a.Mailbox, err = a.spelled(mailbox)
			failed = errors.Join(failed, err)
			if a.Mailbox != "" {
				found = append(found, a)
			}
		}
	}
	return found, failed
}

func keysOf(r Registry, key string) ([]string, error) {
	names, err := r.Keys(CurrentUser, key)
	if errors.Is(err, ErrNone) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", key, err)
	}
	return names, nil
}

// spelled finds the mailbox among the profile's accounts: "Email" for POP and
// IMAP, "Account Name" for Exchange, where it is the address.
func (a Account) spelled(mailbox string) (string, error) {
	section := a.key() + `\` + accountsSection
	accounts, err := keysOf(a.registry, section)
	for _, account := range accounts {
		for _, name := range []string{"Email", "Account Name"} {
			address, failed := textOf(a.registry, CurrentUser, section+`\`+account, name)
			if failed == nil && strings.EqualFold(address, mailbox) {
				return address, nil
			}
			err = errors.Join(err, failed)
		}
	}
	return "", err
}

func (a Account) key() string      { return officeKey + a.Version + `\Outlook\Profiles\` + a.Profile }
func (a Account) security() string { return a.key() + `\` + securitySection }
func (a Account) backup() string   { return backupKey + a.Version + `\` + a.Profile }

// bitness is that of the installed Outlook. Where the installation does not say,
// a value that is there does, if it can be read in one way only.
func (a Account) bitness(value []byte) (Bitness, error) {
	for _, key := range []string{`SOFTWARE\Microsoft\Office\`, `SOFTWARE\WOW6432Node\Microsoft\Office\`} {
		said, err := textOf(a.registry, LocalMachine, key+a.Version+`\Outlook`, "Bitness")
		switch {
		case err != nil:
			return 0, err
		case said == "x86":
			return X86, nil
		case said == "x64":
			return X64, nil
		}
	}
	_, narrow := Parse(value, X86)
	_, wide := Parse(value, X64)
	switch {
	case narrow == nil && wide != nil:
		return X86, nil
	case wide == nil && narrow != nil:
		return X64, nil
	}
	return 0, fmt.Errorf("%w: the installation of Outlook %s does not say whether it has 32 or 64 bits", ErrNone, a.Version)
}

// State is what a profile has set, and what group policy holds.
type State struct {
	// SignSHA1 and EncryptSHA1 are those of the default settings; nil if there are none.
	SignSHA1, EncryptSHA1 []byte
	Sign, Encrypt         bool
	// Flagged says that Sign and Encrypt stand in the profile.
	Flagged      bool
	Cipher, Hash string
	// Held are what policy or somebody else holds beside the profile: "sign",
	// "encrypt", "clear-sign" with "on" or "off", "hash" and "cipher" with a word of ours, or
	// with the object identifier of another algorithm.
	Held map[string]string
}

// State reads the settings in force.
func (a Account) State() (State, error) {
	s := State{Held: map[string]string{}}
	profile, _, err := a.read()
	if err != nil {
		return s, err
	}
	if b, ok := profile.Default(); ok {
		s.SignSHA1, s.EncryptSHA1 = b.SignSHA1(), b.EncryptSHA1()
		s.Cipher, s.Hash = preferred(b.Capabilities(), ciphers), preferred(b.Capabilities(), hashes)
	}
	flags, ok, err := numberOf(a.registry, a.security(), flagsValue)
	if err != nil {
		return s, err
	}
	s.Flagged, s.Sign, s.Encrypt = ok, flags&signBit != 0, flags&encryptBit != 0
	return s, a.held(&s)
}

// read gives the profile's value; an empty profile if there is none.
func (a Account) read() (Profile, Bitness, error) {
	v, err := a.registry.Value(CurrentUser, a.security(), profilesValue)
	if errors.Is(err, ErrNone) || err == nil && len(v.Data) == 0 {
		b, err := a.bitness(nil)
		return nil, b, err
	}
	if err != nil {
		return nil, 0, fmt.Errorf("read the security profile: %w", err)
	}
	b, err := a.bitness(v.Data)
	if err != nil {
		return nil, 0, err
	}
	if v.Kind != Binary {
		return nil, 0, fmt.Errorf("%w: it is of type %d", ErrMalformed, v.Kind)
	}
	p, err := Parse(v.Data, b)
	return p, b, err
}

// switches are policy values that hold what the profile would say (outlk16.admx).
// AlwaysEncrypt 0 takes the choice from the user too; the others then only leave it.
var switches = []struct {
	value, name string
	offHolds    bool
}{{"AlwaysSign", "sign", false}, {"AlwaysEncrypt", "encrypt", true}, {"ClearSign", "clear-sign", true}}

// overrides are values that beat the profile's own algorithms, wherever they stand.
var overrides = []struct {
	use, oid, name string
	words          map[string]string
}{
	{"UseAlternateDefaultEncryptionAlg", "DefaultEncryptionAlgOID", "cipher", map[string]string{
		"2.16.840.1.101.3.4.1.2": "aes-128", "2.16.840.1.101.3.4.1.22": "aes-192", "2.16.840.1.101.3.4.1.42": "aes-256",
	}},
	{"UseAlternateDefaultHashAlg", "DefaultHashOID", "hash", map[string]string{
		"2.16.840.1.101.3.4.2.1": "sha-256", "2.16.840.1.101.3.4.2.2": "sha-384", "2.16.840.1.101.3.4.2.3": "sha-512",
	}},
}

func (a Account) held(s *State) error {
	policy, own := policyKey+a.Version+`\Outlook\Security`, officeKey+a.Version+`\Outlook\Security`
	for _, w := range switches {
		n, ok, err := numberOf(a.registry, policy, w.value)
		if err != nil {
			return err
		}
		switch {
		case ok && n != 0:
			s.Held[w.name] = "on"
		case ok && w.offHolds:
			s.Held[w.name] = "off"
		}
	}
	for _, o := range overrides {
		for _, key := range []string{own, policy} { // policy has the last word
			use, _, err := numberOf(a.registry, key, o.use)
			if err != nil {
				return err
			}
			if use == 0 {
				continue
			}
			oid, err := textOf(a.registry, CurrentUser, key, o.oid)
			if err != nil {
				return err
			}
			if s.Held[o.name] = oid; o.words[oid] != "" {
				s.Held[o.name] = o.words[oid]
			}
		}
	}
	return nil
}

// sameOctets says that a value is there with these octets.
func sameOctets(r Registry, key, name string, v Value) bool {
	is, err := r.Value(CurrentUser, key, name)
	return err == nil && is.Kind == v.Kind && bytes.Equal(is.Data, v.Data)
}

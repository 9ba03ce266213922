package outlook

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"
)

// memory is a registry in memory. After writes left it refuses, as if the program
// had been killed there.
type memory struct {
	values map[string]Value // by hive, key and name
	keys   map[string]bool
	left   int
}

var errKilled = errors.New("killed")

func newMemory() *memory {
	return &memory{values: map[string]Value{}, keys: map[string]bool{}, left: 1 << 30}
}

func place(h Hive, key string) string { return strings.ToLower(string(h) + `\` + key) }

func (m *memory) Keys(h Hive, key string) ([]string, error) {
	found, there := map[string]bool{}, m.keys[place(h, key)]
	for k := range m.keys {
		if rest, ok := strings.CutPrefix(k, place(h, key)+`\`); ok {
			there = true
			name, _, _ := strings.Cut(rest, `\`)
			found[name] = true
		}
	}
	if !there {
		return nil, ErrNone
	}
	return slices.Sorted(maps.Keys(found)), nil
}

func (m *memory) Value(h Hive, key, name string) (Value, error) {
	v, ok := m.values[place(h, key)+"|"+name]
	if !ok {
		return Value{}, ErrNone
	}
	return v, nil
}

func (m *memory) write() error {
	if m.left--; m.left < 0 {
		return errKilled
	}
	return nil
}

func (m *memory) put(h Hive, key, name string, v Value) {
	for k := place(h, key); ; {
		m.keys[k] = true
		i := strings.LastIndex(k, `\`)
		if i < 0 {
			break
		}
		k = k[:i]
	}
	m.values[place(h, key)+"|"+name] = v
}

func (m *memory) Set(key, name string, v Value) error {
	if err := m.write(); err != nil {
		return err
	}
	m.put(CurrentUser, key, name, v)
	return nil
}

func (m *memory) Unset(key, name string) error {
	at := place(CurrentUser, key)
	_, there := m.values[at+"|"+name]
	if name == "" {
		there = m.keys[at]
	}
	if !there {
		return nil
	}
	if err := m.write(); err != nil {
		return err
	}
	if name == "" {
		delete(m.keys, at)
	}
	delete(m.values, at+"|"+name)
	return nil
}

// dump is all of the user's registry but the agent's own place.
func (m *memory) dump() string {
	var lines []string
	for k, v := range m.values {
		if !strings.Contains(k, `\smime-agent\`) {
			lines = append(lines, fmt.Sprintf("%s=%d:%x", k, v.Kind, v.Data))
		}
	}
	for k := range m.keys {
		if !strings.Contains(k, `\smime-agent`) {
			lines = append(lines, k)
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func words(s string) Value {
	var data []byte
	for _, u := range append(utf16.Encode([]rune(s)), 0) {
		data = binary.LittleEndian.AppendUint16(data, u)
	}
	return Value{Kind: Text, Data: data}
}

const profilesKey = `Software\Microsoft\Office\16.0\Outlook\Profiles\`

// installed is Outlook with two profiles that have the mailbox, one of another's,
// and foreign security settings in the first.
func installed(t *testing.T, foreign vector) *memory {
	t.Helper()
	m := newMemory()
	m.put(LocalMachine, `SOFTWARE\Microsoft\Office\16.0\Outlook`, "Bitness", words(foreign.Office))
	for i, account := range []struct{ profile, name, address string }{
		{"Outlook", "Account Name", "Ann@corp.example"}, {"IMAP", "Email", "ann@corp.example"}, {"Shared", "Account Name", "sales@corp.example"},
	} {
		key := profilesKey + account.profile + `\` + accountsSection + fmt.Sprintf(`\%08d`, i+2)
		m.put(CurrentUser, key, account.name, words(account.address))
		m.put(CurrentUser, key, "clsid", words("{ED475411-B0D6-11D2-8C3B-00104B2A6676}"))
	}
	m.put(CurrentUser, profilesKey+`Outlook\`+securitySection, profilesValue, Value{Kind: Binary, Data: foreign.Value})
	m.put(CurrentUser, profilesKey+`Outlook\`+securitySection, "11020399", Value{Kind: Binary, Data: []byte("unknown")})
	m.put(CurrentUser, profilesKey+`Outlook\`+securitySection, flagsValue, Value{Kind: Binary, Data: []byte{0, 1, 0, 0}})
	return m
}

func accounts(t *testing.T, m *memory) []Account {
	t.Helper()
	found, err := Accounts(m, "ann@Corp.example")
	if err != nil || len(found) != 2 {
		t.Fatalf("%+v, %v", found, err)
	}
	return found
}

func hashed(b byte) []byte { return bytes.Repeat([]byte{b}, thumbprint) }

func everything(b byte, on bool) Change {
	return Change{SignSHA1: hashed(b), EncryptSHA1: hashed(b + 1), Sign: &on, Encrypt: &on, Cipher: "aes-128", Hash: "sha-512"}
}

// TestAccount: every profile with the mailbox gets our settings, foreign ones stay,
// and Undo puts back the very octets.
func TestAccount(t *testing.T) {
	for _, foreign := range vectors(t).Valid[:2] {
		m := installed(t, foreign)
		before := m.dump()
		for _, a := range accounts(t, m) {
			for _, change := range []Change{everything(1, true), everything(7, true), {SignSHA1: hashed(9)}} {
				if err := a.Apply(change); err != nil {
					t.Fatal(err)
				}
			}
			s, err := a.State()
			if err != nil || !bytes.Equal(s.SignSHA1, hashed(9)) || !bytes.Equal(s.EncryptSHA1, hashed(8)) || !s.Sign || !s.Encrypt ||
				s.Cipher != "aes-128" || s.Hash != "sha-512" {
				t.Errorf("%s: %+v, %v", a.Profile, s, err)
			}
		}
		p, _, err := accounts(t, m)[1].read()
		if err != nil || len(p) != 2 || p[1].Name() != foreign.Entries[0].Name || p[1].Defaults() != SendCertificate {
			t.Errorf("foreign settings: %+v, %v", p, err)
		}
		was, err := Parse(foreign.Value, foreign.bitness(t))
		if err != nil {
			t.Fatal(err)
		}
		if again, err := p[1].withDefaults(was[0].Defaults()); err != nil || !bytes.Equal(again.raw, was[0].raw) {
			t.Errorf("foreign settings are\n%x, were\n%x", again.raw, was[0].raw)
		}
		if v, _ := m.Value(CurrentUser, profilesKey+`Outlook\`+securitySection, flagsValue); !bytes.Equal(v.Data, []byte{3, 1, 0, 0}) {
			t.Errorf("flags %x", v.Data)
		}
		for _, a := range accounts(t, m) {
			for range 2 {
				if err := a.Undo(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if after := m.dump(); after != before {
			t.Errorf("after Undo\n%s\nbefore\n%s", after, before)
		}
	}
}

// TestKilled stops before each write of Apply and Undo: each value is old or new,
// signing is never on without a certificate, and the next attempt completes it.
func TestKilled(t *testing.T) {
	foreign := vectors(t).Valid[1]
	for kill := range 40 {
		m := installed(t, foreign)
		before := m.dump()
		apply := func(a Account) error { return a.Apply(everything(1, true)) }
		for _, step := range []func(Account) error{apply, Account.Undo} {
			m.left = kill
			for _, a := range accounts(t, m) {
				_ = step(a)
				s, err := a.State()
				if err != nil || s.Sign && s.SignSHA1 == nil {
					t.Fatalf("killed at %d: %+v, %v", kill, s, err)
				}
			}
			m.left = 1 << 30
			for _, a := range accounts(t, m) {
				if err := step(a); err != nil {
					t.Fatalf("killed at %d: %v", kill, err)
				}
			}
		}
		if after := m.dump(); after != before {
			t.Fatalf("killed at %d: after Undo\n%s\nbefore\n%s", kill, after, before)
		}
	}
}

func TestHeld(t *testing.T) {
	m := installed(t, vectors(t).Valid[0])
	policy := `Software\Policies\Microsoft\Office\16.0\Outlook\Security`
	for name, n := range map[string]uint32{"AlwaysSign": 1, "AlwaysEncrypt": 0, "ClearSign": 0, "UseAlternateDefaultHashAlg": 1} {
		m.put(CurrentUser, policy, name, Value{Kind: DWord, Data: number(n)})
	}
	m.put(CurrentUser, policy, "DefaultHashOID", words("2.16.840.1.101.3.4.2.2"))
	m.put(CurrentUser, `Software\Microsoft\Office\16.0\Outlook\Security`, "UseAlternateDefaultEncryptionAlg", Value{Kind: DWord, Data: number(1)})
	m.put(CurrentUser, `Software\Microsoft\Office\16.0\Outlook\Security`, "DefaultEncryptionAlgOID", words("1.2.3"))
	s, err := accounts(t, m)[0].State()
	want := map[string]string{"sign": "on", "encrypt": "off", "clear-sign": "off", "hash": "sha-384", "cipher": "1.2.3"}
	if err != nil || !maps.Equal(s.Held, want) {
		t.Errorf("%v, %v", s.Held, err)
	}
}

// TestDoubt: without a word on its bitness Outlook is left alone, unless a value
// tells; a value that nobody understands is left alone too.
func TestDoubt(t *testing.T) {
	m := installed(t, vectors(t).Valid[1])
	delete(m.values, place(LocalMachine, `SOFTWARE\Microsoft\Office\16.0\Outlook`)+"|Bitness")
	for _, a := range accounts(t, m) {
		if err := a.Apply(everything(1, true)); (err == nil) != (a.Profile == "outlook") {
			t.Errorf("%s: %v", a.Profile, err)
		}
	}
	m = installed(t, vectors(t).Valid[1])
	m.put(CurrentUser, profilesKey+`Outlook\`+securitySection, profilesValue, Value{Kind: Binary, Data: []byte("what is this?")})
	before := m.dump()
	for _, a := range accounts(t, m) {
		if err := a.Apply(everything(1, true)); a.Profile == "outlook" && !errors.Is(err, ErrMalformed) {
			t.Error(err)
		}
		if err := a.Undo(); err != nil {
			t.Error(err)
		}
	}
	if m.dump() != before {
		t.Error("something was written")
	}
}

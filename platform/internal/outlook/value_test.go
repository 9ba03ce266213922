package outlook

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"testing"
)

// hexed is octets as the vectors write them.
type hexed []byte

func (h *hexed) UnmarshalText(text []byte) error {
	raw, err := hex.DecodeString(string(text))
	*h = raw
	return err
}

type vector struct {
	Title, Office string
	Entries       []struct {
		Name         string
		Defaults     uint32
		Sign         hexed `json:"sign_sha1"`
		Encrypt      hexed `json:"encrypt_sha1"`
		Capabilities hexed
	}
	Value hexed `json:"value_hex"`
}

func (v vector) bitness(t testing.TB) Bitness {
	t.Helper()
	b, ok := map[string]Bitness{"x86": X86, "x64": X64}[v.Office]
	if !ok {
		t.Fatalf("bitness %q", v.Office)
	}
	return b
}

func vectors(t testing.TB) (all struct {
	Valid, Readable, Invalid []vector
	Flags                    []struct {
		Encrypt, Sign bool
		Value         hexed `json:"value_hex"`
	} `json:"default_flags_00030354"`
}) {
	t.Helper()
	raw, err := os.ReadFile("testdata/security-profile.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &all); err != nil {
		t.Fatal(err)
	}
	return all
}

// TestVectors reads each value, writes it again from what was read and from what
// it says, and gets the same octets.
func TestVectors(t *testing.T) {
	all := vectors(t)
	if len(all.Valid) < 12 || len(all.Readable) < 4 || len(all.Invalid) < 11 {
		t.Fatalf("%d, %d, %d vectors", len(all.Valid), len(all.Readable), len(all.Invalid))
	}
	for _, v := range all.Valid {
		t.Run(v.Title+" "+v.Office, func(t *testing.T) {
			p := v.reads(t)
			again, err := p.Marshal(v.bitness(t))
			if err != nil || !bytes.Equal(again, v.Value) {
				t.Errorf("read and written:\n%x, %v, want\n%x", again, err, v.Value)
			}
			var made Profile
			for _, e := range v.Entries {
				block, err := New(Settings{Name: e.Name, Defaults: e.Defaults, SignSHA1: e.Sign, EncryptSHA1: e.Encrypt, Capabilities: e.Capabilities})
				if err != nil {
					t.Fatal(err)
				}
				made = append(made, block)
			}
			if again, err = made.Marshal(v.bitness(t)); err != nil || !bytes.Equal(again, v.Value) {
				t.Errorf("made:\n%x, %v, want\n%x", again, err, v.Value)
			}
		})
	}
	for _, v := range all.Readable {
		p := v.reads(t)
		again, err := p.Marshal(v.bitness(t))
		if err != nil || !bytes.HasPrefix(again, v.Value[:len(bytes.TrimRight(v.Value, "\x00"))]) {
			t.Errorf("%s: foreign settings were not kept: %x, %v", v.Title, again, err)
		}
	}
	for _, v := range all.Invalid {
		if _, err := Parse(v.Value, v.bitness(t)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", v.Title, err)
		}
	}
}

func (v vector) reads(t *testing.T) Profile {
	t.Helper()
	p, err := Parse(v.Value, v.bitness(t))
	if err != nil || len(p) != len(v.Entries) {
		t.Fatalf("%s: %d entries, %v", v.Title, len(p), err)
	}
	for i, e := range v.Entries {
		if b := p[i]; b.Name() != e.Name || b.Defaults() != e.Defaults || !bytes.Equal(b.SignSHA1(), e.Sign) ||
			!bytes.Equal(b.EncryptSHA1(), e.Encrypt) || !bytes.Equal(b.Capabilities(), e.Capabilities) {
			t.Errorf("%s: entry %d is %q %d %x %x %x", v.Title, i, b.Name(), b.Defaults(), b.SignSHA1(), b.EncryptSHA1(), b.Capabilities())
		}
	}
	return p
}

// TestWith: ours becomes the default, the foreign one only loses that mark.
func TestWith(t *testing.T) {
	for _, v := range vectors(t).Valid {
		if len(v.Entries) != 2 {
			continue
		}
		two := v.reads(t)
		foreign, err := two[1].withDefaults(DefaultForFormat | GlobalDefault | SendCertificate)
		if err != nil || bytes.Equal(foreign.raw, two[1].raw) {
			t.Fatal(err)
		}
		for _, before := range []Profile{{foreign}, {foreign, two[0]}} {
			after, err := before.With(two[0])
			if err != nil {
				t.Fatal(err)
			}
			if got, err := after.Marshal(v.bitness(t)); err != nil || !bytes.Equal(got, v.Value) {
				t.Errorf("%s: %x, %v", v.Office, got, err)
			}
			if d, ok := after.Default(); !ok || d.Name() != two[0].Name() {
				t.Errorf("the default is %q", d.Name())
			}
		}
	}
}

func TestNames(t *testing.T) {
	for _, name := range []string{"", "S/MIME", "Müller", "公司 S/MIME", "\U0001f512"} {
		b, err := New(Settings{Name: name})
		if err != nil || b.Name() != name {
			t.Errorf("%q became %q, %v", name, b.Name(), err)
		}
		delete(b.settings, tagNameUTF16)
		if name == "Müller" && b.Name() != name {
			t.Errorf("by its narrow name %q", b.Name())
		}
	}
}

func TestCapabilities(t *testing.T) {
	want := vectors(t).Valid[0].Entries[0].Capabilities
	if got := Capabilities("", ""); !bytes.Equal(got, want) {
		t.Errorf("%x, want %x", got, want)
	}
	for _, c := range ciphers {
		for _, h := range hashes {
			list := Capabilities(c.name, h.name)
			if len(list) != len(want) || preferred(list, ciphers) != c.name || preferred(list, hashes) != h.name {
				t.Errorf("%s, %s: %x", c.name, h.name, list)
			}
		}
	}
	if preferred([]byte("nothing"), ciphers) != "" {
		t.Error("a cipher out of nothing")
	}
}

// FuzzParse: what is read can be written, and then reads the same.
func FuzzParse(f *testing.F) {
	all := vectors(f)
	for _, list := range [][]vector{all.Valid, all.Readable, all.Invalid} {
		for _, v := range list {
			f.Add([]byte(v.Value), v.Office == "x64")
		}
	}
	f.Fuzz(func(t *testing.T, value []byte, wide bool) {
		b := map[bool]Bitness{false: X86, true: X64}[wide]
		p, err := Parse(value, b)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		written, err := p.Marshal(b)
		if errors.Is(err, ErrMalformed) {
			return // entries that share their octets can be many
		}
		again, err := Parse(written, b)
		if err != nil || len(again) != len(p) {
			t.Fatalf("%d entries, then %d: %v", len(p), len(again), err)
		}
		for i := range p {
			if !bytes.Equal(p[i].raw, again[i].raw) {
				t.Fatalf("entry %d: %x, then %x", i, p[i].raw, again[i].raw)
			}
		}
		ours, err := New(Settings{Name: "ours", Defaults: 7, SignSHA1: make([]byte, 20)})
		if err != nil {
			t.Fatal(err)
		}
		with, err := p.With(ours)
		if err != nil {
			t.Fatal(err)
		}
		if d, ok := with.Default(); !ok || d.Name() != "ours" {
			t.Fatalf("the default is %q", d.Name())
		}
	})
}

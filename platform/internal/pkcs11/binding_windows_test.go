package pkcs11

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	p11 "github.com/miekg/pkcs11"
)

// double loads testdata/double.c, a TEST DOUBLE of ours, compiled by mingw: it
// gives back what arrived in C. It shows nothing about NSS.
func double(t *testing.T) *Module {
	t.Helper()
	path := os.Getenv("SMIME_AGENT_PKCS11_DOUBLE")
	if path == "" {
		if os.Getenv("SMIME_AGENT_REQUIRE") == "1" {
			t.Fatal("SMIME_AGENT_PKCS11_DOUBLE names no compiled double")
		}
		t.Skip("SKIP: SMIME_AGENT_PKCS11_DOUBLE names no compiled double; .ci/e2e-wine does")
	}
	t.Log("DOUBLE: a module of our own, no token")
	m, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// inDouble runs fn in a session that may write.
func inDouble(t *testing.T, fn func(*Session)) {
	t.Helper()
	place := Place{Module: double(t), Init: "p"}
	if err := place.Use(t.Context(), true, func(s *Session) error { fn(s); return nil }); err != nil {
		t.Fatal(err)
	}
}

// TestDoubleToken: parameters, slots, flags and texts arrive both ways.
func TestDoubleToken(t *testing.T) {
	m := double(t)
	for _, init := range []string{"", `configDir='sql:C:\\用户\\o\'neil'`} {
		want := init
		if want == "" {
			want = "TEST DOUBLE"
		}
		err := Place{Module: m, Init: init}.Use(t.Context(), false, func(s *Session) error {
			got := s.Token
			if want = want[:min(32, len(want))]; got.Label != want || got.Manufacturer != "nobody" || got.Model != "double" {
				t.Errorf("token %+v, want label %q", got, want)
			}
			if got.slot != 0x80000007 || got.Flags != 0x80000400 || got.SlotFlags != 0x80000005 || s.h != 0x80000401 {
				t.Errorf("slot %#x, flags %#x, slot flags %#x, session %#x", got.slot, got.Flags, got.SlotFlags, s.h)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	slots, err := m.c.GetSlotList(false)
	if err != nil || len(slots) != 2 || slots[0] != 0x80000007 || slots[1] != 2 {
		t.Errorf("slots %#x, %v", slots, err)
	}
	info, err := m.c.GetMechanismInfo(slots[0], []*mechanism{newMechanism(p11.CKM_ECDH1_DERIVE, nil)})
	if err != nil || info.MinKeySize != p11.CKM_ECDH1_DERIVE || info.MaxKeySize != 0x80000000|p11.CKM_ECDH1_DERIVE {
		t.Errorf("mechanism %+v, %v", info, err)
	}
	if _, err := m.c.GetSlotInfo(2); !errors.Is(err, Code(p11.CKR_SLOT_ID_INVALID)) {
		t.Errorf("a slot that is none: %v", err)
	}
	if err := m.c.call(fnFinalize+1, 0); !errors.Is(err, Code(p11.CKR_FUNCTION_NOT_SUPPORTED)) {
		t.Errorf("a function that is none: %v", err)
	}
}

func TestDoubleLogin(t *testing.T) {
	inDouble(t, func(s *Session) {
		if err := s.Login("päss"); err != nil {
			t.Error(err)
		}
		if err := s.Login("pass"); !PINIncorrect(err) {
			t.Errorf("a wrong PIN: %v", err)
		}
		// An empty PIN must not arrive as none.
		if err := errors.Join(s.c.Login(s.h, p11.CKU_SO, ""), s.c.InitPIN(s.h, ""), s.c.Logout(s.h)); err != nil {
			t.Error(err)
		}
		if err := s.c.Logout(s.h + 1); !errors.Is(err, Code(p11.CKR_SESSION_HANDLE_INVALID)) {
			t.Errorf("another session: %v", err)
		}
	})
}

// TestDoubleObjects: templates of all kinds of values come back as they were,
// many at once, and after the garbage collector has moved on.
func TestDoubleObjects(t *testing.T) {
	inDouble(t, func(s *Session) {
		long := bytes.Repeat([]byte("0123456789abcdef"), 300)
		var made []objectHandle
		for i := range 40 {
			runtime.GC()
			o, err := s.c.CreateObject(s.h, []*attr{
				attribute(p11.CKA_CLASS, p11.CKO_DATA), attribute(p11.CKA_TOKEN, true), attribute(p11.CKA_PRIVATE, false),
				attribute(p11.CKA_LABEL, fmt.Sprintf("标签 %d", i)), attribute(p11.CKA_VALUE, long[:len(long)-i]),
				attribute(p11.CKA_ID, []byte{}), attribute(ckaTrustEmailProtection, uint(cktNSSTrustedDelegator)),
			})
			if err != nil {
				t.Fatal(err)
			}
			made = append(made, o)
		}
		for i, o := range made {
			values := s.getSome(Object(o), p11.CKA_LABEL, p11.CKA_VALUE, p11.CKA_ID, p11.CKA_TOKEN, p11.CKA_PRIVATE, p11.CKA_CLASS, ckaTrustEmailProtection)
			want := [][]byte{[]byte(fmt.Sprintf("标签 %d", i)), long[:len(long)-i], {}, {1}, {0}, {0, 0, 0, 0},
				binary.LittleEndian.AppendUint32(nil, cktNSSTrustedDelegator)}
			for j := range want {
				if !bytes.Equal(values[j], want[j]) {
					t.Fatalf("object %d, value %d: %.40q, want %.40q", i, j, values[j], want[j])
				}
			}
		}
		testFound(t, s, made)
	})
}

// TestDoubleLies: a length that cannot be true does not become memory, and what did
// not fit is no value.
func TestDoubleLies(t *testing.T) {
	inDouble(t, func(s *Session) {
		o, err := s.c.CreateObject(s.h, []*attr{attribute(p11.CKA_LABEL, "liar")})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.c.GetAttributeValue(s.h, o, []*attr{{Type: p11.CKA_VENDOR_DEFINED | 0x4C01}}); !errors.Is(err, Code(p11.CKR_HOST_MEMORY)) {
			t.Errorf("too long: %v", err)
		}
		if a, err := s.c.GetAttributeValue(s.h, o, []*attr{{Type: p11.CKA_VENDOR_DEFINED | 0x4C02}}); err != nil || a[0].Value != nil {
			t.Errorf("grown: %v, %v", a, err)
		}
	})
}

func testFound(t *testing.T, s *Session, made []objectHandle) {
	t.Helper()
	found, err := s.find(attribute(p11.CKA_CLASS, p11.CKO_DATA), attribute(p11.CKA_TOKEN, true))
	if err != nil || len(found) != len(made) {
		t.Fatalf("%d of %d found, %v", len(found), len(made), err)
	}
	one, err := s.find(attribute(p11.CKA_LABEL, "标签 7"))
	if err != nil || len(one) != 1 || one[0] != Object(made[7]) {
		t.Fatalf("by label: %#x, %v; want %#x", one, err, made[7])
	}
	few, _, err := s.c.FindObjects(s.h, 3)
	if err != nil || len(few) != 0 {
		t.Errorf("nothing is left: %v, %v", few, err)
	}
	// A list with one that is missing is read one by one, and the rest is there.
	if v := s.getSome(one[0], p11.CKA_LABEL, p11.CKA_SUBJECT); string(v[0]) != "标签 7" || v[1] != nil {
		t.Errorf("with one missing: %q", v)
	}
	if err := s.set(one[0], p11.CKA_ID, []byte("new")); err != nil {
		t.Error(err)
	}
	second, err := s.c.CopyObject(s.h, objectHandle(one[0]), []*attr{attribute(p11.CKA_TOKEN, false)})
	if err != nil || string(s.getIfAny(Object(second), p11.CKA_ID)) != "new" || !bytes.Equal(s.getIfAny(Object(second), p11.CKA_TOKEN), []byte{0}) {
		t.Errorf("copy: %v", err)
	}
	if err := errors.Join(s.Destroy(Object(second)), s.Destroy(one[0])); err != nil {
		t.Error(err)
	}
	if err := s.Destroy(one[0]); !errors.Is(err, Code(p11.CKR_OBJECT_HANDLE_INVALID)) {
		t.Errorf("once more: %v", err)
	}
}

// TestDoubleMechanisms: parameters arrive with all that they point to.
func TestDoubleMechanisms(t *testing.T) {
	inDouble(t, func(s *Session) {
		h, err := s.c.CreateObject(s.h, []*attr{attribute(p11.CKA_LABEL, "key")})
		if err != nil {
			t.Fatal(err)
		}
		key, digest := Object(h), bytes.Repeat([]byte{0, 0xFF}, 16)
		for name, c := range map[string]struct {
			got  func() ([]byte, error)
			want string
		}{
			"PSS":     {func() ([]byte, error) { return s.SignPSS(key, crypto.SHA256, 32, digest) }, "PSS 592 2 32;" + string(digest)},
			"PKCS #1": {func() ([]byte, error) { return s.SignPKCS1(key, crypto.SHA256, digest) }, "bare 1;" + string(digestInfo[crypto.SHA256]) + string(digest)},
			"OAEP":    {func() ([]byte, error) { return s.DecryptOAEP(key, crypto.SHA256, crypto.SHA1, nil, digest) }, "OAEP 592 1 1 0;" + string(digest)},
			"OAEP, label": {func() ([]byte, error) {
				return s.DecryptOAEP(key, crypto.SHA384, crypto.SHA384, []byte("a\x00b"), digest)
			}, "OAEP 608 3 1 3;a\x00b" + string(digest)},
			"PKCS #1 back":   {func() ([]byte, error) { return s.DecryptPKCS1(key, digest) }, "bare 1;" + string(digest)},
			"nothing to do":  {func() ([]byte, error) { return s.DecryptPKCS1(key, nil) }, "bare 1;"},
			"no such object": {func() ([]byte, error) { return s.DecryptPKCS1(Object(0x8000003F), digest) }, ""},
		} {
			runtime.GC()
			if got, err := c.got(); string(got) != c.want || (err != nil) != (c.want == "") {
				t.Errorf("%s: %q, %v; want %q", name, got, err, c.want)
			}
		}
		testDerive(t, s, key)
	})
}

func testDerive(t *testing.T, s *Session, key Object) {
	t.Helper()
	peer, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	made, err := s.derive(key, peer.PublicKey().Bytes(), 32)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(s.getIfAny(made, p11.CKA_VALUE)), "ECDH1 1 0 65;"+string(peer.PublicKey().Bytes()); got != want {
		t.Errorf("ECDH: %q, want %q", got, want)
	}
	if n := s.getIfAny(made, p11.CKA_VALUE_LEN); !bytes.Equal(n, []byte{32, 0, 0, 0}) {
		t.Errorf("length asked for: %x", n)
	}
}

// TestDoubleGenerate: both templates arrive, each as its own.
func TestDoubleGenerate(t *testing.T) {
	inDouble(t, func(s *Session) {
		for _, spec := range []KeySpec{{Label: "ec", Curve: elliptic.P384(), Decrypt: true}, {Label: "rsa", Bits: 3072, Decrypt: true}} {
			if err := s.Generate(spec); err != nil {
				t.Fatal(err)
			}
			objects, err := s.find(attribute(p11.CKA_LABEL, spec.Label))
			if err != nil || len(objects) != 2 {
				t.Fatalf("%d objects, %v", len(objects), err)
			}
			public, private := objects[0], objects[1]
			if !bytes.Equal(s.getIfAny(public, p11.CKA_VERIFY), []byte{1}) || !bytes.Equal(s.getIfAny(private, p11.CKA_SENSITIVE), []byte{1}) {
				t.Errorf("%s: the templates were exchanged", spec.Label)
			}
			if spec.Bits == 0 && !bytes.Equal(s.getIfAny(public, p11.CKA_EC_PARAMS), paramsP384) {
				t.Error("the curve was lost")
			}
			if spec.Bits != 0 && !bytes.Equal(s.getIfAny(public, p11.CKA_MODULUS_BITS), []byte{0, 12, 0, 0}) {
				t.Error("the size was lost")
			}
		}
	})
}

// TestLoadOtherMachine: a library for other processors is told from a broken one.
func TestLoadOtherMachine(t *testing.T) {
	data, err := os.ReadFile(double(t).Path())
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "smime-test-")
	if err != nil {
		t.Fatal(err)
	}
	header := binary.LittleEndian.Uint32(data[0x3C:])
	binary.LittleEndian.PutUint16(data[header+4:], 0x014C) // IMAGE_FILE_MACHINE_I386
	for name, content := range map[string][]byte{"other.dll": data, "broken.dll": data[:200], "text.dll": []byte("no library")} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.Remove(path) })
		_, err := Load(path)
		if err == nil || errors.Is(err, ErrMachine) != (name == "other.dll") {
			t.Errorf("%s: %v", name, err)
		}
		if name == "other.dll" && !strings.Contains(err.Error(), "32-bit x86") {
			t.Errorf("the sentence does not say for what it is: %v", err)
		}
	}
	t.Cleanup(func() { _ = os.Remove(dir) })
	if _, err := Load("double.dll"); err == nil {
		t.Error("a library was looked for in the current folder")
	}
}

// TestUseEndsWithContext: who waits for the module stops with its context.
func TestUseEndsWithContext(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	stop()
	inDouble(t, func(s *Session) {
		err := Place{Module: double(t)}.Use(ctx, false, func(*Session) error { return nil })
		if !errors.Is(err, context.Canceled) {
			t.Errorf("use while another holds the module: %v", err)
		}
	})
}

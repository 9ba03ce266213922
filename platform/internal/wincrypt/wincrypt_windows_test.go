package wincrypt

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/hex"
	"testing"
	"unsafe"

	"golang.org/x/sys/windows"
)

// underWine says that this is no Windows, in the way that Wine offers for that.
func underWine() bool {
	return windows.NewLazySystemDLL("ntdll.dll").NewProc("wine_get_version").Find() == nil
}

func newName(t *testing.T) string {
	t.Helper()
	raw := make([]byte, 8)
	if _, err := rand.Read(raw); err != nil {
		t.Fatal(err)
	}
	return "smime-" + hex.EncodeToString(raw)
}

// TestExportableIsNoticed plants what MakeContainer never makes.
func TestExportableIsNoticed(t *testing.T) {
	for _, exportable := range []bool{false, true} {
		name := newName(t)
		h, err := acquire(name, windows.CRYPT_NEWKEYSET)
		if err != nil {
			t.Fatal(err)
		}
		flags := uintptr(2048 << 16)
		if exportable {
			flags |= windows.CRYPT_EXPORTABLE
		}
		var key uintptr
		if err := boolean(procCryptGenKey, uintptr(h), KeyExchange, flags, uintptr(unsafe.Pointer(&key))); err != nil {
			t.Fatal(err)
		}
		if err := boolean(procCryptDestroyKey, key); err != nil {
			t.Fatal(err)
		}
		if err := release(h); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := DeleteContainer(name); err != nil {
				t.Error(err)
			}
		})
		k, err := OpenContainer(name)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := k.Exportable(); err != nil || got != exportable {
			t.Errorf("exportable %v reads as %v, %v", exportable, got, err)
		}
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestCNGInMemory signs with a CNG key that was never kept, which is as far as
// Wine goes; that Wine hands the private key out is the planted bad case for
// whoever believes a policy.
func TestCNGInMemory(t *testing.T) {
	if !underWine() {
		t.Skip("SKIP: Windows keeps the key; the store's tests see to it")
	}
	p, err := OpenProvider(SoftwareProvider)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, err := p.Open(newName(t)); ClassOf(err) != Unsupported {
		t.Errorf("Open: %v; if Wine keeps keys now, its CNG can be tested", err)
	}
	k, err := p.Make(newName(t), CNGSpec{Algorithm: "RSA", Bits: 2048, Usage: MaySign | MayDecrypt})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	blob, err := k.Export("RSAPUBLICBLOB")
	if err != nil {
		t.Fatal(err)
	}
	public, err := ParseRSABlob(blob)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte("text"))
	signature, err := k.SignPKCS1("SHA256", digest[:])
	if err != nil {
		t.Fatal(err)
	}
	if err := rsa.VerifyPKCS1v15(public, crypto.SHA256, digest[:], signature); err != nil {
		t.Errorf("PKCS #1: %v", err)
	}
	signature, err = k.SignPSS("SHA256", 32, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	if err := rsa.VerifyPSS(public, crypto.SHA256, digest[:], signature, &rsa.PSSOptions{SaltLength: 32}); err != nil {
		t.Errorf("PSS: %v", err)
	}
	if _, err := k.Export("RSAFULLPRIVATEBLOB"); err != nil {
		t.Errorf("Wine refuses to export: %v; then it is no bad case any more", err)
	}
}

// TestMissingProcedure: what an edition of Windows lacks is an error.
func TestMissingProcedure(t *testing.T) {
	missing := ncryptDLL.NewProc("NCryptNobodyHasThis")
	if err := status(missing); ClassOf(err) != Unsupported {
		t.Errorf("status: %v", err)
	}
	if err := boolean(missing); ClassOf(err) != Unsupported {
		t.Errorf("boolean: %v", err)
	}
}

// TestWildProperty: pointers of a property that lead out of it are not followed.
func TestWildProperty(t *testing.T) {
	good := []uint16{'k', 'e', 'y'} // ends with the memory, without a NUL
	size := int(unsafe.Sizeof(keyProvInfo{})) + len(good)*2
	v := &value{words: make([]uint64, (size+7)/8), size: size}
	copy(v.units()[unsafe.Sizeof(keyProvInfo{})/2:], good)
	start := unsafe.Pointer(&v.words[0])
	info := (*keyProvInfo)(start)
	info.container = (*uint16)(unsafe.Add(start, unsafe.Sizeof(keyProvInfo{})))
	info.provider = (*uint16)(unsafe.Pointer(new([512]uint64)))
	info.spec = 1
	if got := v.location(); got != (KeyLocation{Container: "key", Spec: 1}) {
		t.Errorf("read %+v", got)
	}
	info.container = (*uint16)(unsafe.Add(start, 1))
	if got := v.location(); got.Container != "" {
		t.Errorf("an odd address reads %q", got.Container)
	}
	if got := (&value{words: make([]uint64, 1), size: 8}).location(); got != (KeyLocation{}) {
		t.Errorf("a short property reads %+v", got)
	}
}

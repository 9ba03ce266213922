package wincrypt_test

import (
	"bytes"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/windows"
)

// TestSerializedStore reads the store that central management's writer made with
// the system's own functions, and finds each certificate, octet by octet.
func TestSerializedStore(t *testing.T) {
	folder := filepath.Join("..", "..", "..", "server-stub", "exchange", "testdata")
	text, err := os.ReadFile(filepath.Join(folder, "two.pem"))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(folder, "two.sst"))
	if err != nil {
		t.Fatal(err)
	}
	var want [][]byte
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		want = append(want, block.Bytes)
	}
	blob := windows.CryptDataBlob{Size: uint32(len(raw)), Data: &raw[0]}
	store, err := windows.CertOpenStore(windows.CERT_STORE_PROV_SERIALIZED, 0, 0, 0, uintptr(unsafe.Pointer(&blob)))
	if err != nil {
		t.Fatalf("the system does not take it for a store: %v", err)
	}
	defer windows.CertCloseStore(store, 0) //nolint:errcheck // it was only read
	var got [][]byte
	var c *windows.CertContext
	for {
		if c, err = windows.CertEnumCertificatesInStore(store, c); c == nil {
			break
		}
		got = append(got, bytes.Clone(unsafe.Slice(c.EncodedCert, c.Length)))
	}
	for _, w := range want {
		found := false
		for _, g := range got {
			found = found || bytes.Equal(g, w)
		}
		if !found {
			t.Errorf("a certificate is missing among %d: %v", len(got), err)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d certificates, want %d", len(got), len(want))
	}
}

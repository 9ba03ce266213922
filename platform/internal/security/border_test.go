//go:build cgo && !darwin

package security

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestBorder compiles the Go side of the border against keychain.h, which needs
// none of Apple's headers, with this system's own C compiler. It judges what a
// type check without C cannot: everything that stands after "C.".
func TestBorder(t *testing.T) {
	if _, err := exec.LookPath("cc"); err != nil {
		if _, err := exec.LookPath("gcc"); err != nil {
			t.Skip("SKIP: there is no C compiler")
		}
	}
	if out, err := compileBorder(t, func(s string) string { return s }); err != nil {
		t.Fatalf("the Go side does not fit keychain.h: %v\n%s", err, out)
	}
	for name, plant := range map[string][2]string{
		"a misspelt function":  {"C.kc_count(list)", "C.kc_counts(list)"},
		"a lost argument":      {"C.kc_public_delete(k.ref, ", "C.kc_public_delete("},
		"exchanged arguments":  {"C.kc_identity_check(k.ref, start(der)", "C.kc_identity_check(start(der), k.ref"},
		"a C value left alone": {"return bool(unlocked), err", "return unlocked, err"},
	} {
		t.Run(name, func(t *testing.T) {
			found := false
			out, err := compileBorder(t, func(s string) string {
				found = found || strings.Contains(s, plant[0])
				return strings.ReplaceAll(s, plant[0], plant[1])
			})
			if !found {
				t.Fatalf("there is no %q to plant in", plant[0])
			}
			if err == nil {
				t.Errorf("went unnoticed: %s", out)
			}
		})
	}
}

var frameworks = regexp.MustCompile(`(?m)^#cgo darwin .*$`)

// compileBorder copies the package without its C files and without what ties it
// to macOS, and compiles it.
func compileBorder(t *testing.T, change func(string) string) ([]byte, error) {
	t.Helper()
	dir := t.TempDir()
	sources := map[string]string{"go.mod": "module border\n\ngo 1.26\n"}
	for name, as := range map[string]string{"security.go": "security.go", "label.go": "label.go", "keychain_darwin.go": "keychain.go", "keychain.h": "keychain.h"} {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		sources[as] = change(frameworks.ReplaceAllString(string(data), ""))
	}
	for name, source := range sources {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(source), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "go", "vet", ".")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1", "GOFLAGS=-mod=mod", "GOWORK=off")
	return cmd.CombinedOutput()
}

// TestNumbers holds the numbers of the Go side to those of keychain.h.
func TestNumbers(t *testing.T) {
	data, err := os.ReadFile("keychain.h")
	if err != nil {
		t.Fatal(err)
	}
	header := string(data)
	var names []string
	for _, name := range regexp.MustCompile(`\bKC_(SIGN|DECRYPT)_\w+`).FindAllString(header, -1) {
		names = append(names, strings.ReplaceAll(strings.TrimPrefix(name, "KC_"), "_", ""))
	}
	if len(names) != int(DecryptOAEPSHA512) {
		t.Fatalf("keychain.h has %d operations", len(names))
	}
	for i, want := range []struct {
		name string
		is   Algorithm
	}{
		{"SIGNPKCS1SHA256", SignPKCS1SHA256}, {"SIGNPKCS1SHA384", SignPKCS1SHA384}, {"SIGNPKCS1SHA512", SignPKCS1SHA512},
		{"SIGNPSSSHA256", SignPSSSHA256}, {"SIGNPSSSHA384", SignPSSSHA384}, {"SIGNPSSSHA512", SignPSSSHA512},
		{"SIGNECDSASHA256", SignECDSASHA256}, {"SIGNECDSASHA384", SignECDSASHA384}, {"SIGNECDSASHA512", SignECDSASHA512},
		{"DECRYPTPKCS1", DecryptPKCS1}, {"DECRYPTOAEPSHA1", DecryptOAEPSHA1}, {"DECRYPTOAEPSHA256", DecryptOAEPSHA256},
		{"DECRYPTOAEPSHA384", DecryptOAEPSHA384}, {"DECRYPTOAEPSHA512", DecryptOAEPSHA512},
	} {
		if names[i] != want.name || int(want.is) != i+1 {
			t.Errorf("operation %d is %s in keychain.h, %s = %d here", i+1, names[i], want.name, want.is)
		}
	}
	if !strings.Contains(header, "KC_FOR_ENCRYPTION = 0, KC_FOR_SIGNING = 1") || ForEncryption != 0 || ForSigning != 1 {
		t.Error("the uses are numbered otherwise in keychain.h")
	}
}

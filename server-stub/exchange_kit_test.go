package main

import (
	"bytes"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestExchangeKit writes the kit of a company that was just founded: both its CAs
// are in the store as they are, and an existing folder stays as it is.
func TestExchangeKit(t *testing.T) {
	dir := t.TempDir()
	command := func(args ...string) (string, error) {
		var out, problems bytes.Buffer
		err := run(t.Context(), append(args, "--dir", filepath.Join(dir, "central")), env{out: &out, err: &problems, now: time.Now})
		return out.String(), err
	}
	if _, err := command("init", "--organization", "Müller & Söhne", "--country", "DE", "--organization-identifier", "NTRDE-DER3306.HRB12345",
		"--host", "127.0.0.1", "--listen", "127.0.0.1:8443", "--web", "127.0.0.1:8444"); err != nil {
		t.Fatal(err)
	}
	kit := filepath.Join(dir, "kit")
	root := filepath.Join(dir, "central", "ca", "root.crt")
	said, err := command("exchange", kit, "--always-sign", "--also", root)
	if err != nil || !strings.HasPrefix(said, "2 certificates") {
		t.Fatalf("%s, %v", said, err)
	}
	sst, err := os.ReadFile(filepath.Join(kit, kitStore))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"root.crt", "issuing.crt"} {
		text, err := os.ReadFile(filepath.Join(dir, "central", "ca", name))
		if err != nil {
			t.Fatal(err)
		}
		if block, _ := pem.Decode(text); block == nil || !bytes.Contains(sst, block.Bytes) {
			t.Errorf("%s is not in the store", name)
		}
	}
	script, err := os.ReadFile(filepath.Join(kit, kitConfig))
	if err != nil || !bytes.Contains(script, []byte("'Müller & Söhne'")) || !bytes.Contains(script, []byte("OWAAlwaysSign                                 = $true")) {
		t.Errorf("%v: %s", err, script)
	}
	if _, err := command("exchange", kit); err == nil {
		t.Error("a folder was overwritten")
	}
}

package exchange_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"flag"
	"math/big"
	"os"
	"strings"
	"testing"
	"time"

	"smime-agent/server-stub/exchange"
)

// The store in testdata is read by Windows' own functions too, under Wine: see
// platform/internal/wincrypt. -update makes it anew.
var update = flag.Bool("update", false, "make testdata anew")

func two(t *testing.T) []*x509.Certificate {
	t.Helper()
	if *update {
		var text []byte
		for _, name := range []string{"Example GmbH Root", "Example GmbH S/MIME CA Müller"} {
			key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			c := &x509.Certificate{
				SerialNumber: big.NewInt(int64(len(name))), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
				NotBefore: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2126, 1, 1, 0, 0, 0, 0, time.UTC),
			}
			der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
			if err != nil {
				t.Fatal(err)
			}
			text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
		}
		if err := os.WriteFile("testdata/two.pem", text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile("testdata/two.pem")
	if err != nil {
		t.Fatal(err)
	}
	var certs []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		certs = append(certs, c)
	}
	return certs
}

func TestSST(t *testing.T) {
	certs := two(t)
	sst, err := exchange.SST(certs, certs[0].NotBefore)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("testdata/two.sst", sst, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/two.sst")
	if err != nil || !bytes.Equal(sst, want) {
		t.Errorf("%x, want %x, %v", sst, want, err)
	}
	if _, err := exchange.SST(certs, certs[0].NotAfter.Add(time.Second)); !errors.Is(err, exchange.ErrExpired) {
		t.Errorf("with an ended certificate: %v", err)
	}
	if _, err := exchange.SST(nil, time.Now()); err == nil {
		t.Error("a store without certificates")
	}
}

func TestConfigScript(t *testing.T) {
	script, err := exchange.ConfigScript(exchange.Wishes{Organization: "O'Neill \u2019 Söhne\n#>; Remove-Item C:\\", StoreFile: "issuers.sst", AlwaysSign: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"\ufeff<#", "-f 'O''Neill \u2019\u2019 Söhne #>; Remove-Item C:\\')", "OWAAlwaysSign                                 = $true", "OWAAlwaysEncrypt                              = $false",
		"'issuers.sst'", "'800C'", "Set-SmimeConfig @change",
	} {
		if !strings.Contains(script, want) {
			t.Errorf("%q is not in the script", want)
		}
	}
	if strings.Contains(script, "{{") || !strings.Contains(exchange.MailFlowScript(), "Set-TransportRule") {
		t.Error("a script is not complete")
	}
}

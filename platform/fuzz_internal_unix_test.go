//go:build unix

package platform

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"path/filepath"
	"testing"
)

// FuzzPropertyLists reads what device management and macOS's own tools write. What
// is taken has values of the kinds that settings have, each name once.
func FuzzPropertyLists(f *testing.F) {
	for _, seed := range []string{
		`<?xml version="1.0"?><plist version="1.0"><dict><key>server</key><string>x:1</string><key>list</key><array><string>a</string><integer>2</integer><true/></array></dict></plist>`,
		`<plist><dict><key>d</key><dict/><key>r</key><real>1.5</real><key>n</key><integer>-7</integer></dict></plist>`,
		`<plist><dict><key>AppleLanguages</key><array><string>zh-Hans-CN</string></array></dict></plist>`,
		`<plist><array><dict><key>IOPlatformUUID</key><string>X</string></dict></array></plist>`,
		"bplist00\xd0\x08\x00\x00\x00\x00\x00\x00\x01\x01\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x09",
		"{ a = b; }", "",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 4096 {
			return
		}
		values, err := managedPreferences(data)
		if err != nil && values != nil {
			t.Error("an error with values")
		}
		seen := map[string]bool{}
		for _, v := range values {
			if seen[v.Name] || v.Items != nil && v.Text != "" {
				t.Errorf("%+v", v)
			}
			seen[v.Name] = true
		}
		if firstLanguage(string(data)) == "" {
			t.Error("no language at all")
		}
		_ = platformUUID(data)
	})
}

// FuzzINI: a file of Mozilla's gives sections with names and values of one line.
func FuzzINI(f *testing.F) {
	f.Add([]byte(profilesSeed), "abcd.default")
	f.Add([]byte("[Profile0]\nPath=../../etc\nIsRelative=1\n[Profile1\nPath=\x00\n=\n"), "x")
	f.Fuzz(func(t *testing.T, data []byte, name string) {
		root := t.TempDir()
		for _, s := range parseINI(data) {
			dir, ok := s.profile(root)
			if ok && !filepath.IsAbs(dir) {
				t.Errorf("a profile in %q", dir)
			}
			for key, value := range s.values {
				if bytes.ContainsAny([]byte(key+value), "\n") {
					t.Errorf("%q has %q", key, value)
				}
			}
		}
		_ = resolved(root, name)
	})
}

const profilesSeed = "\ufeff; a comment\r\n[Install0123]\nDefault=abcd.default\nLocked=1\n[Profile0]\nIsRelative=1\nPath = abcd.default\nDefault=1\n"

// FuzzDBKey: a name of a certificate has one form.
func FuzzDBKey(f *testing.F) {
	f.Add(dbKey(CertificateRef{Serial: []byte{1, 2}, Issuer: []byte("issuer")}))
	f.Add("AAAAAAAAAAD/////AAAAAA==")
	f.Fuzz(func(t *testing.T, text string) {
		ref, err := parseDBKey(text)
		if err != nil {
			return
		}
		again, err := parseDBKey(dbKey(ref))
		if err != nil || !again.Same(ref) {
			t.Errorf("%q: %+v became %+v, %v", text, ref, again, err)
		}
	})
}

// FuzzKeyFile: of a file with a key comes a key that signs, or a word that it is damaged.
func FuzzKeyFile(f *testing.F) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\nMIG"))
	f.Fuzz(func(t *testing.T, content []byte) {
		if key, err := parseKey(content); err == nil {
			if _, err := newFileKey("x", key); err != nil {
				t.Errorf("a key that the store cannot use: %v", err)
			}
		}
		for _, c := range parseCertificates(content) {
			_ = checkLeaf(c.PublicKey, []*x509.Certificate{c})
		}
	})
}

// FuzzUndo: whatever stands in the record of former preferences, the file stays
// one that can be read, or stays as it is.
func FuzzUndo(f *testing.F) {
	f.Add(`{"statements":{"mail.identity.id1.sign_mail":"user_pref(\"mail.identity.id1.sign_mail\", true);","b":null},"ended":"\n"}`, "user_pref(\"b\", 1);\n")
	f.Add(`{"statements":{"a":"user_pref("}}`, "user_pref('a', 1);")
	f.Fuzz(func(t *testing.T, record, prefs string) {
		file, err := newPrefsFile([]byte(prefs))
		if err != nil {
			return
		}
		var was former
		if json.Unmarshal([]byte(record), &was) != nil {
			return
		}
		data, err := was.restore(file)
		if err != nil {
			return
		}
		if _, err := parsePrefs(data); err != nil {
			t.Errorf("it wrote a file that cannot be read: %q: %v", data, err)
		}
	})
}

//go:build !windows

package platform_test

import (
	"encoding/json"
	"maps"
	"path/filepath"
	"testing"

	"smime-agent/platform"
	"smime-agent/platform/internal/security"
	"smime-agent/platform/platformtest"
)

// TestAppleMail holds the logic to its promises over a keychain in memory; a real
// Mail has not been asked yet.
func TestAppleMail(t *testing.T) {
	platformtest.TestMailProgram(t, func(t *testing.T) platformtest.MailWorld {
		t.Helper()
		const mailbox, other = "Ann@corp.example", "bob@corp.example"
		m := &platform.MemoryKeychain{}
		m.AddForeign(platformtest.MailCertificate(t, mailbox).Raw)
		m.AddForeign([]byte("no certificate"))
		m.Preferred = map[security.Use]map[string][]byte{
			security.ForSigning:    {other: []byte("bob's"), mailbox: platformtest.MailCertificate(t, mailbox).Raw},
			security.ForEncryption: {other: []byte("bob's")},
		}
		dump := func(own bool) []byte {
			all := map[security.Use]map[string][]byte{}
			for use, of := range m.Preferred {
				all[use] = maps.Clone(of)
				if !own {
					delete(all[use], mailbox)
					delete(all[use], "ann@corp.example")
				}
			}
			raw, err := json.Marshal(all)
			if err != nil {
				t.Fatal(err)
			}
			return raw
		}
		return platformtest.MailWorld{
			Program: m.AppleMail(filepath.Join(t.TempDir(), "mail")), Mailbox: mailbox,
			Bytes: func() []byte { return dump(true) }, Foreign: func() []byte { return dump(false) },
		}
	})
}

// TestOutlookMac: it is found where it is installed, and all of it is by hand.
func TestOutlookMac(t *testing.T) {
	for app, want := range map[string]int{t.TempDir(): 1, filepath.Join(t.TempDir(), "missing"): 0} {
		list, err := platform.OutlookMac(app).Accounts(t.Context(), "ann@corp.example")
		if err != nil || len(list) != want || want == 1 && len(list[0].Info().ByHand) != 7 {
			t.Errorf("%d accounts, %v", len(list), err)
		}
	}
}

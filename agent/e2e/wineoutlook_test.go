//go:build linux

package e2e_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"smime-agent/agent/enroll"
	"smime-agent/agent/status"
)

// Outlook's places in the registry, of a profile "Work" (mail-programs.md).
const (
	outlookRoot     = `Software\Microsoft\Office\16.0\Outlook`
	outlookProfile  = `HKCU\` + outlookRoot + `\Profiles\Work`
	outlookSection  = outlookProfile + `\c02ebc5353d9cd11975200aa004ae40e`
	securityProfile = "11020355"
	securityFlags   = "00030354"
)

// foreignOutlook is the security profile of somebody else, from the test vectors.
func (s *windowsSession) foreignOutlook() []byte {
	s.t.Helper()
	raw, err := os.ReadFile("../../platform/internal/outlook/testdata/security-profile.json")
	s.must(err)
	var vectors struct {
		Valid []struct {
			Office  string
			Entries []struct {
				Defaults uint32
			}
			Value string `json:"value_hex"`
		}
	}
	s.must(json.Unmarshal(raw, &vectors))
	for _, v := range vectors.Valid {
		if v.Office == "x64" && len(v.Entries) == 1 && v.Entries[0].Defaults == 7 {
			value, err := hex.DecodeString(v.Value)
			s.must(err)
			return value
		}
	}
	s.t.Fatal("no vector of one default entry for 64 bits")
	return nil
}

func (s *windowsSession) regAdd(key, name, kind, data string) {
	s.t.Helper()
	s.must(s.program(time.Minute, "reg", s.wine, "reg", "add", key, "/v", name, "/t", kind, "/d", data, "/f"))
}

// testPlanted: the person has a classic Outlook, set up by hand for somebody else's
// certificate, before the agent has done anything.
func (s *windowsSession) testPlanted(*testing.T) {
	s.regAdd(`HKLM\`+outlookRoot, "Bitness", "REG_SZ", "x64")
	s.regAdd(outlookProfile+`\9375CFF0413111d3B88A00104B2A6676\00000002`, "Account Name", "REG_SZ", "Alice@example.com")
	s.regAdd(`HKCU\`+outlookRoot+`\Profiles\Other\9375CFF0413111d3B88A00104B2A6676\00000002`, "Email", "REG_SZ", "sales@example.com")
	s.regAdd(outlookSection, securityProfile, "REG_BINARY", hex.EncodeToString(s.foreignOutlook()))
	s.regAdd(outlookSection, securityFlags, "REG_BINARY", "00000100")
	s.regAdd(outlookSection, "11020399", "REG_BINARY", hex.EncodeToString([]byte("nobody knows")))
	s.outlookBefore = s.outlook(false)
}

// outlook is all that the registry has of Outlook, as its own tool prints it,
// with or without the two values that are the agent's to set.
func (s *windowsSession) outlook(without bool) string {
	s.t.Helper()
	var lines []string
	for _, hive := range []string{`HKCU\`, `HKLM\`} {
		said, err := s.output(time.Minute, "reg", s.wine, "reg", "query", hive+outlookRoot, "/s")
		s.must(err)
		for line := range strings.Lines(said) {
			if !without || !strings.Contains(line, securityProfile) && !strings.Contains(line, securityFlags) {
				lines = append(lines, line)
			}
		}
	}
	return strings.Join(lines, "")
}

func (s *windowsSession) outlookValue(name string) []byte {
	s.t.Helper()
	said, err := s.output(time.Minute, "reg", s.wine, "reg", "query", outlookSection, "/v", name)
	s.must(err)
	_, text, ok := strings.Cut(said, "REG_BINARY")
	if !ok {
		s.t.Fatalf("no %s: %s", name, said)
	}
	value, err := hex.DecodeString(strings.TrimSpace(text))
	s.must(err)
	return value
}

// outlookEntries reads a security profile for 64 bits: a count, then for each entry
// its length and place (8 octets each), then the entries.
func (s *windowsSession) outlookEntries(value []byte) [][]byte {
	s.t.Helper()
	n := int(binary.LittleEndian.Uint32(value))
	entries := make([][]byte, 0, n)
	for i := range n {
		length, at := binary.LittleEndian.Uint64(value[4+16*i:]), binary.LittleEndian.Uint64(value[12+16*i:])
		entries = append(entries, value[at:at+length])
	}
	return entries
}

// outlookUses says that the registry has the certificate in our entry, in front of
// that of the former, which lost nothing but its marks of being the default.
func (s *windowsSession) outlookUses(c status.Credential) {
	s.t.Helper()
	former := s.outlookEntries(s.foreignOutlook())[0]
	entries := s.outlookEntries(s.outlookValue(securityProfile))
	if len(entries) != 2 {
		s.t.Fatalf("%d entries", len(entries))
	}
	for _, tag := range []string{"09001800", "22001800"} { // signing, encryption
		prefix, err := hex.DecodeString(tag)
		s.must(err)
		if !bytes.Contains(entries[0], append(prefix, s.sha1Of(c)...)) {
			s.t.Errorf("ours has not the certificate under %s: %x", tag, entries[0])
		}
	}
	defaults := []byte{0x20, 0, 8, 0}
	at := bytes.Index(former, defaults) + len(defaults)
	kept := bytes.Clone(entries[1])
	if len(kept) != len(former) || bytes.Equal(kept[at:at+4], former[at:at+4]) {
		s.t.Fatalf("the former entry: %x, was %x", kept, former)
	}
	copy(kept[at:], former[at:at+4])
	if !bytes.Equal(kept, former) {
		s.t.Errorf("the former entry was changed: %x, was %x", kept, former)
	}
	if flags := s.outlookValue(securityFlags); !bytes.Equal(flags, []byte{2, 0, 1, 0}) {
		s.t.Errorf("flags %x", flags)
	}
}

// sha1Of asks the store: Outlook names certificates so.
func (s *windowsSession) sha1Of(c status.Credential) []byte {
	s.t.Helper()
	var keys []struct{ SHA1, SHA256 string }
	s.must(json.Unmarshal([]byte(s.run("wineprobe.exe", "keys")), &keys))
	for _, k := range keys {
		if k.SHA256 == c.Fingerprint {
			sum, err := hex.DecodeString(k.SHA1)
			s.must(err)
			return sum
		}
	}
	s.t.Fatalf("the store has no certificate %s: %+v", c.Fingerprint, keys)
	return nil
}

func (s *windowsSession) awaitOutlook(what string, state enroll.MailState, not enroll.ID) status.Credential {
	s.t.Helper()
	var found status.Credential
	s.awaitStatus(what, func(r status.Report) bool {
		c, ok := credential(r, alice, enroll.Active)
		found = c
		return ok && c.ID != not && len(c.Mail) == 1 && c.Mail[0].Program == "outlook" && c.Mail[0].State == state
	})
	return found
}

// testOutlook: the enrollment set Outlook up, beside what is somebody else's; a
// renewal follows; an undo brings the very octets back, and holds over a renewal
// until somebody wants it otherwise.
func (s *windowsSession) testOutlook(t *testing.T) {
	rest := s.outlook(true)
	first := s.awaitOutlook("Outlook is ready", enroll.MailReady, "")
	s.outlookUses(first)
	s.run("smime-agent.exe", "renew", alice)
	second := s.awaitOutlook("Outlook follows the renewal", enroll.MailReady, first.ID)
	s.outlookUses(second)

	s.run("smime-agent.exe", "mail", "undo", alice)
	s.awaitOutlook("Outlook is as before", enroll.MailUndone, "")
	if got := s.outlook(false); got != s.outlookBefore {
		t.Errorf("after the undo:\n%s\nbefore:\n%s", got, s.outlookBefore)
	}
	s.run("smime-agent.exe", "renew", alice)
	s.awaitOutlook("Outlook stays as before", enroll.MailUndone, second.ID)
	if got := s.outlook(false); got != s.outlookBefore {
		t.Errorf("after a renewal:\n%s\nbefore:\n%s", got, s.outlookBefore)
	}
	s.run("smime-agent.exe", "mail", "apply", alice)
	s.outlookUses(s.awaitOutlook("Outlook is ready again", enroll.MailReady, ""))
	if got := s.outlook(true); got != rest {
		t.Errorf("what is somebody else's:\n%s\nwas:\n%s", got, rest)
	}
}

package status_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"smime-agent/agent/enroll"
	"smime-agent/agent/status"
)

// lookedThrough is Ann's mail, which needs the old key, a gone one and others'.
func lookedThrough(presence enroll.KeyPresence) []enroll.MailCheck {
	return []enroll.MailCheck{
		{User: "uid:1000", Path: "/home/ann/Mail", Messages: 90, Encrypted: 30, Opened: 20, Keys: []enroll.MailKey{
			{Enrollment: "smime-01", Serial: "a1", Issuer: "CN=CA", Presence: enroll.KeyHere, Messages: 20},
			{Enrollment: "smime-02", Serial: "a2", Issuer: "CN=CA", Presence: presence, Messages: 7},
			{KeyID: "beef", Presence: enroll.KeyUnknown, Messages: 3},
		}},
		{User: "uid:1000", Path: "/home/ann/Archive", Keys: []enroll.MailKey{
			{Enrollment: "smime-02", Serial: "a2", Issuer: "CN=CA", Presence: presence, Messages: 2},
		}},
		{User: "uid:1001", Path: "/home/bob", Keys: []enroll.MailKey{
			{Enrollment: "smime-02", Presence: enroll.KeyGone, Messages: 1000},
		}},
	}
}

func kept(id enroll.ID) enroll.Enrollment {
	return enroll.Enrollment{ID: id, Store: "file", State: enroll.Kept, Assignment: enroll.Assignment{User: "uid:1000", Mailboxes: []string{"ann@corp.example"}}}
}

func TestOldMailInStatus(t *testing.T) {
	now := time.Date(2026, 3, 10, 9, 0, 0, 0, time.UTC)
	all := []enroll.Enrollment{kept("smime-01"), kept("smime-02")}
	device := status.Device{Joined: true, PolicyRevision: "1"}
	r := status.Build(status.Facts{Device: device, Mail: lookedThrough(enroll.KeyGone)}, all, now).For("uid:1000")
	for _, c := range r.Credentials {
		if want := map[enroll.ID]int{"smime-01": 20, "smime-02": 9}[c.ID]; c.NeededBy != want {
			t.Errorf("%s is needed by %d, want %d", c.ID, c.NeededBy, want)
		}
	}
	var codes []string
	for _, c := range r.Conditions {
		codes = append(codes, string(c.Code)+" "+string(c.Enrollment)+" "+c.Detail)
	}
	want := "old-mail-unreadable smime-02 messages: 9, certificate: serial number a2 of CN=CA, in: /home/ann/Mail, /home/ann/Archive\n" +
		"old-mail-other-key  messages: 3, certificate: key identifier beef, in: /home/ann/Mail"
	if got := strings.Join(codes, "\n"); got != want || r.Severity != status.Warning {
		t.Errorf("%s, %s", r.Severity, got)
	}
	if len(r.OldMail) != 2 {
		t.Errorf("%d looks of his own, want 2", len(r.OldMail))
	}
	var page bytes.Buffer
	if err := status.Text(&page, r, status.Options{Locale: "en"}); err != nil || !strings.Contains(page.String(), "kept for old mail, needed by 20 messages") {
		t.Errorf("%v: %s", err, page.String())
	}
	r = status.Build(status.Facts{Device: device, Mail: lookedThrough(enroll.KeyHere)}, all, now).For("uid:1000")
	if len(r.Conditions) != 1 || r.Severity != status.OK {
		t.Errorf("with the key here: %+v", r.Conditions)
	}
}

func TestOldMailForPeople(t *testing.T) {
	m := status.OldMail{Path: "/home/ann/Mail", Files: 3, Messages: 40, Encrypted: 33, Opened: 20, Closed: 10, Unseen: 3, Unnamed: 1, FailedFiles: 1,
		Keys: []status.OldMailKey{
			{MailKey: enroll.MailKey{Serial: "a1", Issuer: "CN=CA", Presence: enroll.KeyHere, Messages: 20}, Mailbox: "ann@corp.example"},
			{MailKey: enroll.MailKey{Serial: "a2", Issuer: "CN=CA\x1b[2J", Presence: enroll.KeyGone, Messages: 7}, Folders: []status.OldMailFolder{{Path: "/home/ann/Mail/Inbox", Messages: 7}}},
			{MailKey: enroll.MailKey{Serial: "a3", Issuer: "CN=CA", Presence: enroll.KeyUnseen, Messages: 3}},
			{MailKey: enroll.MailKey{KeyID: "beef", Presence: enroll.KeyUnknown, Messages: 3}},
		}}
	var page bytes.Buffer
	if err := m.Text(&page, status.Options{Locale: "en"}); err != nil {
		t.Fatal(err)
	}
	want := `/home/ann/Mail: 40 messages in 3 files, 33 of them encrypted; 20 of these can be opened.
[OK]  20: the key is here
      ann@corp.example, serial number a1 of CN=CA
[error]  7: the key is gone
      serial number a2 of CN=CA[2J
      in /home/ann/Mail/Inbox: 7
[warning]  3: the key's store cannot be looked into now
      serial number a3 of CN=CA
[note]  3: the agent knows of no such key
      key identifier beef
[note]  1: further keys that the agent does not know
[note]  1: files that could not be read
[note]  The agent's service did not take the result, so it is not in the status.
`
	if page.String() != want {
		t.Errorf("got %s", page.String())
	}
	codes := map[int]status.OldMail{
		0: {Encrypted: 3, Opened: 3}, 1: {Closed: 1}, 2: m,
	}
	for want, m := range codes {
		if got := m.ExitCode(); got != want {
			t.Errorf("exit code %d, want %d", got, want)
		}
	}
}

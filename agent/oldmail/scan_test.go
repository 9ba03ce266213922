package oldmail

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// plant writes files below a folder; a nil content makes a folder.
func plant(t *testing.T, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestScanFolders(t *testing.T) {
	to := certificate(t, 7)
	letter := []byte("Subject: x\r\n" + enveloped + "Content-Transfer-Encoding: base64\r\n\r\n" + wrapped(encrypt(t, "x", to), "\r\n"))
	mbox := slices.Concat([]byte("From - Mon Nov 16 10:00:00 2026\r\n"), letter, []byte("\r\nFrom - Mon Nov 16 10:00:01 2026\r\n"), letter)
	dir := plant(t, map[string][]byte{
		"Maildir/cur/1:2,S": letter, "Maildir/new/2": letter, "Maildir/tmp/3": letter, "Maildir/.Sent/cur/4": letter,
		"Profile/prefs.js": []byte("user_pref();"), "Profile/Mail/Local Folders/Inbox": mbox, "Profile/Mail/Local Folders/Inbox.msf": []byte("index"),
		"Profile/Mail/Local Folders/Empty": nil, "Profile/Mail/Local Folders/Empty.msf": nil,
		"Profile/ImapMail/server/Archive.sbd/2026": mbox, "Profile/ImapMail/server/Sent/cur/1.eml": letter,
		"Profile/ImapMail/server/Inbox.mozmsgs/1.wdseml": letter,
		"Other/one.eml": letter, "Other/two.EMLX": append([]byte("4711  \n"), letter...), "Other/archive.pst": []byte("!BDN"), "Other/notes.txt": []byte("From here on"),
	})
	c, err := Scan(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	a := c.Account([]Key{{Identity: Of(to), Presence: Here}})
	if c.Messages != 10 || c.Encrypted != 10 || a.Opened != 10 || c.Closed != 1 || c.Failed != 0 {
		t.Fatalf("%+v, %+v", c, a)
	}
	got := map[string]int{}
	for _, f := range a.Uses[0].Folders {
		rel, _ := filepath.Rel(dir, f.Path)
		got[filepath.ToSlash(rel)] = f.Messages
	}
	want := map[string]int{
		"Maildir": 2, "Maildir/.Sent": 1, "Profile/Mail/Local Folders/Inbox": 2, "Profile/ImapMail/server/Archive.sbd/2026": 2,
		"Profile/ImapMail/server/Sent": 1, "Other/one.eml": 1, "Other/two.EMLX": 1,
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("by folder %v, want %v", got, want)
	}
	for path, messages := range map[string]int{"Other/one.eml": 1, "Profile/Mail/Local Folders/Inbox": 2, "Maildir/cur": 1, "Other/notes.txt": 0} {
		if c, err := Scan(t.Context(), filepath.Join(dir, path)); err != nil || c.Messages != messages {
			t.Errorf("%s: %+v, %v", path, c, err)
		}
	}
}

func TestScanRefuses(t *testing.T) {
	dir := plant(t, map[string][]byte{"notes.txt": []byte("no mail")})
	if _, err := Scan(t.Context(), dir); !errors.Is(err, ErrNoMail) {
		t.Errorf("no mail: %v", err)
	}
	if _, err := Scan(t.Context(), filepath.Join(dir, "missing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Scan(ctx, dir); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

// TestAccount: a message counts for the best that is known of its keys, and
// strangers are named by as few names as will do.
func TestAccount(t *testing.T) {
	here, gone, unseen, mate, other := certificate(t, 1), certificate(t, 2), certificate(t, 3), certificate(t, 4), certificate(t, 5)
	c := newCensus()
	add := func(n int, message []byte) {
		for range n {
			recipients, encrypted, _ := judged(message)
			c.count("f", found{encrypted: encrypted, recipients: recipients})
		}
	}
	add(1, encrypt(t, "x", here))
	add(2, encrypt(t, "x", here, gone))
	add(4, encrypt(t, "x", gone, mate))
	add(8, encrypt(t, "x", gone, unseen))
	add(16, encrypt(t, "x", mate, other))
	add(32, encrypt(t, "x", mate))
	a := c.Account([]Key{
		{Identity: Of(here), Presence: Here, Name: "here"}, {Identity: Of(gone), Presence: Gone, Name: "gone"},
		{Identity: Of(unseen), Presence: Unseen, Name: "unseen"},
	})
	var lines []string
	for _, u := range a.Uses {
		lines = append(lines, fmt.Sprintf("%s %s %d %s", u.Name, u.Presence, u.Messages, u.Serial))
	}
	want := "here here 3 1, gone gone 4 2, unseen unseen 8 3,  unknown 48 4"
	if got := strings.Join(lines, ", "); got != want || a.Opened != 3 || a.Unseen != 8 || a.Closed != 52 {
		t.Errorf("%s; %+v", got, a)
	}
	if u := a.Uses[3]; u.Issuer != "CN=Test CA" {
		t.Errorf("%+v", u)
	}
}

// TestIdentity: a certificate means what a message calls it, in both ways.
func TestIdentity(t *testing.T) {
	c := certificate(t, 0xc0ffee)
	of := Of(c)
	for _, id := range []Identity{{Issuer: "CN=Test CA", Serial: "c0ffee"}, {KeyID: "01ee"}} {
		if !id.means(of) {
			t.Errorf("%+v is not %+v", id, of)
		}
	}
	for _, id := range []Identity{{}, {Issuer: "CN=Test CA", Serial: "c0ffef"}, {Issuer: "CN=Other", Serial: "c0ffee"}, {KeyID: "01"}} {
		if id.means(of) {
			t.Errorf("%+v is taken for %+v", id, of)
		}
	}
	if id := issuerName([]byte("no name")); !strings.HasPrefix(id, "#") {
		t.Error(id)
	}
}

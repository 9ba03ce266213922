//go:build linux

package e2e_test

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"smime-agent/agent/e2e"
	"smime-agent/agent/enroll"
	"smime-agent/agent/status"
	"smime-agent/platform"
	"smime-agent/platform/platformtest"
)

// tbPrefs are an employee's Thunderbird as it is before the agent comes: a mail
// account, and nothing of S/MIME. The rest keeps it quiet, and from the network.
func tbPrefs(o *postOffice, port string) string {
	var b strings.Builder
	for name, value := range map[string]any{
		"mail.accountmanager.accounts": "account1,account2", "mail.accountmanager.defaultaccount": "account1", "mail.accountmanager.localfoldersserver": "server2",
		"mail.account.account1.identities": "id1", "mail.account.account1.server": "server1", "mail.account.account2.server": "server2",
		"mail.server.server1.type": "imap", "mail.server.server1.hostname": "127.0.0.1", "mail.server.server1.port": portNumber(o.imapPort),
		"mail.server.server1.userName": "alice", "mail.server.server1.name": "work", "mail.server.server1.socketType": 0, "mail.server.server1.authMethod": 3,
		"mail.server.server1.check_new_mail": false, "mail.server.server1.login_at_startup": false,
		"mail.server.server2.type": "none", "mail.server.server2.hostname": "Local Folders", "mail.server.server2.name": "Local Folders", "mail.server.server2.userName": "nobody",
		"mail.identity.id1.fullName": "Alice Example", "mail.identity.id1.useremail": "Alice@example.com", "mail.identity.id1.smtpServer": "smtp1",
		"mail.identity.id1.valid": true, "mail.identity.id1.compose_html": false, "mail.identity.id1.fcc": false,
		"mail.smtpservers": "smtp1", "mail.smtp.defaultserver": "smtp1", "mail.smtpserver.smtp1.hostname": "127.0.0.1",
		"mail.smtpserver.smtp1.port": portNumber(o.smtpPort), "mail.smtpserver.smtp1.try_ssl": 0, "mail.smtpserver.smtp1.authMethod": 1, "mail.smtpserver.smtp1.type": "smtp",
		"mail.provider.suppress_dialog_on_startup": true, "mail.spotlight.firstRunDone": true, "mail.winsearch.firstRunDone": true,
		"mailnews.start_page.enabled": false, "mailnews.start_page_override.mstone": "ignore", "mail.rights.version": 1,
		"mail.shell.checkDefaultClient": false, "app.update.enabled": false, "mail.chat.enabled": false, "mail.inappnotifications.enabled": false,
		"toolkit.telemetry.enabled": false, "datareporting.policy.dataSubmissionEnabled": false, "app.donation.eoy.version.viewed": 999,
		"security.OCSP.enabled": 0, "services.settings.server": "data:,#remote-settings-dummy/v1", "mailnews.auto_config_url": "",
		"app.normandy.enabled": false, "network.captive-portal-service.enabled": false, "network.connectivity-service.enabled": false,
		"extensions.blocklist.enabled": false, "marionette.port": portNumber(port),
	} {
		if s, ok := value.(string); ok {
			value = fmt.Sprintf("%q", s)
		}
		fmt.Fprintf(&b, "user_pref(%q, %v);\n", name, value)
	}
	return b.String()
}

// ldapPrefs are an administrator's: the company's directory, in which Thunderbird
// completes addresses and looks for certificates.
func ldapPrefs(s *slapd) string {
	var b strings.Builder
	for name, value := range map[string]any{
		"ldap_2.servers.company.uri": s.url + "/" + ldapBase + "??sub?(objectclass=*)", "ldap_2.servers.company.description": "Company",
		"ldap_2.servers.company.dirType": 0, "ldap_2.servers.company.position": 3, "ldap_2.servers.company.filename": "company.sqlite",
		"ldap_2.autoComplete.useDirectory": true, "ldap_2.autoComplete.directoryServer": "ldap_2.servers.company",
	} {
		if s, ok := value.(string); ok {
			value = fmt.Sprintf("%q", s)
		}
		fmt.Fprintf(&b, "user_pref(%q, %v);\n", name, value)
	}
	return b.String()
}

func portNumber(s string) int {
	n, _ := net.LookupPort("tcp", s)
	return n
}

// TestThunderbird is real Thunderbird, made ready by policy alone: it sends signed
// mail, reads encrypted mail, follows a renewal, and leaves the person what policy
// lets him decide.
func TestThunderbird(t *testing.T) {
	onlyFull(t, "Thunderbird takes a while")
	platformtest.NeedPrograms(t, "thunderbird", "openssl")
	t.Parallel()
	o := newPostOffice(t)
	w := company(t, func(w *e2e.World) {
		w.Profile, w.Keys, w.Stores = "employee-dual", []string{"rsa-2048"}, []string{"auto"}
		w.Rule = []string{"mail: {sign: always, encrypt: user-decides}"}
	})
	home := w.Home(w.account)
	profile, port := w.thunderbirdProfile(o, home)
	w.open()
	w.login(e2e.HelperOptions{})
	first := w.awaitMail("Thunderbird is ready", enroll.MailReady, "")
	if first.Store != "nss:work.default" {
		t.Errorf("auto chose %s", first.Store)
	}
	old := w.leafOf(first)

	b := startThunderbird(t, home, profile, port)
	b.send("bob@partner.example", "first", "signed by policy alone")
	w.judgeSigned(o, 1, "signed by policy alone", old)
	w.deliverEncrypted(o, old, "secret one", "for the first certificate")
	if got := b.opens("secret one"); !strings.Contains(got, "for the first certificate") {
		t.Errorf("Thunderbird reads %q", got)
	}
	// What policy wants is changed, and what the person may decide as well.
	b.run(`const id = MailServices.accounts.allIdentities[0];
		id.setBoolAttribute("sign_mail", false); id.setIntAttribute("encryptionpolicy", 2); return "set";`)

	w.agent("renew", alice)
	w.awaitMail("Thunderbird is in the way", enroll.MailBusy, first.ID)
	b.quit()
	second := w.awaitMail("Thunderbird has the new certificate", enroll.MailReady, first.ID)
	renewed := w.leafOf(second)
	prefs, err := os.ReadFile(filepath.Join(profile, "prefs.js"))
	w.must(err)
	for _, want := range []string{`id1.sign_mail", true)`, `id1.encryptionpolicy", 2)`} {
		if !bytes.Contains(prefs, []byte(want)) {
			t.Errorf("prefs.js lacks %s", want)
		}
	}

	b = startThunderbird(t, home, profile, port)
	b.send("bob@partner.example", "second", "signed after the renewal")
	w.judgeSigned(o, 2, "signed after the renewal", renewed)
	w.deliverEncrypted(o, old, "secret two", "still for the first certificate")
	w.deliverEncrypted(o, renewed, "secret three", "for the second certificate")
	for subject, text := range map[string]string{"secret two": "still for the first certificate", "secret three": "for the second certificate"} {
		if got := b.opens(subject); !strings.Contains(got, text) {
			t.Errorf("Thunderbird reads %q in %s", got, subject)
		}
	}
	w.undoesThunderbird(b, profile, second)
}

// undoesThunderbird puts Thunderbird back while it is open, closes it, and looks
// for what the agent had set.
func (w *world) undoesThunderbird(b *thunderbird, profile string, c status.Credential) {
	w.t.Helper()
	w.agent("mail", "undo", alice)
	w.awaitMail("Thunderbird is in the way of the undo", enroll.MailBusy, "")
	b.quit()
	if after := w.awaitMail("Thunderbird is as before", enroll.MailUndone, ""); after.ID != c.ID {
		w.t.Errorf("%s is in use after the undo, not %s", after.ID, c.ID)
	}
	prefs, err := os.ReadFile(filepath.Join(profile, "prefs.js"))
	w.must(err)
	for _, gone := range []string{"signing_cert_name", "signing_cert_dbkey", "encryption_cert_name", "encryption_cert_dbkey", "sign_mail"} {
		if bytes.Contains(prefs, []byte("mail.identity.id1."+gone)) {
			w.t.Errorf("after the undo prefs.js has %s", gone)
		}
	}
	if _, err := os.Stat(filepath.Join(profile, "smime-agent-undo.json")); err == nil {
		w.t.Error("what was there before is still kept")
	}
}

func (w *world) thunderbirdProfile(o *postOffice, home string) (profile, port string) {
	w.t.Helper()
	root := filepath.Join(home, ".thunderbird")
	profile = filepath.Join(root, "work.default")
	w.must(os.MkdirAll(profile, 0o700))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	w.must(err)
	_, port, err = net.SplitHostPort(l.Addr().String())
	w.must(err)
	w.must(l.Close())
	w.must(os.WriteFile(filepath.Join(root, "profiles.ini"), []byte("[Profile0]\nName=work\nIsRelative=1\nPath=work.default\nDefault=1\n"), 0o600))
	w.must(os.WriteFile(filepath.Join(profile, "prefs.js"), []byte(tbPrefs(o, port)), 0o600))
	return profile, port
}

// awaitMail waits for an active credential, another than not, whose only mail
// account is in a state.
func (w *world) awaitMail(what string, s enroll.MailState, not enroll.ID) status.Credential {
	w.t.Helper()
	var found status.Credential
	w.await(what, func(r status.Report) bool {
		i := slices.IndexFunc(r.Credentials, func(c status.Credential) bool {
			return c.State == enroll.Active && c.ID != not && len(c.Mail) == 1 && c.Mail[0].Program == "thunderbird" && c.Mail[0].State == s
		})
		if i >= 0 {
			found = r.Credentials[i]
		}
		return i >= 0
	})
	return found
}

func (w *world) leafOf(c status.Credential) *x509.Certificate {
	w.t.Helper()
	stores, err := platform.Stores(w.t.Context(), platform.StoreOptions{Home: w.Home(w.account)})
	w.must(err)
	i := slices.IndexFunc(stores, func(s platform.Store) bool { return s.Info().Name == c.Store })
	if i < 0 {
		w.t.Fatalf("no store %s", c.Store)
	}
	chain, err := stores[i].Find(w.t.Context(), platform.KeyID(c.ID))
	w.must(err)
	return chain[0]
}

func (w *world) pemFile(name string, c *x509.Certificate) string {
	w.t.Helper()
	path := filepath.Join(w.Dir, name)
	w.must(os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}), 0o600))
	return path
}

// judgeSigned has openssl verify the last message that was sent.
func (w *world) judgeSigned(o *postOffice, number int, text string, by *x509.Certificate) {
	w.t.Helper()
	message, n := o.last()
	if n != number {
		w.t.Fatalf("%d messages were sent", n)
	}
	w.judgeContent(message, text, by)
}

// judgeContent has openssl verify a signed message.
func (w *world) judgeContent(message []byte, text string, by *x509.Certificate) {
	w.t.Helper()
	in, signer, out := filepath.Join(w.Dir, "sent.eml"), filepath.Join(w.Dir, "signer.pem"), filepath.Join(w.Dir, "content")
	w.must(os.WriteFile(in, message, 0o600))
	w.run("openssl", "cms", "-verify", "-in", in, "-CAfile", w.pemFile("root.pem", w.root()), "-purpose", "smimesign", "-signer", signer, "-out", out)
	content, err := os.ReadFile(out)
	w.must(err)
	raw, err := os.ReadFile(signer)
	w.must(err)
	block, _ := pem.Decode(raw)
	_, body, _ := bytes.Cut(content, []byte("\r\n\r\n"))
	if decoded, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(body))); err == nil {
		body = decoded
	}
	if strings.TrimSpace(string(body)) != text || !bytes.Equal(block.Bytes, by.Raw) {
		w.t.Errorf("signed by another certificate, or another text:\n%s", content)
	}
}

// TestThunderbirdColleagues: two colleagues have certificates by the agent, one in
// the company's directory only, the other as a partner that policy names. Real
// Thunderbird encrypts to both, and openssl opens what it sent with their keys.
func TestThunderbirdColleagues(t *testing.T) {
	onlyFull(t, "Thunderbird takes a while")
	platformtest.NeedPrograms(t, "thunderbird", "openssl", "pk12util")
	two := people(t)
	t.Parallel()
	o, s := newPostOffice(t), startSlapd(t)
	w := company(t, func(w *e2e.World) {
		w.Profile, w.Keys, w.Stores = "employee-dual", []string{"rsa-2048"}, []string{"auto"}
		w.Rule = []string{"mail: {sign: always, encrypt: user-decides}"}
		for _, p := range two {
			w.Employees = append(w.Employees, e2e.Employee{Account: p.account, Mailbox: p.mailbox, Given: p.account, Surname: "Example"})
		}
	})
	partner, listed := two[0], two[1]
	s.person(listed.account, listed.mailbox)
	w.must(os.MkdirAll(filepath.Join(w.Dir, "home"), 0o755))
	home := w.Home(w.account)
	profile, port := w.thunderbirdProfile(o, home)
	prefs, err := os.OpenFile(filepath.Join(profile, "prefs.js"), os.O_APPEND|os.O_WRONLY, 0)
	w.must(err)
	_, err = prefs.WriteString(ldapPrefs(s))
	w.must(errors.Join(err, prefs.Close()))
	w.openPublishing(s)
	w.login(e2e.HelperOptions{})
	keys := map[string]colleague{}
	for _, p := range two {
		w.login(e2e.HelperOptions{Account: p.account, UID: p.uid, GID: p.gid})
		keys[p.mailbox] = w.colleague(p)
	}
	ready := w.awaitMail("Thunderbird is ready", enroll.MailReady, "")
	w.published(s, listed)
	w.partnersWithout(listed, ready.Mailbox)
	w.eventually("the partner's certificate in Thunderbird's database", func() bool {
		list := w.run("certutil", "-L", "-d", "sql:"+profile)
		return strings.Contains(list, partner.mailbox) && !strings.Contains(list, listed.mailbox)
	})

	// What policy rules is not the person's to take back.
	for _, locale := range []string{"en", "zh-CN"} {
		said, code := w.says(partner, "mail", "undo", "--language", locale)
		if want := map[string]string{"en": "Policy rules the mail programs", "zh-CN": "由策略规定"}[locale]; code != 1 || !strings.Contains(said, want) {
			t.Errorf("an undo against policy: exit code %d, %s", code, said)
		}
	}

	b := startThunderbird(t, home, profile, port)
	own := w.leafOf(ready)
	for i, c := range []struct {
		to   person
		text string
	}{{partner, "to you whom policy names"}, {listed, "to you whom the directory lists"}} {
		b.sendSealed(c.to.mailbox, "sealed", c.text)
		w.judgeSealed(o, i+1, c.text, keys[c.to.mailbox], own)
	}
	b.quit()
}

// colleague is a certificate with its key, as files that openssl reads.
type colleague struct{ certificate, key string }

// colleague waits for a person's certificate and takes it, with its key, out of
// the store in which the agent made it.
func (w *world) colleague(p person) colleague {
	w.t.Helper()
	r := w.await("a certificate of "+p.account, has(p.mailbox, enroll.Active))
	if made, _ := credential(r, p.mailbox, enroll.Active); made.Store != "nss:default" {
		w.t.Fatalf("%s has his key in %s", p.account, made.Store)
	}
	dir := w.t.TempDir()
	database := "sql:" + filepath.Join(w.Home(p.account), ".pki", "nssdb")
	none, packed := filepath.Join(dir, "none"), filepath.Join(dir, "both.p12")
	c := colleague{certificate: filepath.Join(dir, "leaf.pem"), key: filepath.Join(dir, "key.pem")}
	w.must(os.WriteFile(none, []byte("\n"), 0o600))
	w.run("pk12util", "-o", packed, "-d", database, "-k", none, "-W", "secret", "-n", w.nicknameOf(database, p))
	w.run("openssl", "pkcs12", "-in", packed, "-passin", "pass:secret", "-legacy", "-clcerts", "-nokeys", "-out", c.certificate)
	w.run("openssl", "pkcs12", "-in", packed, "-passin", "pass:secret", "-legacy", "-nocerts", "-nodes", "-out", c.key)
	return c
}

// nicknameOf is that of the only certificate in a database that has its key there.
func (w *world) nicknameOf(database string, p person) string {
	w.t.Helper()
	for line := range strings.Lines(w.run("certutil", "-L", "-d", database)) {
		if name, ok := strings.CutSuffix(strings.TrimSpace(line), "u,u,u"); ok {
			return strings.TrimSpace(name)
		}
	}
	w.t.Fatalf("no certificate of %s has its key", p.mailbox)
	return ""
}

// partnersWithout names all colleagues as partners, but for these mailboxes.
func (w *world) partnersWithout(without person, mailboxes ...string) {
	w.t.Helper()
	folder := filepath.Join(w.Dir, "central", "partners")
	w.central("export", "certificates", "--to", folder)
	files, err := filepath.Glob(filepath.Join(folder, "*.cer"))
	w.must(err)
	gone := 0
	for _, file := range files {
		said := w.run("openssl", "x509", "-inform", "DER", "-in", file, "-noout", "-email")
		if slices.Contains(append(mailboxes, without.mailbox), strings.TrimSpace(said)) {
			w.must(errors.Join(os.Remove(file), os.Remove(strings.TrimSuffix(file, ".cer")+".p7b")))
			gone++
		}
	}
	if gone == 0 || gone == len(files) {
		w.t.Fatalf("%d of %d partners are left out", gone, len(files))
	}
	w.writePartners("partners: [partners]\n")
	w.central("policy", "apply")
	w.agent("sync")
}

// judgeSealed has openssl open the last message that was sent, with the key of the
// one to whom it went, and verify the signature within.
func (w *world) judgeSealed(o *postOffice, number int, text string, to colleague, by *x509.Certificate) {
	w.t.Helper()
	message, n := o.last()
	if n != number {
		w.t.Fatalf("%d messages were sent", n)
	}
	if bytes.Contains(message, []byte(text)) {
		w.t.Error("the message went in the clear")
	}
	dir := w.t.TempDir()
	sealed, opened := filepath.Join(dir, "sealed.eml"), filepath.Join(dir, "opened.eml")
	w.must(os.WriteFile(sealed, message, 0o600))
	w.run("openssl", "cms", "-decrypt", "-in", sealed, "-recip", to.certificate, "-inkey", to.key, "-out", opened)
	inner, err := os.ReadFile(opened)
	w.must(err)
	w.judgeContent(inner, text, by)
}

// deliverEncrypted has openssl encrypt a message, and puts it into the inbox.
func (w *world) deliverEncrypted(o *postOffice, to *x509.Certificate, subject, text string) {
	w.t.Helper()
	in, out := filepath.Join(w.Dir, "plain"), filepath.Join(w.Dir, "encrypted.eml")
	w.must(os.WriteFile(in, []byte("Content-Type: text/plain; charset=utf-8\r\n\r\n"+text+"\r\n"), 0o600))
	w.run("openssl", "cms", "-encrypt", "-aes256", "-in", in, "-out", out, "-from", "bob@partner.example", "-to", alice, "-subject", subject,
		w.pemFile("to.pem", to))
	raw, err := os.ReadFile(out)
	w.must(err)
	raw = bytes.ReplaceAll(bytes.ReplaceAll(raw, []byte("\r\n"), []byte("\n")), []byte("\n"), []byte("\r\n"))
	o.deliver(w.t, append([]byte("Date: Sat, 28 Nov 2026 12:00:00 +0000\r\nMessage-ID: <"+strings.ReplaceAll(subject, " ", ".")+"@partner.example>\r\n"), raw...))
}

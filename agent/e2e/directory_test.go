//go:build linux

package e2e_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"smime-agent/agent/e2e"
	"smime-agent/agent/enroll"
	"smime-agent/agent/status"
	"smime-agent/platform/platformtest"
	"smime-agent/server-stub/directory"
)

// TestOthersReach: what two people get is found in a real OpenLDAP by their
// addresses, and follows renewal and revocation; one of them encrypts with NSS to
// the certificate of the other that the agent put into his database, and the
// other reads it.
func TestOthersReach(t *testing.T) {
	onlyFull(t, "it needs slapd, NSS's tools and two other users")
	t.Parallel()
	platformtest.NeedPrograms(t, "certutil", "cmsutil", "openssl")
	two := people(t)
	w := company(t, func(w *e2e.World) {
		w.Profile, w.Keys, w.Stores, w.Employees = "employee-dual", []string{"rsa-2048"}, []string{"nss:default"}, nil
		for _, p := range two {
			w.Employees = append(w.Employees, e2e.Employee{Account: p.account, Mailbox: p.mailbox, Given: p.account, Surname: "Example"})
		}
	})
	w.must(os.MkdirAll(filepath.Join(w.Dir, "home"), 0o755))
	s := startSlapd(t)
	foreign := platformtest.NewAuthority(t).Partner(t, two[1].mailbox).Raw
	s.person(two[0].account, two[0].mailbox)
	s.person(two[1].account, two[1].mailbox, foreign)
	w.openPublishing(s)
	for _, p := range two {
		w.login(e2e.HelperOptions{Account: p.account, UID: p.uid, GID: p.gid})
	}
	for _, p := range two {
		w.await("a certificate of "+p.account, has(p.mailbox, enroll.Active))
	}
	first := w.published(s, two[1])
	w.published(s, two[0])
	w.keepsForeign(s, two[1], foreign)

	w.exchange(two[0], two[1])
	w.withdraws(two[0], two[1])

	w.agent("renew", two[1].mailbox)
	w.await("a renewed certificate", func(r status.Report) bool {
		c, ok := credential(r, two[1].mailbox, enroll.Active)
		return ok && c.Fingerprint != first.Fingerprint
	})
	second := w.published(s, two[1])
	if certificates, _ := s.find(two[1].mailbox); len(certificates) != 2 {
		t.Errorf("%d certificates are in the directory, want the new one and somebody else's", len(certificates))
	}
	w.keepsForeign(s, two[1], foreign)

	// What is revoked goes at once, and what the agent gets in its place comes.
	w.central("revoke", w.ledgerOf(second).Serial, "--reason", "keyCompromise")
	w.agent("sync")
	w.await("a certificate in the place of the revoked one", func(r status.Report) bool {
		c, ok := credential(r, two[1].mailbox, enroll.Active)
		return ok && c.Fingerprint != second.Fingerprint
	})
	w.published(s, two[1])
	w.keepsForeign(s, two[1], foreign)
	if certificates, signed := s.find(two[1].mailbox); len(certificates) != 2 || len(signed) != 1 {
		t.Errorf("%d certificates and %d signed values are in the directory", len(certificates), len(signed))
	}
}

// openPublishing is [world.open] with a directory.
func (w *world) openPublishing(s *slapd) {
	w.t.Helper()
	ctx := w.within()
	w.must(w.Founded(ctx))
	path := filepath.Join(w.Dir, "central", "server.yaml")
	raw, err := os.ReadFile(path)
	w.must(err)
	before, rest, ok := strings.Cut(string(raw), "directory:\n")
	_, after, ok2 := strings.Cut(rest, "\n\n")
	if !ok || !ok2 {
		w.t.Fatalf("server.yaml has no directory:\n%s", raw)
	}
	w.must(os.WriteFile(filepath.Join(w.Dir, "central", "ldap.password"), []byte(ldapPass+"\n"), 0o600))
	w.must(os.WriteFile(path, fmt.Appendf(nil, `%sdirectory:
  url: %q
  security: starttls
  bind_dn: %q
  password_file: ldap.password
  base: %q
  ca_file: %q

%s`, before, s.url, ldapBind, ldapBase, filepath.Join(s.dir, "server.pem"), after), 0o600))
	w.must(w.StartServer(ctx))
	w.must(w.WriteSettings(ctx))
	w.must(w.StartAgent(ctx))
}

func (w *world) eventually(what string, done func() bool) {
	w.t.Helper()
	ctx := w.within()
	for !done() {
		select {
		case <-ctx.Done():
			w.t.Fatalf("waiting for %s; the directory as central management sees it:\n%s", what, w.central("directory"))
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// published waits until the directory has the active certificate of a person and
// no other of ours, and asks openssl about both values.
func (w *world) published(s *slapd, p person) status.Credential {
	w.t.Helper()
	var c status.Credential
	var leaf, value []byte
	w.eventually("the certificate of "+p.account+" in the directory", func() bool {
		r, err := w.Report(w.within())
		w.must(err)
		active, ok := credential(r, p.mailbox, enroll.Active)
		certificates, signed := s.find(p.mailbox)
		i := slices.IndexFunc(certificates, func(der []byte) bool { return fingerprint(der) == active.Fingerprint })
		if !ok || i < 0 || len(signed) != 1 {
			return false
		}
		c, leaf, value = active, certificates[i], signed[0]
		return true
	})
	w.judgeDirectory(p, leaf, value)
	var rows []struct{ Mailbox, State, Serial string }
	w.must(json.Unmarshal([]byte(w.central("directory", "--json", "--match", p.mailbox)), &rows))
	if len(rows) != 1 || rows[0].State != directory.Published || rows[0].Serial != w.ledgerOf(c).Serial {
		w.t.Errorf("server-stub directory: %+v", rows)
	}
	return c
}

func fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// judgeDirectory has openssl read both values.
func (w *world) judgeDirectory(p person, leaf, value []byte) {
	w.t.Helper()
	dir := w.t.TempDir()
	file := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		w.must(os.WriteFile(path, data, 0o600))
		return path
	}
	said := w.run("openssl", "x509", "-inform", "DER", "-in", file("leaf.cer", leaf), "-noout", "-email", "-checkend", "0")
	if !strings.Contains(said, p.mailbox) {
		w.t.Errorf("openssl reads %q", said)
	}
	root := file("root.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.root().Raw}))
	w.run("openssl", "cms", "-verify", "-inform", "DER", "-in", file("value", value), "-content", file("empty", nil),
		"-CAfile", root, "-purpose", "smimesign", "-signer", filepath.Join(dir, "signer.pem"), "-out", filepath.Join(dir, "out"))
	signer, err := os.ReadFile(filepath.Join(dir, "signer.pem"))
	w.must(err)
	if block, _ := pem.Decode(signer); block == nil || fingerprint(block.Bytes) != fingerprint(leaf) {
		w.t.Error("the signed value is by another certificate")
	}
	if printed := w.run("openssl", "cms", "-cmsout", "-print", "-inform", "DER", "-in", filepath.Join(dir, "value")); !strings.Contains(printed, "S/MIME Capabilities") {
		w.t.Error("openssl shows no capabilities in the signed value")
	}
}

func (w *world) keepsForeign(s *slapd, p person, foreign []byte) {
	w.t.Helper()
	if certificates, _ := s.find(p.mailbox); !slices.ContainsFunc(certificates, func(der []byte) bool { return fingerprint(der) == fingerprint(foreign) }) {
		w.t.Error("somebody else's certificate is gone from the directory")
	}
}

// exchange puts all colleagues' certificates before everybody by policy; NSS then
// encrypts to one by his address alone.
func (w *world) exchange(from, to person) {
	w.t.Helper()
	w.central("export", "certificates", "--to", filepath.Join(w.Dir, "central", "partners"))
	w.writePartners("partners: [partners]\n")
	if said := w.central("policy", "check"); !strings.Contains(said, "partners") {
		w.t.Errorf("policy check says nothing of partners: %s", said)
	}
	w.central("policy", "apply")
	w.agent("sync")
	database := func(p person) string { return "sql:" + filepath.Join(w.Home(p.account), ".pki", "nssdb") }
	w.eventually("the partner's certificate in the database", func() bool {
		return strings.Contains(w.run("certutil", "-L", "-d", database(from)), to.mailbox)
	})
	dir := w.t.TempDir()
	none, body := filepath.Join(dir, "none"), filepath.Join(dir, "body")
	w.must(os.WriteFile(none, []byte("\n"), 0o600))
	w.must(os.WriteFile(body, []byte("To you alone.\r\n"), 0o600))
	sealed, opened := filepath.Join(dir, "sealed"), filepath.Join(dir, "opened")
	w.run("cmsutil", "-E", "-d", database(from), "-f", none, "-r", to.mailbox, "-i", body, "-o", sealed)
	w.run("cmsutil", "-D", "-d", database(to), "-f", none, "-i", sealed, "-o", opened)
	if got, err := os.ReadFile(opened); err != nil || string(got) != "To you alone.\r\n" {
		w.t.Errorf("the colleague reads %q, %v", got, err)
	}
}

// withdraws takes the partners out of the policy: what was filed goes, and what
// each person has of his own stays.
func (w *world) withdraws(from, to person) {
	w.t.Helper()
	w.writePartners("")
	w.central("policy", "apply")
	w.agent("sync")
	list := func(p person) string {
		return w.run("certutil", "-L", "-d", "sql:"+filepath.Join(w.Home(p.account), ".pki", "nssdb"))
	}
	w.eventually("the partner's certificate to go", func() bool { return !strings.Contains(list(from), to.mailbox) })
	for _, p := range []person{from, to} {
		if said := list(p); !strings.Contains(said, "u,u,u") || !strings.Contains(said, p.mailbox) {
			w.t.Errorf("%s's own certificate is gone:\n%s", p.account, said)
		}
	}
}

// writePartners adds lines to the policy, in the place of those before.
func (w *world) writePartners(lines string) {
	w.t.Helper()
	w.must(w.WritePolicy(w.Consent))
	path := filepath.Join(w.Dir, "central", "policy.yaml")
	raw, err := os.ReadFile(path)
	w.must(err)
	w.must(os.WriteFile(path, append([]byte(lines), raw...), 0o600))
}

//go:build linux

package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
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

// enrollment is one way from the prompt to the proof.
type enrollment struct {
	profile, key, store string
	// quick says that it belongs to the quick form.
	quick bool
	// fresh leaves it to the product to make the NSS database.
	fresh bool
}

func enrollments() []enrollment {
	all := []enrollment{
		{profile: "employee-sign", key: "p-256", store: "file", quick: true},
		{profile: "employee-dual", key: "p-256", store: "nss:default", fresh: true},
	}
	for _, store := range []string{"file", "nss:default"} {
		for _, key := range []string{"rsa-3072", "rsa-2048", "rsa-4096", "p-256", "p-384"} {
			all = append(all, enrollment{profile: "employee-dual", key: key, store: store})
		}
		for _, profile := range []string{"employee-sign", "employee-encrypt", "department-dual", "mailbox-dual"} {
			for _, key := range []string{"rsa-2048", "p-256"} {
				all = append(all, enrollment{profile: profile, key: key, store: store})
			}
		}
	}
	return all
}

// TestEnrollment brings each profile, kind of key and store from the prompt to
// the proof; then programs that none of us wrote judge what lies in the store.
func TestEnrollment(t *testing.T) {
	t.Parallel()
	for _, e := range enrollments() {
		t.Run(e.profile+"/"+e.key+"/"+strings.ReplaceAll(e.store, ":", "-"), func(t *testing.T) {
			if !e.quick {
				onlyFull(t, "the quick form enrolls one kind")
			}
			t.Parallel()
			w := company(t, func(w *e2e.World) {
				w.Profile, w.Keys, w.Stores, w.Consent = e.profile, []string{e.key}, []string{e.store}, "ask"
			})
			n := w.database(e)
			c := w.enrolls(e2e.HelperOptions{})
			w.checkCredential(c, e)
			if n != nil {
				w.judgeNSS(*n, c)
			}
		})
	}
}

// database makes the employee's NSS database, as a desktop has it: without a
// password. nil for the other stores.
func (w *world) database(e enrollment) *platformtest.NSS {
	w.t.Helper()
	if e.store != "nss:default" {
		return nil
	}
	platformtest.NeedPrograms(w.t, "certutil", "cmsutil", "openssl")
	home := w.Home(w.account)
	n := &platformtest.NSS{Home: home, Dir: filepath.Join(home, ".pki", "nssdb"), PasswordFile: filepath.Join(w.Dir, "password")}
	w.must(os.MkdirAll(home, 0o700))
	w.must(os.WriteFile(n.PasswordFile, []byte("\n"), 0o600))
	if e.fresh {
		return n
	}
	w.must(os.MkdirAll(n.Dir, 0o700))
	w.run("certutil", "-N", "-d", "sql:"+n.Dir, "-f", n.PasswordFile)
	return n
}

// run runs an outside program that must succeed.
func (w *world) run(name string, args ...string) string {
	w.t.Helper()
	out, err := exec.CommandContext(w.within(), name, args...).CombinedOutput()
	if err != nil {
		w.t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// enrolls goes the whole way: the question comes, is answered on the command
// line, and the certificate is proved.
func (w *world) enrolls(o e2e.HelperOptions) status.Credential {
	w.t.Helper()
	w.open()
	w.login(o)
	w.await("the question", has(alice, enroll.Wanted))
	w.agent("approve", alice)
	r := w.await("a proved certificate", has(alice, enroll.Active))
	c, _ := credential(r, alice, enroll.Active)
	return c
}

func (w *world) checkCredential(c status.Credential, e enrollment) {
	w.t.Helper()
	if c.Profile != e.profile || c.Algorithm != e.key || c.Store != e.store || !c.Proof.OK() {
		w.t.Errorf("credential = %+v, proof %+v", c, c.Proof)
	}
	line := w.ledgerOf(c)
	if line.Fingerprint != c.Fingerprint || line.Store != c.Store || line.Type != c.Profile || line.Mailbox != alice ||
		line.Protection != c.Protection || line.Enrollment != string(c.ID) || line.Status != "valid" || !line.NotAfter.Equal(c.NotAfter) {
		w.t.Errorf("ledger = %+v\ncredential = %+v", line, c)
	}
	w.checkAudit()
	for _, event := range []string{"service-started", "device-joined", "helper-attached", "enrollment-wanted", "consent-given",
		"key-created", "request-submitted", "certificate-issued", "certificate-installed", "credential-proved"} {
		if w.events()[event] == 0 {
			w.t.Errorf("the audit trail has no %s", event)
		}
	}
	r, err := w.Report(w.within())
	w.must(err)
	v, err := w.oracle().judge(r)
	if err != nil || v.keys != 1 || v.certificates != 1 {
		w.t.Errorf("oracle: %+v, %v", v, err)
	}
}

// judgeNSS asks NSS's own tools and openssl, with what lies in the database.
func (w *world) judgeNSS(n platformtest.NSS, c status.Credential) {
	w.t.Helper()
	stores, err := platform.Stores(w.t.Context(), platform.StoreOptions{Home: n.Home})
	w.must(err)
	i := slices.IndexFunc(stores, func(s platform.Store) bool { return s.Info().Name == c.Store })
	if i < 0 {
		w.t.Fatalf("no store %s", c.Store)
	}
	chain, err := stores[i].Find(w.t.Context(), platform.KeyID(c.ID))
	w.must(err)
	if !chain[len(chain)-1].Equal(w.root()) {
		chain = append(chain, w.root())
	}
	if strings.HasSuffix(c.Profile, "-dual") {
		platformtest.JudgeNSS(w.t, n, platform.KeyID(c.ID), chain)
		return
	}
	usage, other := "S", "R"
	if c.Profile == "employee-encrypt" {
		usage, other = other, usage
	}
	nickname := c.Mailbox + " " + string(c.ID)
	validate := func(usage string) (string, error) {
		cmd := exec.CommandContext(w.t.Context(), "certutil", "-V", "-d", "sql:"+n.Dir, "-f", n.PasswordFile, "-n", nickname, "-u", usage)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := validate(usage); err != nil || !strings.Contains(out, "certificate is valid") {
		w.t.Errorf("certutil on usage %s of %s: %v %s", usage, c.Profile, err, out)
	}
	if out, err := validate(other); err == nil && (other != "R" || c.Algorithm[0] != 'p') {
		// NSS takes an EC key that may only sign for a recipient's too
		// (CERT_CheckKeyUsage in nss/lib/certdb/certdb.c), so that says nothing.
		w.t.Errorf("certutil takes %s for usage %s: %s", c.Profile, other, out)
	}
	if list := w.run("certutil", "-L", "-d", "sql:"+n.Dir); !strings.Contains(strings.Join(strings.Fields(list), " "), nickname+" u,u,u") {
		w.t.Errorf("certutil lists no %s with u,u,u:\n%s", nickname, list)
	}
}

// TestTokenEnrollment is the same through PKCS #11 modules that policy names.
// Somebody must type the PIN: a program in the place of zenity, for the dialog
// itself is judged in TestConsentDialog.
func TestTokenEnrollment(t *testing.T) {
	for _, c := range []struct{ kind, profile, key string }{
		{"softhsm", "employee-dual", "rsa-2048"},
		{"softhsm", "employee-dual", "p-256"},
		{"tpm", "employee-dual", "rsa-2048"},
		{"tpm", "employee-sign", "p-256"}, // tpm2-pkcs11 1.9 agrees on no keys
	} {
		t.Run(c.kind+"/"+c.key, func(t *testing.T) {
			onlyFull(t, "tokens need their modules")
			token := tokenOf(t, c.kind)
			w := company(t, func(w *e2e.World) {
				w.Profile, w.Keys, w.Consent = c.profile, []string{c.key}, "ask"
				w.Stores = []string{"pkcs11:" + token.Module.TokenLabel}
				w.Rule = []string{fmt.Sprintf("modules: [{path: %q, token_label: %q}]", token.Module.Path, token.Module.TokenLabel)}
			})
			o := w.oracle()
			o.options.Modules, o.options.PIN = []platform.Module{token.Module}, token.AskPIN(t)
			o.disown()
			x := w.enrolls(w.typist(token.PIN))
			if x.Algorithm != c.key || !x.Proof.OK() || !x.Proof.Signs || x.Proof.Decrypts != (c.profile == "employee-dual") {
				t.Errorf("credential = %+v, proof %+v", x, x.Proof)
			}
			w.ledgerOf(x)
			w.checkAudit()
			r, err := w.Report(w.within())
			w.must(err)
			if v, err := o.judge(r); err != nil || v.keys != 1 || v.decrypted != 1 {
				t.Errorf("oracle: %+v, %v", v, err)
			}
		})
	}
}

func tokenOf(t *testing.T, kind string) platformtest.Token {
	t.Helper()
	if kind == "tpm" {
		return platformtest.StartTPM(t)
	}
	return platformtest.SoftHSM(t)
}

// typist is a session in which the PIN is typed whenever it is asked for, and
// whatever else is asked is put off.
func (w *world) typist(pin string) e2e.HelperOptions {
	w.t.Helper()
	return w.typing("typist", pin)
}

// typing is such a session, with the program in a folder of that name.
func (w *world) typing(folder, pin string) e2e.HelperOptions {
	w.t.Helper()
	dir := filepath.Join(w.Dir, folder)
	w.must(os.Mkdir(dir, 0o755))
	script := "#!/bin/sh\ncase \" $* \" in *' --entry '*) echo '" + pin + "' ;; *) sleep 3600 ;; esac\n"
	w.must(os.WriteFile(filepath.Join(dir, "zenity"), []byte(script), 0o755))
	env := []string{"DISPLAY=:nobody", "PATH=" + dir + ":" + os.Getenv("PATH")}
	// A TPM's resource manager is reached over the message bus of its own.
	if bus := os.Getenv("DBUS_SESSION_BUS_ADDRESS"); bus != "" && os.Getenv("TPM2_PKCS11_STORE") != "" {
		env = append(env, "DBUS_SESSION_BUS_ADDRESS="+bus)
	}
	return e2e.HelperOptions{Env: env}
}

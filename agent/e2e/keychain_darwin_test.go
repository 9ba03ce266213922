package e2e_test

import (
	"context"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"smime-agent/agent/e2e"
	"smime-agent/agent/enroll"
	"smime-agent/agent/status"
	"smime-agent/platform/platformtest"
)

const mailbox = "alice@example.com"

// TestKeychainEnrollment goes the whole way on a Mac, from nothing to a proved
// certificate in the default keychain, which must be one made for tests. Then
// Apple's own tool must find the identity, and a new helper the credential.
func TestKeychainEnrollment(t *testing.T) {
	const variable = "SMIME_AGENT_TEST_KEYCHAIN"
	platformtest.Need(t, variable+"=1 (a default keychain made for tests)", os.Getenv(variable) == "1")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	w := macCompany(t, ctx)
	helper, err := w.StartHelper(e2e.HelperOptions{Account: w.Employees[0].Account, Env: []string{"HOME=" + w.HomeDir}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { helper.Stop() })
	r, err := w.Await(ctx, "a proved certificate", isActive)
	if err != nil {
		t.Fatalf("%v\nhelper: %s\nservice: %s", err, helper.Output(), w.Service().Output())
	}
	c := r.Credentials[0]
	if c.Store != "keychain" || c.Protection != "non-exportable" || c.Proof == nil || !c.Proof.OK() {
		t.Errorf("%+v", c)
	}
	said, err := exec.CommandContext(ctx, "/usr/bin/security", "find-identity", "-p", "smime").CombinedOutput()
	if err != nil || !strings.Contains(string(said), "Alice") {
		t.Errorf("security find-identity: %v\n%s", err, said)
	}
	said, err = exec.CommandContext(ctx, "/usr/bin/security", "get-identity-preference", "-s", mailbox, "-Z").CombinedOutput()
	if err != nil || !strings.Contains(strings.ToUpper(strings.ReplaceAll(string(said), ":", "")), "SHA") {
		t.Errorf("security get-identity-preference: %v\n%s", err, said)
	}
	helper.Kill()
	if helper, err = w.StartHelper(e2e.HelperOptions{Account: w.Employees[0].Account, Env: []string{"HOME=" + w.HomeDir}}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Await(ctx, "the same credential", func(r status.Report) bool { return isActive(r) && r.Credentials[0].ID == c.ID }); err != nil {
		t.Error(err)
	}
}

func isActive(r status.Report) bool {
	return len(r.Credentials) == 1 && r.Credentials[0].State == enroll.Active
}

// macCompany builds the programs and starts central management and the service.
// The folder lies in /tmp, since a socket's path has 103 bytes at most.
func macCompany(t *testing.T, ctx context.Context) *e2e.World {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "e2e") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	bin := filepath.Join(dir, "bin")
	out, err := exec.CommandContext(ctx, "go", "build", "-o", bin+"/", "../cmd/...", "../../server-stub").CombinedOutput()
	if err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	w := &e2e.World{
		Bin: bin, Dir: dir, HomeDir: me.HomeDir, Consent: "silent", Profile: "employee-dual", Stores: []string{"keychain"},
		Employees: []e2e.Employee{{Account: me.Username, Mailbox: mailbox, Given: "Alice", Surname: "Example"}},
	}
	t.Cleanup(w.Close)
	for _, step := range []func(context.Context) error{w.Founded, w.StartServer, w.WriteSettings, w.StartAgent} {
		if err := step(ctx); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/store/pgtest"
)

// childMark has the test program be the server itself, so that it can be killed.
const childMark = "SERVER_STUB_IS_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childMark) != "" {
		main()
		return
	}
	os.Exit(pgtest.Main(m))
}

// cli runs a command in this process.
func cli(t testing.TB, args ...string) (string, error) {
	t.Helper()
	var out, errOut bytes.Buffer
	err := run(t.Context(), args, env{out: &out, err: &errOut, now: time.Now})
	return out.String(), err
}

func mustCLI(t testing.TB, args ...string) string {
	t.Helper()
	out, err := cli(t, args...)
	if err != nil {
		t.Fatalf("server-stub %s: %v", strings.Join(args, " "), err)
	}
	return out
}

// found makes a server's directory.
func found(t testing.TB, more ...string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "pilot")
	out := mustCLI(t, append([]string{
		"init", "--dir", dir, "--organization", "Example GmbH", "--country", "DE",
		"--organization-identifier", "NTRDE-DER3306.HRB12345", "--host", "127.0.0.1",
		"--listen", "127.0.0.1:0", "--web", "127.0.0.1:0",
	}, more...)...)
	if !strings.Contains(out, "server-stub serve") {
		t.Errorf("init does not say what is next:\n%s", out)
	}
	return dir
}

// child is a server as a process of its own.
type child struct {
	cmd  *exec.Cmd
	addr string
	web  string
	// metrics is where figures are, if anywhere.
	metrics string
}

func serve(t testing.TB, dir string) *child {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), program, "serve", "--dir", dir)
	cmd.Env = append(os.Environ(), childMark+"=1")
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	line, err := bufio.NewReader(out).ReadString('\n')
	addr, ok := strings.CutPrefix(line, "listening on ")
	if err != nil || !ok {
		t.Fatalf("the server says %q, %v\n%s", line, err, errOut.String())
	}
	addr, web, _ := strings.Cut(strings.TrimSpace(addr), ", web on ")
	web, figures, _ := strings.Cut(web, ", metrics on ")
	return &child{cmd: cmd, addr: addr, web: web, metrics: figures}
}

func (c *child) kill(t testing.TB) {
	t.Helper()
	if err := c.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = c.cmd.Wait() // "signal: killed"
}

func (c *child) stop(t testing.TB) {
	t.Helper()
	if err := c.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Wait(); err != nil {
		t.Errorf("the server ends with %v", err)
	}
}

func TestInitKeepsKeysAndOverwritesNothing(t *testing.T) {
	dir := found(t)
	for _, name := range []string{"ca/root.key", "ca/issuing.key", "transport/ca.key", "transport/server.key", "admin/admin.pem"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", name, info.Mode())
		}
	}
	before, err := os.ReadFile(filepath.Join(dir, "ca/issuing.key"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = cli(t, "init", "--dir", dir, "--organization", "Other", "--country", "DE", "--organization-identifier", "NTRDE-1")
	if _, ok := errors.AsType[*cured](err); !ok {
		t.Errorf("init over a server gives %v, want a refusal with a cure", err)
	}
	after, err := os.ReadFile(filepath.Join(dir, "ca/issuing.key"))
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("the issuing CA's key changed: %v", err)
	}
}

func TestCommands(t *testing.T) {
	dir := found(t)
	c := serve(t, dir)
	call := func(args ...string) string { return mustCLI(t, append(args, "--dir", dir, "--server", c.addr)...) }
	fails := func(want string, args ...string) {
		t.Helper()
		if _, err := cli(t, append(args, "--dir", dir, "--server", c.addr)...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v gives %v, want %q", args, err, want)
		}
	}
	text := strings.TrimSpace(call("token", "create", "--uses", "2", "--label", "pilot"))
	id := strings.Fields(strings.Split(call("token", "list"), "\n")[1])[0]
	m := joined(t, dir, c.addr, text)
	cert := m.enroll(t, 1)
	if out := call("devices"); !strings.Contains(out, m.id) || !strings.Contains(out, "admitted") {
		t.Errorf("devices shows\n%s", out)
	}
	if out := call("device", "show", m.id); !strings.Contains(out, "alice") {
		t.Errorf("device show shows\n%s", out)
	}
	if out := call("requests", "--all"); !strings.Contains(out, "alice@example.com") {
		t.Errorf("requests shows\n%s", out)
	}
	if out := call("ledger"); !strings.Contains(out, "Alice Example") || !strings.Contains(out, "valid") {
		t.Errorf("ledger shows\n%s", out)
	}
	if out := call("ledger", "--expiring", "60d"); strings.Contains(out, "Alice") {
		t.Errorf("a fresh certificate ends within 60 days:\n%s", out)
	}
	var entries []map[string]any
	if err := json.Unmarshal([]byte(call("ledger", "--json")), &entries); err != nil || len(entries) != 1 {
		t.Errorf("ledger --json: %v, %d entries", err, len(entries))
	}
	call("renew", m.id, enrollmentID(1))
	call("prove", m.id)
	fails("has no enrollment", "renew", m.id, "smime-nothing")
	call("revoke", cert.SerialNumber.Text(16), "--reason", "superseded")
	if out := call("ledger", "show", cert.SerialNumber.Text(16)); !strings.Contains(out, "superseded") || !strings.Contains(out, "submitted") {
		t.Errorf("ledger show shows\n%s", out)
	}
	if out := call("ledger", "--status", "valid", "--csv"); strings.Contains(out, "alice@example.com") {
		t.Errorf("a revoked certificate is valid:\n%s", out)
	}
	fails("is no reason", "revoke", cert.SerialNumber.Text(16), "--reason", "because")
	if out := call("ledger"); !strings.Contains(out, "revoked") {
		t.Errorf("ledger shows after the revocation\n%s", out)
	}
	if out := call("leavers"); !strings.Contains(out, "Nobody's") {
		t.Errorf("leavers shows\n%s", out)
	}
	fails("Nothing was revoked", "leavers", "--revoke", "affiliationChanged", "--count", "1")
	fails("missing [count]", "leavers", "--revoke", "affiliationChanged")
	call("token", "revoke", id)
	fails("no token", "token", "revoke", "nothing")
	if out := call("policy", "check"); !strings.Contains(out, "nothing changes") {
		t.Errorf("policy check shows\n%s", out)
	}
	more := "account,mailbox,given_name,surname,department\nalice,alice@example.com,Alice,Example,Sales\nbob,bob@example.com,Bob,Example,IT\n"
	if err := os.WriteFile(filepath.Join(dir, "people.csv"), []byte(more), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := call("policy", "diff"); !strings.Contains(out, "+  bob") {
		t.Errorf("policy diff shows\n%s", out)
	}
	if err := os.WriteFile(filepath.Join(dir, "people.csv"), []byte("account,mailbox\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	fails("people.csv:1:", "policy", "apply")
	if out := call("device", "remove", m.id); strings.Contains(out, "stay valid") {
		t.Errorf("a revoked certificate stays valid:\n%s", out)
	}
	call("device", "admit", m.id)
	m.enroll(t, 2)
	if out := call("device", "remove", m.id); !strings.Contains(out, "stay valid") || !strings.Contains(out, "alice@example.com") {
		t.Errorf("the removal does not say what stays valid:\n%s", out)
	}
	if out := call("device", "ask", m.id, "--wait", "10ms"); !strings.Contains(out, "expected at") {
		t.Errorf("device ask shows\n%s", out)
	}
	if out := call("devices", "--state", "removed", "--sort", "contact", "--csv"); !strings.Contains(out, m.id+",") {
		t.Errorf("devices --csv shows\n%s", out)
	}
	fails("no order", "devices", "--sort", "beauty")
	fails("no device", "device", "admit", "nothing")
	call("version")
	c.stop(t)
	fails("Is the server running?", "devices")
	fails("--dir", "devices", "--admin-cert", filepath.Join(dir, "none.pem"))
}

// TestRootList signs the root's list with a key that was taken off the machine,
// under a server that is running.
func TestRootList(t *testing.T) {
	dir := found(t)
	safe := filepath.Join(t.TempDir(), "root.key")
	if err := os.Rename(filepath.Join(dir, "ca/root.key"), safe); err != nil {
		t.Fatal(err)
	}
	c := serve(t, dir)
	before := c.rootList(t)
	if _, err := cli(t, "root-list", "--dir", dir); err == nil {
		t.Error("the list is signed without a key")
	}
	if _, err := cli(t, "root-list", "--dir", dir, "--root-key", filepath.Join(dir, "ca/issuing.key")); err == nil {
		t.Error("the list is signed with another key")
	}
	mustCLI(t, "root-list", "--dir", dir, "--root-key", safe)
	after := c.rootList(t)
	if after.Number.Cmp(before.Number) <= 0 || len(after.RevokedCertificateEntries) != 0 {
		t.Errorf("number %v after %v, %d entries", after.Number, before.Number, len(after.RevokedCertificateEntries))
	}
	mustCLI(t, "root-list", "--dir", dir, "--root-key", safe, "--revoke-ca", filepath.Join(dir, "ca/issuing.crt"))
	if entries := c.rootList(t).RevokedCertificateEntries; len(entries) != 1 || entries[0].ReasonCode != 2 {
		t.Errorf("entries %v, want the issuing CA", entries)
	}
	// A file that is no list of this root is not handed out.
	if err := os.WriteFile(filepath.Join(dir, "ca/root.crl"), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if entries := c.rootList(t).RevokedCertificateEntries; len(entries) != 1 {
		t.Errorf("entries %v after the file was spoilt", entries)
	}
	c.stop(t)
}

func (c *child) rootList(t *testing.T) *x509.RevocationList {
	t.Helper()
	resp, err := http.Get("http://" + c.web + "/root.crl")
	if err != nil {
		t.Fatal(err)
	}
	der, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		t.Fatal(err)
	}
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// goldenEntries are what the written forms of the ledger are shown with.
func goldenEntries() []*controlv1.LedgerEntry {
	at := func(day int) *timestamppb.Timestamp {
		return timestamppb.New(time.Date(2026, 11, day, 10, 0, 0, 0, time.UTC))
	}
	return []*controlv1.LedgerEntry{
		{
			Serial: "4199aa", Name: "王小明", Mailbox: "wang@example.com", Department: "销售, \"DE\"", NotBefore: at(1), NotAfter: at(30),
			Ca: "Example GmbH S/MIME Issuing CA", Type: "employee-dual", DeviceId: "d1", Hostname: "=cmd()", User: "uid:1000",
			Store: "nss:default", Protection: "software", EnrollmentId: "smime-1", Reference: "4199aa", Status: "valid",
			Proof: &controlv1.ProofReport{At: at(2), Ok: true, Signs: true}, FingerprintSha256: "ab",
		},
		{
			Serial: "4199bb", Name: "Alice Example", Mailbox: "alice@example.com", NotBefore: at(1), NotAfter: at(30), Type: "employee-sign",
			Status: "revoked", RevokedAt: at(3), RevocationReason: "keyCompromise", DeviceId: "d1",
		},
	}
}

func TestLedgerForms(t *testing.T) {
	var csvOut, tableOut, jsonOut bytes.Buffer
	if err := errors.Join(ledgerCSV(&csvOut, goldenEntries()), table(&tableOut, ledgerRows(goldenEntries())), printJSON(&jsonOut, goldenEntries())); err != nil {
		t.Fatal(err)
	}
	// protojson varies its white space on purpose.
	var compact bytes.Buffer
	if err := json.Compact(&compact, jsonOut.Bytes()); err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string][]byte{"ledger.csv": csvOut.Bytes(), "ledger.txt": tableOut.Bytes(), "ledger.json": compact.Bytes()} {
		path := filepath.Join("testdata", name)
		if os.Getenv("UPDATE_GOLDEN") != "" {
			if err := os.WriteFile(path, got, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is\n%s\nwant\n%s", name, got, want)
		}
	}
}

func enrollmentID(n int) string { return fmt.Sprintf("smime-0190a5c0-0000-7000-8000-%012d", n) }

// TestBadCommandLines: one sentence says what is wrong, the next what to do, and
// nothing is done.
func TestBadCommandLines(t *testing.T) {
	for line, want := range map[string]string{
		"frobnicate":                      `unknown command "frobnicate" for "server-stub"` + "\nSee \"server-stub --help\".",
		"token frobnicate":                `unknown command "frobnicate" for "server-stub token"` + "\nSee \"server-stub token --help\".",
		"serve --frobnicate":              "unknown flag: --frobnicate\nSee \"server-stub serve --help\".",
		"init extra":                      `unknown command "extra" for "server-stub init"` + "\nSee \"server-stub init --help\".",
		"token create --uses x":           `invalid argument "x" for "--uses" flag` + "\nSee \"server-stub token create --help\".",
		"revoke":                          "accepts 1 argument(s), received 0\nSee \"server-stub revoke --help\".",
		"init":                            `required flag(s) "country", "organization", "organization-identifier" not set` + "\nSee \"server-stub init --help\".",
		"ledger --expiring 60x --dir DIR": "the time \"60x\" is none\nWrite a time such as 60d.",
		"serve --dir DIR/absent": "no server is founded in DIR/absent yet\nMake one there: server-stub init --dir DIR/absent --organization \"Example GmbH\" --country DE " +
			"--organization-identifier NTRDE-DER3306.HRB12345 --host pki.example.com",
	} {
		dir := t.TempDir()
		args := strings.Fields(strings.ReplaceAll(line, "DIR", dir))
		err := run(t.Context(), args, env{out: io.Discard, err: io.Discard, now: time.Now})
		if want = strings.ReplaceAll(want, "DIR", dir); err == nil || err.Error() != want {
			t.Errorf("%s: %v\nwant %s", line, err, want)
		}
	}
}

package stub_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/site"
	"smime-agent/server-stub/stub"
)

// TestCoverage has a person in each state, in two departments.
func TestCoverage(t *testing.T) {
	people := heading + "alice,alice@example.com,Alice,Example,,Sales\nCORP\\bob,bob@example.com,Bob,Example,,Sales\ncarl,carl@example.com,Carl,Example,,Sales\n" +
		"dora,dora@example.com,Dora,Example,,IT\nerik,erik@example.com,Erik,Example,,IT\nfay,alice@example.com,Fay,Example,,IT\n"
	c := &clock{}
	s := start(t, stub.Options{Now: c.now, PolicyYAML: policyOf("auto", "new-key"), PeopleCSV: people})
	admittedDevice(t, s) // says nothing any more
	c.advance(8 * 24 * time.Hour)
	users := []*controlv1.UserPresence{alice(), {User: "uid:1001", Account: `CORP\Bob`}, {User: "uid:1002", Account: "carl"}, {User: "uid:1003", Account: "dora"}}
	d := admittedDevice(t, s, users...)
	d.enroll(t, submissionFor(0, "uid:1000", "alice@example.com", csr(t, p256(t))))
	d.enroll(t, submissionFor(1, "uid:1001", "bob@example.com", csr(t, p256(t))))
	credential := func(n int, user, mailbox, state string) *controlv1.CredentialReport {
		return &controlv1.CredentialReport{EnrollmentId: enrollmentID(n), User: user, Mailbox: mailbox, Profile: "employee-dual", State: state}
	}
	report := &controlv1.SyncRequest{Users: users, Credentials: []*controlv1.CredentialReport{
		credential(0, "uid:1000", "alice@example.com", "active"), credential(1, "uid:1001", "bob@example.com", "active"),
		credential(2, "uid:1002", "carl@example.com", "wanted"), credential(3, "uid:1003", "dora@example.com", "wanted"),
	}}
	report.Credentials[0].Proof = &controlv1.ProofReport{At: timestamppb.New(c.now()), Ok: true}
	report.Credentials[1].Proof = &controlv1.ProofReport{At: timestamppb.New(c.now()), Failure: "no"}
	report.Credentials[2].Problem = &controlv1.ConditionReport{Code: "store-locked", Severity: "warning"}
	report.Credentials[3].Consent = "declined"
	if _, err := d.Sync(t.Context(), report); err != nil {
		t.Fatal(err)
	}
	got, err := s.Admin.GetCoverage(t.Context(), &controlv1.GetCoverageRequest{All: true})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][2]string{
		"alice": {"proved", ""}, `CORP\bob`: {"unproved", "proof-failed"}, "carl": {"waiting", "store-locked"},
		"dora": {"refused", "declined"}, "erik": {"missing", "no-device"}, "fay": {"missing", "no-device"},
	}
	for _, w := range got.GetWishes() {
		if state := [2]string{w.GetState(), w.GetCause()}; state != want[w.GetAccount()] {
			t.Errorf("%s is %v, want %v", w.GetAccount(), state, want[w.GetAccount()])
		}
	}
	sales, total := got.GetDepartments()[1], got.GetTotal()
	if len(got.GetWishes()) != 6 || sales.GetDepartment() != "Sales" || sales.GetProved() != 1 || sales.GetUnproved() != 1 || sales.GetWaiting() != 1 ||
		total.GetWanted() != 6 || total.GetMissing() != 2 || total.GetRefused() != 1 || total.GetEnding() != 0 {
		t.Errorf("coverage %v", got)
	}
	if got.GetDevices() != 2 || got.GetSilentCount() != 1 || len(got.GetSilent()) != 1 {
		t.Errorf("%d of %d machines are silent, want 1 of 2", got.GetSilentCount(), got.GetDevices())
	}
	c.advance(330 * 24 * time.Hour)
	soon, err := s.Server.Coverage(&controlv1.GetCoverageRequest{})
	if err != nil || soon.GetTotal().GetEnding() != 2 || soon.GetEndingByWeek()[4] != 2 || len(soon.GetWishes()) != 5 {
		t.Errorf("35 days before the end: %v, %v", soon, err)
	}
}

// TestAdminPage asks for the page as nobody, as a device and as an administrator.
func TestAdminPage(t *testing.T) {
	s := start(t, stub.Options{AdminWeb: "0.0.0.0:0"})
	key := p256(t)
	joined, err := joinWith(t.Context(), s, &controlv1.JoinRequest{Token: token(t, s, &controlv1.CreateTokenRequest{}), Csr: csr(t, key)})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(s.Dir, site.AdminIdentity)
	admin, err := tls.LoadX509KeyPair(path, path)
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := strings.Cut(strings.TrimPrefix(strings.Replace(s.AdminAddr, "[::]", "0.0.0.0", 1), "https://"), ":")
	for name, row := range map[string]struct {
		identity []tls.Certificate
		want     int
	}{
		"nobody":           {nil, http.StatusForbidden},
		"a device":         {[]tls.Certificate{{Certificate: joined.GetChain(), PrivateKey: key}}, http.StatusForbidden},
		"an administrator": {[]tls.Certificate{admin}, http.StatusOK},
	} {
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.Transport.Roots(), Certificates: row.identity}}}
		resp, err := client.Get("https://127.0.0.1:" + port)
		if err != nil {
			t.Fatal(name, err)
		}
		body, err := io.ReadAll(resp.Body)
		if err := errors.Join(err, resp.Body.Close()); err != nil || resp.StatusCode != row.want {
			t.Errorf("%s: %s, %v", name, resp.Status, err)
		}
		if has := strings.Contains(string(body), "Coverage"); has != (row.want == http.StatusOK) {
			t.Errorf("%s reads %.100s", name, body)
		}
		client.CloseIdleConnections()
	}
	local := start(t, stub.Options{AdminWeb: "127.0.0.1:0"})
	if !strings.Contains(string(fetch(t, local.AdminAddr)), "Coverage") {
		t.Error("no page on this machine")
	}
}

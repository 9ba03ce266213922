package stub_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/stub"
)

// admittedDevice joins a device that reports the users.
func admittedDevice(t testing.TB, s *stub.Server, users ...*controlv1.UserPresence) *device {
	t.Helper()
	d := join(t, s, token(t, s, &controlv1.CreateTokenRequest{}))
	d.syncAs(t, users...)
	return d
}

func (d *device) enroll(t testing.TB, req *controlv1.SubmitRequest) string {
	t.Helper()
	got, err := d.Submit(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	issued(t, got.GetOutcome())
	return got.GetReference()
}

// TestUnknownWords: a slip in a filter is no empty list.
func TestUnknownWords(t *testing.T) {
	s := start(t, stub.Options{})
	_, err := s.Admin.ListDevices(t.Context(), &controlv1.ListDevicesRequest{State: "admited"})
	if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "admitted, pending, removed") {
		t.Errorf("an unknown state gives %v", err)
	}
	stream, err := s.Admin.ListLedger(t.Context(), &controlv1.ListLedgerRequest{Statuses: []string{"valid", "expird"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "valid, expired, revoked, replaced") {
		t.Errorf("an unknown status gives %v", err)
	}
}

func TestDeviceFilters(t *testing.T) {
	c := &clock{}
	s := start(t, stub.Options{Now: c.now})
	var ids []string
	for i, report := range []*controlv1.SyncRequest{
		{Facts: &controlv1.DeviceFacts{Hostname: "Alpha", Os: "linux", AgentVersion: "1.0"}, Users: []*controlv1.UserPresence{alice()}},
		{
			Facts:       &controlv1.DeviceFacts{Hostname: "beta", Os: "windows", AgentVersion: "1.1"},
			Conditions:  []*controlv1.ConditionReport{{Code: "store-locked", Severity: "warning"}, {Code: "idle", Severity: "info"}},
			Credentials: []*controlv1.CredentialReport{{EnrollmentId: "e", Mailbox: "wang@example.com", Proof: &controlv1.ProofReport{Ok: true}}},
		},
		{Facts: &controlv1.DeviceFacts{Hostname: "gamma"}, Conditions: []*controlv1.ConditionReport{{Code: "idle", Severity: "info"}}},
	} {
		d := admittedDevice(t, s)
		if _, err := d.Sync(t.Context(), report); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, d.id)
		if i == 0 {
			c.advance(72 * time.Hour)
		}
	}
	if _, err := s.Admin.DecideDevice(t.Context(), &controlv1.DecideDeviceRequest{Id: ids[2]}); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		req  *controlv1.ListDevicesRequest
		want string
	}{
		{&controlv1.ListDevicesRequest{}, "Alpha beta gamma"},
		{&controlv1.ListDevicesRequest{PageSize: 1}, "Alpha"},
		{&controlv1.ListDevicesRequest{Matches: "ALPH"}, "Alpha"},
		{&controlv1.ListDevicesRequest{Matches: "alice"}, "Alpha"},
		{&controlv1.ListDevicesRequest{Matches: "wang@"}, "beta"},
		{&controlv1.ListDevicesRequest{Matches: "nobody"}, ""},
		{&controlv1.ListDevicesRequest{Condition: "any"}, "beta"},
		{&controlv1.ListDevicesRequest{Condition: "idle"}, "beta gamma"},
		{&controlv1.ListDevicesRequest{State: "removed"}, "gamma"},
		{&controlv1.ListDevicesRequest{State: "admitted", Version: "1."}, "Alpha beta"},
		{&controlv1.ListDevicesRequest{Version: "windows"}, "beta"},
		{&controlv1.ListDevicesRequest{SilentFor: durationpb.New(48 * time.Hour)}, "Alpha"},
	} {
		resp, err := s.Admin.ListDevices(t.Context(), row.req)
		if err != nil {
			t.Fatal(err)
		}
		var hosts []string
		for _, d := range resp.GetDevices() {
			hosts = append(hosts, d.GetFacts().GetHostname())
		}
		if got := strings.Join(hosts, " "); got != row.want {
			t.Errorf("%v lists %q, want %q", row.req, got, row.want)
		}
	}
}

// TestAskDevice asks a device that holds a call, and one that does not.
func TestAskDevice(t *testing.T) {
	s := start(t, stub.Options{})
	d := admittedDevice(t, s, alice())
	revision := d.syncAs(t, alice()).GetPolicyRevision()
	quiet, err := s.Admin.AskDevice(t.Context(), &controlv1.AskDeviceRequest{DeviceId: d.id, Wait: durationpb.New(50 * time.Millisecond)})
	if err != nil || quiet.GetReported() || quiet.GetExpected() == nil || quiet.GetDevice().GetDevice().GetId() != d.id {
		t.Fatalf("asked a device that holds no call: %v, %v", quiet, err)
	}
	d.syncAs(t, alice()) // fulfills that wish: the call below is held for the next
	done := make(chan error, 1)
	go func() {
		resp, err := d.Await(t.Context(), &controlv1.AwaitRequest{PolicyRevision: revision})
		if err == nil && !resp.GetSync() {
			err = fmt.Errorf("the held call ends with %v", resp)
		}
		if err == nil {
			_, err = d.Sync(t.Context(), &controlv1.SyncRequest{
				Users: []*controlv1.UserPresence{alice()}, Facts: &controlv1.DeviceFacts{Hostname: "fresh"}, PolicyRevision: revision,
			})
		}
		done <- err
	}()
	resp, err := s.Admin.AskDevice(t.Context(), &controlv1.AskDeviceRequest{DeviceId: d.id, Wait: durationpb.New(10 * time.Second)})
	if err != nil || !resp.GetReported() || resp.GetDevice().GetDevice().GetFacts().GetHostname() != "fresh" {
		t.Errorf("asked a device that holds a call: %v, %v", resp, err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	// The wish is fulfilled: the next held call is not cut short for it.
	again, err := d.Await(t.Context(), &controlv1.AwaitRequest{PolicyRevision: revision, MaxWait: durationpb.New(50 * time.Millisecond)})
	if err != nil || again.GetSync() {
		t.Errorf("await afterwards gives %v, %v", again, err)
	}
	if _, err := s.Admin.AskDevice(t.Context(), &controlv1.AskDeviceRequest{DeviceId: "nobody"}); status.Code(err) != codes.NotFound {
		t.Errorf("asking nobody gives %v", err)
	}
}

// TestRemoveAndAdmitAgain removes a device, first alone, then with its certificates.
func TestRemoveAndAdmitAgain(t *testing.T) {
	s := start(t, stub.Options{})
	d := admittedDevice(t, s, alice())
	d.enroll(t, submission(enrollmentID(1), csr(t, p256(t))))
	decide := func(req *controlv1.DecideDeviceRequest) *controlv1.DecideDeviceResponse {
		t.Helper()
		req.Id = d.id
		resp, err := s.Admin.DecideDevice(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	if resp := decide(&controlv1.DecideDeviceRequest{}); resp.GetRevoked() || len(resp.GetCertificates()) != 1 {
		t.Errorf("the removal says %v, want one certificate that stays", resp)
	}
	_, err := d.Sync(t.Context(), &controlv1.SyncRequest{})
	wantReason(t, err, "DEVICE_REFUSED")
	decide(&controlv1.DecideDeviceRequest{Admit: true})
	d.syncAs(t, alice())
	d.enroll(t, submission(enrollmentID(2), csr(t, p256(t))))
	if resp := decide(&controlv1.DecideDeviceRequest{RevokeReason: "keyCompromise"}); !resp.GetRevoked() || len(resp.GetCertificates()) != 2 {
		t.Errorf("the removal says %v, want two revoked", resp)
	}
	for _, e := range ledger(t, s) {
		if e.GetStatus() != "revoked" || e.GetRevocationReason() != "keyCompromise" {
			t.Errorf("ledger entry %v, want revoked", e)
		}
	}
	for _, bad := range []*controlv1.DecideDeviceRequest{{Id: d.id, RevokeReason: "because"}, {Id: d.id, Admit: true, RevokeReason: "superseded"}} {
		if _, err := s.Admin.DecideDevice(t.Context(), bad); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%v gives %v", bad, err)
		}
	}
}

func apply(t testing.TB, s *stub.Server, rules, people string, dryRun bool) *controlv1.ApplyPolicyResponse {
	t.Helper()
	resp, err := s.Admin.ApplyPolicy(t.Context(), &controlv1.ApplyPolicyRequest{PolicyYaml: []byte(rules), PeopleCsv: []byte(people), DryRun: dryRun})
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

const heading = "account,mailbox,given_name,surname,display_name,department\n"

// TestLeavers takes one person out of the people file and gives another's
// mailbox to somebody else.
func TestLeavers(t *testing.T) {
	everybody := heading + "alice,alice@example.com,Alice,Example,,Sales\nbob,bob@example.com,Bob,Example,,Sales\ncarl,carl@example.com,Carl,Example,,Sales\n"
	s := start(t, stub.Options{PolicyYAML: policyOf("auto", "new-key"), PeopleCSV: everybody})
	bob := &controlv1.UserPresence{User: "uid:1001", Account: "bob"}
	carl := &controlv1.UserPresence{User: "uid:1002", Account: "carl"}
	d := admittedDevice(t, s, alice(), bob, carl)
	for n, row := range []struct{ user, mailbox string }{{"uid:1000", "alice@example.com"}, {"uid:1001", "bob@example.com"}, {"uid:1002", "carl@example.com"}} {
		req := submission(enrollmentID(n), csr(t, p256(t)))
		req.User, req.Mailboxes = row.user, []string{row.mailbox}
		d.enroll(t, req)
	}
	list := func(reason string, count uint32) (*controlv1.ListLeaversResponse, error) {
		return s.Admin.ListLeavers(t.Context(), &controlv1.ListLeaversRequest{RevokeReason: reason, Expected: count})
	}
	if resp, err := list("", 0); err != nil || len(resp.GetLeavers()) != 0 {
		t.Fatalf("nobody left: %v, %v", resp, err)
	}
	apply(t, s, policyOf("auto", "new-key"), heading+"alice,alice@example.com,Alice,Example,,Sales\ndora,bob@example.com,Dora,Example,,Sales\n", false)
	resp, err := list("", 0)
	if err != nil || len(resp.GetLeavers()) != 2 {
		t.Fatalf("leavers %v, %v, want 2", resp, err)
	}
	for i, want := range []struct{ cause, account string }{{"other-person", "bob"}, {"mailbox-gone", "carl"}} {
		if l := resp.GetLeavers()[i]; l.GetCause() != want.cause || l.GetAccount() != want.account {
			t.Errorf("leaver %v, want %v", l, want)
		}
	}
	if _, err := list("affiliationChanged", 1); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("a wrong count gives %v", err)
	}
	if _, err := list("because", 2); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a wrong reason gives %v", err)
	}
	if resp, err := list("affiliationChanged", 2); err != nil || !resp.GetRevoked() {
		t.Fatalf("revoke: %v, %v", resp, err)
	}
	for i, want := range []string{"valid", "revoked", "revoked"} {
		if e := ledger(t, s)[i]; e.GetStatus() != want {
			t.Errorf("%s is %s, want %s", e.GetMailbox(), e.GetStatus(), want)
		}
	}
	if orders := d.syncAs(t, alice(), bob, carl).GetOrders(); len(orders) != 2 {
		t.Errorf("orders %v, want two revocations", orders)
	}
}

// TestProveOrderEnds shows that only newer proofs end it, whatever the device's clock says.
func TestProveOrderEnds(t *testing.T) {
	s := start(t, stub.Options{})
	d := admittedDevice(t, s, alice())
	at := time.Now().Add(-1000 * time.Hour) // of a device whose clock is far behind
	report := func(proofs ...time.Time) *controlv1.SyncRequest {
		req := &controlv1.SyncRequest{Users: []*controlv1.UserPresence{alice()}}
		for i, p := range proofs {
			c := &controlv1.CredentialReport{EnrollmentId: enrollmentID(i), State: "active"}
			if !p.IsZero() {
				c.Proof = &controlv1.ProofReport{At: timestamppb.New(p), Ok: true}
			}
			req.Credentials = append(req.Credentials, c)
		}
		return req
	}
	orders := func(req *controlv1.SyncRequest) int {
		t.Helper()
		resp, err := d.Sync(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		return len(resp.GetOrders())
	}
	orders(report(at, at))
	_, err := s.Admin.Instruct(t.Context(), &controlv1.InstructRequest{
		DeviceId: d.id, Order: &controlv1.Order{What: &controlv1.Order_Prove{Prove: &controlv1.ProveOrder{}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, row := range []struct {
		req  *controlv1.SyncRequest
		want int
	}{
		{report(at, at), 1},
		{report(at.Add(time.Minute), at), 1},
		{report(at.Add(time.Minute), at.Add(time.Minute), time.Time{}), 1}, // a third one, not proved yet
		{report(at.Add(time.Minute), at.Add(time.Minute), at), 0},
	} {
		if got := orders(row.req); got != row.want {
			t.Errorf("report %d: %d orders, want %d", i, got, row.want)
		}
	}
}

func TestSuggestedRenewal(t *testing.T) {
	rules := strings.Replace(policyOf("auto", "new-key"), "rotation: new-key", "before: 60d, spread: 100d, rotation: new-key", 1)
	s := start(t, stub.Options{PolicyYAML: rules})
	d := admittedDevice(t, s, alice())
	seen := map[time.Duration]bool{}
	for n := range 8 {
		got, err := d.Submit(t.Context(), submission(enrollmentID(n), csr(t, p256(t))))
		if err != nil {
			t.Fatal(err)
		}
		at, end := got.GetOutcome().GetIssued().GetSuggestedRenewal(), issued(t, got.GetOutcome()).NotAfter
		early := end.Sub(at.AsTime())
		if at == nil || early < 74*24*time.Hour || early > 174*24*time.Hour {
			t.Fatalf("suggested %v before the end", early)
		}
		again, err := d.Collect(t.Context(), &controlv1.CollectRequest{Reference: got.GetReference()})
		if err != nil || !again.GetIssued().GetSuggestedRenewal().AsTime().Equal(at.AsTime()) {
			t.Errorf("the second answer suggests %v, %v, the first %v", again.GetIssued().GetSuggestedRenewal(), err, at)
		}
		seen[early.Truncate(24*time.Hour)] = true
	}
	if len(seen) < 5 {
		t.Errorf("8 certificates are renewed on only %d days", len(seen))
	}
}

func TestPolicyDiff(t *testing.T) {
	before := heading + "alice,alice@example.com,Alice,Example,,Sales\nbob,bob@example.com,Bob,Example,,Sales\n"
	s := start(t, stub.Options{PolicyYAML: policyOf("auto", "new-key"), PeopleCSV: before})
	after := heading + "alice,alice@example.com,Alice,Muster,,Sales\ndora,dora@example.com,Dora,Example,,IT\n"
	rules := policyOf("administrator", "new-key")
	resp := apply(t, s, rules, after, true)
	changes := strings.Join(resp.GetChanges(), "\n")
	for _, want := range []string{
		"person added: dora", "person removed: bob", "person changed: alice alice@example.com: surname Example -> Muster",
		"rule changed: *: approval auto -> administrator",
	} {
		if !strings.Contains(changes, want) {
			t.Errorf("changes lack %q:\n%s", want, changes)
		}
	}
	kinds := map[string]string{}
	for _, e := range resp.GetEffects() {
		kinds[e.GetAccount()] = e.GetKind()
	}
	if fmt.Sprint(kinds) != "map[alice:changes bob:loses dora:gains]" {
		t.Errorf("effects %v", kinds)
	}
	if again := apply(t, s, rules, after, true); len(again.GetChanges()) == 0 {
		t.Error("a dry run changed the policy")
	}
}

// TestLargePeopleFile uploads more people than one message could hold.
func TestLargePeopleFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "server")
	s := start(t, stub.Options{Dir: dir})
	var people strings.Builder
	people.WriteString(heading)
	for n := range 20_000 {
		fmt.Fprintf(&people, "user%d,user%d@example.com,User,Number %d,,Sales\n", n, n, n)
	}
	stream, err := s.Admin.UploadPolicy(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	text := people.String()
	rules := []byte(policyOf("auto", "new-key"))
	for len(text) > 0 {
		n := min(len(text), 100<<10)
		if err := stream.Send(&controlv1.UploadPolicyRequest{Part: &controlv1.ApplyPolicyRequest{PolicyYaml: rules, PeopleCsv: []byte(text[:n])}}); err != nil {
			t.Fatal(err)
		}
		text, rules = text[n:], nil
	}
	resp, err := stream.CloseAndRecv()
	if err != nil || resp.GetResult().GetPeople() != 20_000 || !resp.GetResult().GetEffectsCut() {
		t.Fatalf("uploaded: %d people, %v", resp.GetResult().GetPeople(), err)
	}
}

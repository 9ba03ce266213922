package stub_test

import (
	"crypto/x509"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/ca"
	"smime-agent/server-stub/server"
	"smime-agent/server-stub/stub"
)

// clock is a time that tests move.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

func (c *clock) advance(d time.Duration) { c.ahead.Add(int64(d)) }

// losing loses the first answer of each method that it names.
func losing(methods ...string) func(string) error {
	var mu sync.Mutex
	left := map[string]bool{}
	for _, m := range methods {
		left[m] = true
	}
	return func(method string) error {
		mu.Lock()
		defer mu.Unlock()
		if !left[method] {
			return nil
		}
		delete(left, method)
		return errors.New("the answer was lost")
	}
}

func TestLostAnswers(t *testing.T) {
	s := start(t, stub.Options{AfterFault: losing("Join", "Submit", "RenewIdentity", "Collect", "Sync")})
	key := p256(t)
	req := &controlv1.JoinRequest{Token: token(t, s, &controlv1.CreateTokenRequest{MaxUses: 1}), Csr: csr(t, key)}
	if _, err := joinWith(t.Context(), s, req); status.Code(err) != codes.Unavailable {
		t.Fatalf("the answer was not lost: %v", err)
	}
	resp, err := joinWith(t.Context(), s, req)
	if err != nil {
		t.Fatalf("join again: %v", err)
	}
	third, err := joinWith(t.Context(), s, req)
	if err != nil || third.GetDeviceId() != resp.GetDeviceId() {
		t.Fatalf("join a third time gives %v, %v, want the same device", third, err)
	}
	devices, err := s.Admin.ListDevices(t.Context(), &controlv1.ListDevicesRequest{})
	if err != nil || len(devices.GetDevices()) != 1 {
		t.Fatalf("devices %v, %v, want one", devices, err)
	}
	d := connect(t, s, resp.GetDeviceId(), key, resp.GetChain())
	_, _ = d.Sync(t.Context(), &controlv1.SyncRequest{Users: []*controlv1.UserPresence{alice()}})
	d.syncAs(t, alice())
	sent := submission(enrollmentID(1), csr(t, p256(t)))
	if _, err := d.Submit(t.Context(), sent); status.Code(err) != codes.Unavailable {
		t.Fatalf("the answer was not lost: %v", err)
	}
	if got, err := d.Submit(t.Context(), sent); err != nil || issued(t, got.GetOutcome()) == nil {
		t.Fatalf("submit again: %v", err)
	}
	if entries := ledger(t, s); len(entries) != 1 {
		t.Errorf("the ledger has %d certificates, want 1", len(entries))
	}
}

func ledger(t testing.TB, s *stub.Server) []*controlv1.LedgerEntry {
	t.Helper()
	stream, err := s.Admin.ListLedger(t.Context(), &controlv1.ListLedgerRequest{WithCertificate: true})
	if err != nil {
		t.Fatal(err)
	}
	var out []*controlv1.LedgerEntry
	for {
		resp, err := stream.Recv()
		if err != nil {
			return out
		}
		out = append(out, resp.GetEntries()...)
	}
}

// policyOf is the standard policy with a line changed.
func policyOf(approval, rotation string) string {
	return `organization: {name: Example GmbH, country: DE, identifier: NTRDE-DER3306.HRB12345}
approval: ` + approval + `
rules:
  - departments: ["*"]
    profiles: [employee-dual]
    renewal: {rotation: ` + rotation + `}
`
}

// TestSameKeyRenewal: with "same-key", and where the rule leaves it to the machine.
func TestSameKeyRenewal(t *testing.T) {
	for _, rotation := range []string{"same-key", `""`} {
		t.Run(rotation, func(t *testing.T) { testSameKeyRenewal(t, rotation) })
	}
}

func testSameKeyRenewal(t *testing.T, rotation string) {
	s := start(t, stub.Options{PolicyYAML: policyOf("auto", rotation)})
	d := join(t, s, token(t, s, &controlv1.CreateTokenRequest{}))
	d.syncAs(t, alice())
	key := p256(t)
	if _, err := d.Submit(t.Context(), submission(enrollmentID(1), csr(t, key))); err != nil {
		t.Fatal(err)
	}
	renewal := submission(enrollmentID(2), csr(t, key))
	_, err := d.Submit(t.Context(), renewal)
	wantReason(t, err, "KEY_REUSED") // it does not say what it replaces
	renewal.Replaces = enrollmentID(1)
	if _, err := d.Submit(t.Context(), renewal); err != nil {
		t.Fatalf("renew with the same key: %v", err)
	}
	if entries := ledger(t, s); len(entries) != 2 || entries[0].GetStatus() != "replaced" || entries[1].GetStatus() != "valid" {
		t.Errorf("ledger %v, want one replaced and one valid", entries)
	}
}

// TestNewKeyRenewal: a rule that wants a new key takes no old one.
func TestNewKeyRenewal(t *testing.T) {
	s := start(t, stub.Options{PolicyYAML: policyOf("auto", "new-key")})
	d := join(t, s, token(t, s, &controlv1.CreateTokenRequest{}))
	d.syncAs(t, alice())
	key := p256(t)
	if _, err := d.Submit(t.Context(), submission(enrollmentID(1), csr(t, key))); err != nil {
		t.Fatal(err)
	}
	renewal := submission(enrollmentID(2), csr(t, key))
	renewal.Replaces = enrollmentID(1)
	_, err := d.Submit(t.Context(), renewal)
	wantReason(t, err, "KEY_REUSED")
}

func TestApproval(t *testing.T) {
	s := start(t, stub.Options{PolicyYAML: policyOf("administrator", "new-key")})
	d := join(t, s, token(t, s, &controlv1.CreateTokenRequest{}))
	revision := d.syncAs(t, alice()).GetPolicyRevision()
	submit := func(n int) string {
		got, err := d.Submit(t.Context(), submission(enrollmentID(n), csr(t, p256(t))))
		if err != nil {
			t.Fatal(err)
		}
		if got.GetOutcome().GetPending().GetWaitsFor() != "administrator" {
			t.Fatalf("outcome %v, want pending", got.GetOutcome())
		}
		return got.GetReference()
	}
	good, bad := submit(1), submit(2)
	list, err := s.Admin.ListRequests(t.Context(), &controlv1.ListRequestsRequest{})
	if err != nil || len(list.GetRequests()) != 2 {
		t.Fatalf("requests %v, %v, want 2", list, err)
	}
	awaited := make(chan *controlv1.AwaitResponse, 1)
	go func() {
		resp, err := d.Await(t.Context(), &controlv1.AwaitRequest{PolicyRevision: revision, References: []string{good, bad}})
		if err != nil {
			t.Error(err)
		}
		awaited <- resp
	}()
	decide := func(ref string, approve bool, reason string) error {
		_, err := s.Admin.DecideRequest(t.Context(), &controlv1.DecideRequestRequest{Reference: ref, Approve: approve, Reason: reason})
		return err
	}
	if err := decide(good, true, ""); err != nil {
		t.Fatal(err)
	}
	if resp := <-awaited; len(resp.GetReady()) != 1 || resp.GetReady()[0] != good {
		t.Errorf("await gives %v, want %s", resp, good)
	}
	if ready := d.syncAs(t, alice()).GetReady(); len(ready) != 1 || ready[0] != good {
		t.Errorf("ready %v, want %s", ready, good)
	}
	collected, err := d.Collect(t.Context(), &controlv1.CollectRequest{Reference: good})
	if err != nil || issued(t, collected).EmailAddresses[0] != "alice@example.com" {
		t.Errorf("collect: %v, %v", collected, err)
	}
	if ready := d.syncAs(t, alice()).GetReady(); len(ready) != 0 {
		t.Errorf("ready %v after it was collected", ready)
	}
	refuseOne(t, d, bad, decide)
}

// refuseOne refuses the second request; a refusal needs its reason, and is final.
func refuseOne(t *testing.T, d *device, bad string, decide func(ref string, approve bool, reason string) error) {
	t.Helper()
	if decide(bad, false, "") == nil {
		t.Error("a refusal without a reason goes through")
	}
	if err := decide(bad, false, "You left the company."); err != nil {
		t.Fatal(err)
	}
	if decide(bad, true, "") == nil {
		t.Error("a refused request is approved")
	}
	collected, err := d.Collect(t.Context(), &controlv1.CollectRequest{Reference: bad})
	if err != nil || collected.GetRefused().GetText() != "You left the company." {
		t.Errorf("collect of a refused request: %v, %v", collected, err)
	}
}

func TestRevocationAndOrders(t *testing.T) {
	s := start(t, stub.Options{})
	d := join(t, s, token(t, s, &controlv1.CreateTokenRequest{}))
	revision := d.syncAs(t, alice()).GetPolicyRevision()
	got, err := d.Submit(t.Context(), submission(enrollmentID(1), csr(t, p256(t))))
	if err != nil {
		t.Fatal(err)
	}
	leaf := issued(t, got.GetOutcome())
	if onList(t, leaf) {
		t.Error("a good certificate is on the list")
	}
	if _, err := s.Admin.Revoke(t.Context(), &controlv1.RevokeRequest{Serial: leaf.SerialNumber.Text(16), Reason: "keyCompromise"}); err != nil {
		t.Fatal(err)
	}
	if !onList(t, leaf) {
		t.Error("the revoked certificate is not on the list")
	}
	await := func() *controlv1.AwaitResponse {
		resp, err := d.Await(t.Context(), &controlv1.AwaitRequest{PolicyRevision: revision, MaxWait: durationpb.New(100 * time.Millisecond)})
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	if !await().GetSync() {
		t.Error("await does not tell of the order")
	}
	orders := d.syncAs(t, alice()).GetOrders()
	if len(orders) != 1 || orders[0].GetRevoked().GetEnrollmentId() != enrollmentID(1) {
		t.Errorf("orders %v, want the revocation", orders)
	}
	if await().GetSync() {
		t.Error("await tells again of an order that was sent")
	}
	if _, err := s.Admin.Revoke(t.Context(), &controlv1.RevokeRequest{Serial: leaf.SerialNumber.Text(16), Reason: "certificateHold"}); err == nil {
		t.Error("certificateHold is taken, which Strict certificates must not have")
	}
	again := submission(enrollmentID(2), csr(t, p256(t)))
	again.Replaces = enrollmentID(1)
	if _, err := d.Submit(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	if orders := d.syncAs(t, alice()).GetOrders(); len(orders) != 0 {
		t.Errorf("orders %v after the replacement", orders)
	}
	if entries := ledger(t, s); entries[0].GetStatus() != "revoked" || entries[0].GetRevocationReason() != "keyCompromise" {
		t.Errorf("ledger entry %v, want revoked", entries[0])
	}
}

func TestPolicyReachesDevices(t *testing.T) {
	s := start(t, stub.Options{})
	d := join(t, s, token(t, s, &controlv1.CreateTokenRequest{}))
	revision := d.syncAs(t, alice(), &controlv1.UserPresence{User: "S-1", Account: `CORP\Bob`}).GetPolicyRevision()
	changed := make(chan *controlv1.AwaitResponse, 1)
	go func() {
		resp, err := d.Await(t.Context(), &controlv1.AwaitRequest{PolicyRevision: revision})
		if err != nil {
			t.Error(err)
		}
		changed <- resp
	}()
	people := "\ufeffaccount;mailbox;given_name;surname;display_name;department\nalice;alice@example.com;Alice;Example;;Sales\nbob;bob@example.com;Bob;Example;;Sales\n"
	resp, err := s.Admin.ApplyPolicy(t.Context(), &controlv1.ApplyPolicyRequest{
		PolicyYaml: []byte(policyOf("auto", "new-key")), PeopleCsv: []byte(people),
	})
	if err != nil || resp.GetPeople() != 2 {
		t.Fatal(resp, err)
	}
	if !(<-changed).GetSync() {
		t.Error("await does not tell of the new policy")
	}
	got := d.syncAs(t, alice(), &controlv1.UserPresence{User: "S-1", Account: `CORP\Bob`})
	if n := len(got.GetPolicy().GetAssignments()); n != 2 {
		t.Errorf("%d assignments, want 2", n)
	}
	bad, err := s.Admin.ApplyPolicy(t.Context(), &controlv1.ApplyPolicyRequest{PolicyYaml: []byte("rules: 5"), PeopleCsv: []byte(people)})
	if err == nil {
		t.Errorf("a bad policy is taken: %v", bad)
	}
	same, err := d.Sync(t.Context(), &controlv1.SyncRequest{
		Users:          []*controlv1.UserPresence{alice(), {User: "S-1", Account: `CORP\Bob`}},
		PolicyRevision: got.GetPolicyRevision(),
	})
	if err != nil || same.GetPolicyChanged() {
		t.Errorf("a bad policy changed something: %v, %v", same, err)
	}
}

func TestReportRebuildAndRestart(t *testing.T) {
	dir := t.TempDir() + "/server"
	s := start(t, stub.Options{Dir: dir})
	d := join(t, s, token(t, s, &controlv1.CreateTokenRequest{}))
	d.syncAs(t, alice())
	if _, err := d.Submit(t.Context(), submission(enrollmentID(1), csr(t, p256(t)))); err != nil {
		t.Fatal(err)
	}
	events := &controlv1.ReportRequest{}
	for n := range 200 {
		events.Events = append(events.Events, &controlv1.Event{Id: strconv.Itoa(1000 + n), Code: "certificate-issued"})
	}
	for range 2 {
		if resp, err := d.Report(t.Context(), events); err != nil || len(resp.GetRecorded()) != 200 {
			t.Fatal(resp, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = start(t, stub.Options{Dir: dir})
	shown, err := s.Admin.GetDevice(t.Context(), &controlv1.GetDeviceRequest{Id: d.id})
	if err != nil || len(shown.GetEvents()) != 200 || len(shown.GetUsers()) != 1 || shown.GetDevice().GetLastContact() == nil {
		t.Fatalf("after a restart: %v, %v", shown, err)
	}
	cert, err := x509.ParseCertificate(ledger(t, s)[0].GetCertificate())
	if err != nil {
		t.Fatal(err)
	}
	// The device's connection is gone with the old server; it dials the new one.
	d2 := reconnect(t, s, d, time.Now())
	resp, err := d2.Sync(t.Context(), &controlv1.SyncRequest{Users: []*controlv1.UserPresence{alice()}, Rebuild: true})
	if err != nil || len(resp.GetKnown()) != 1 {
		t.Fatalf("rebuild gives %v, %v", resp, err)
	}
	if known := resp.GetKnown()[0]; known.GetEnrollmentId() != enrollmentID(1) || string(known.GetChain()[0]) != string(cert.Raw) {
		t.Errorf("known %v, want the certificate of the ledger", known)
	}
}

// reconnect renews the device's certificate by the CA, since the test did not keep the chain.
func reconnect(t testing.TB, s *stub.Server, d *device, now time.Time) *device {
	t.Helper()
	cert, err := s.Transport.IssueIdentity(ca.DeviceRole, d.id, &d.key.PublicKey, now, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return connect(t, s, d.id, d.key, [][]byte{cert.Raw})
}

func TestNextSync(t *testing.T) {
	s := start(t, stub.Options{Settings: server.Settings{SyncInterval: time.Hour, PendingInterval: time.Minute}})
	text := token(t, s, &controlv1.CreateTokenRequest{MaxUses: 8})
	seen := map[time.Duration]bool{}
	for range 8 {
		d := join(t, s, text)
		next := d.syncAs(t, alice()).GetNextSync().AsDuration()
		if next < 30*time.Minute || next > 90*time.Minute {
			t.Errorf("idle: next sync in %v", next)
		}
		seen[next.Truncate(time.Second)] = true
		resp, err := d.Sync(t.Context(), &controlv1.SyncRequest{Credentials: []*controlv1.CredentialReport{{State: "submitted"}}})
		if err != nil || resp.GetNextSync().AsDuration() > 90*time.Second {
			t.Errorf("busy: next sync in %v, %v", resp.GetNextSync(), err)
		}
	}
	if len(seen) < 6 {
		t.Errorf("8 devices have only %d places in the interval", len(seen))
	}
}

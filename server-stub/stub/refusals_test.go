package stub_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"os"
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

func TestJoinRefusals(t *testing.T) {
	c := &clock{}
	s := start(t, stub.Options{Now: c.now})
	used := token(t, s, &controlv1.CreateTokenRequest{})
	join(t, s, used)
	revoked, err := s.Admin.CreateToken(t.Context(), &controlv1.CreateTokenRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Admin.RevokeToken(t.Context(), &controlv1.RevokeTokenRequest{Id: revoked.GetInfo().GetId()}); err != nil {
		t.Fatal(err)
	}
	expired := token(t, s, &controlv1.CreateTokenRequest{Life: durationpb.New(time.Minute)})
	c.advance(time.Hour)
	fresh := token(t, s, &controlv1.CreateTokenRequest{})
	wrong := csr(t, p256(t))
	wrong[len(wrong)-1] ^= 1
	large, err := rsaKeys(2048)
	if err != nil {
		t.Fatal(err)
	}
	good := csr(t, p256(t))
	for _, row := range []struct {
		name, token string
		csr         []byte
		reason      string
		code        codes.Code
	}{
		{"used up", used, good, "TOKEN_USED_UP", codes.Unauthenticated},
		{"revoked", revoked.GetToken(), good, "TOKEN_REVOKED", codes.Unauthenticated},
		{"expired", expired, good, "TOKEN_EXPIRED", codes.Unauthenticated},
		{"unknown", "join-NOTHING", good, "TOKEN_UNKNOWN", codes.Unauthenticated},
		{"empty", "", good, "TOKEN_UNKNOWN", codes.Unauthenticated},
		{"bad signature", fresh, wrong, "CSR_INVALID", codes.InvalidArgument},
		{"no CSR", fresh, nil, "CSR_INVALID", codes.InvalidArgument},
		{"RSA device", fresh, csr(t, large), "CSR_INVALID", codes.InvalidArgument},
	} {
		_, err := joinWith(t.Context(), s, &controlv1.JoinRequest{Token: row.token, Csr: row.csr})
		if reasonOf(err) != row.reason || status.Code(err) != row.code {
			t.Errorf("%s: %v %q, want %v %q", row.name, status.Code(err), reasonOf(err), row.code, row.reason)
		}
	}
	// None of these burned the good token.
	join(t, s, fresh)
}

func TestIdentityRefusals(t *testing.T) {
	c := &clock{}
	s := start(t, stub.Options{Now: c.now, Settings: server.Settings{IdentityLife: time.Hour, IdentityGrace: 2 * time.Hour}})
	d := join(t, s, token(t, s, &controlv1.CreateTokenRequest{}))
	d.syncAs(t, alice())
	sync := func(d *device) error {
		_, err := d.Sync(t.Context(), &controlv1.SyncRequest{})
		return err
	}
	conn, err := s.Dial(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	wantReason(t, sync(&device{ControlServiceClient: controlv1.NewControlServiceClient(conn)}), "IDENTITY_REQUIRED")

	foreign, err := ca.FoundTransport("Somebody else", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	key := p256(t)
	cert, err := foreign.IssueIdentity(ca.DeviceRole, d.id, &key.PublicKey, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	wantReason(t, sync(connect(t, s, d.id, key, [][]byte{cert.Raw})), "IDENTITY_REQUIRED")

	// A device is no administrator, an administrator no device.
	_, err = controlv1.NewAdminServiceClient(d.conn).ListTokens(t.Context(), &controlv1.ListTokensRequest{})
	wantReason(t, err, "IDENTITY_REQUIRED")
	stream, err := controlv1.NewAdminServiceClient(d.conn).ListLedger(t.Context(), &controlv1.ListLedgerRequest{})
	if err == nil {
		_, err = stream.Recv()
	}
	wantReason(t, err, "IDENTITY_REQUIRED")
	admin, err := tls.LoadX509KeyPair(s.Dir+"/admin/admin.pem", s.Dir+"/admin/admin.pem")
	if err != nil {
		t.Fatal(err)
	}
	wantReason(t, sync(connect(t, s, "", admin.PrivateKey.(*ecdsa.PrivateKey), admin.Certificate)), "IDENTITY_REQUIRED")

	// Ended within the grace: renewal and nothing else.
	c.advance(90 * time.Minute)
	wantReason(t, sync(d), "IDENTITY_EXPIRED")
	next := p256(t)
	renewed, err := d.RenewIdentity(t.Context(), &controlv1.RenewIdentityRequest{Csr: csr(t, next)})
	if err != nil {
		t.Fatalf("renew within the grace: %v", err)
	}
	d2 := connect(t, s, d.id, next, renewed.GetChain())
	if err := sync(d2); err != nil {
		t.Errorf("the renewed identity is refused: %v", err)
	}
	c.advance(4 * time.Hour)
	_, err = d2.RenewIdentity(t.Context(), &controlv1.RenewIdentityRequest{Csr: csr(t, p256(t))})
	wantReason(t, err, "IDENTITY_EXPIRED")
}

func TestDeviceApprovalAndRemoval(t *testing.T) {
	s := start(t, stub.Options{})
	d := join(t, s, token(t, s, &controlv1.CreateTokenRequest{NeedsApproval: true}))
	_, err := d.Sync(t.Context(), &controlv1.SyncRequest{})
	wantReason(t, err, "DEVICE_PENDING")
	decide := func(admit bool) {
		t.Helper()
		if _, err := s.Admin.DecideDevice(t.Context(), &controlv1.DecideDeviceRequest{Id: d.id, Admit: admit}); err != nil {
			t.Fatal(err)
		}
	}
	decide(true)
	d.syncAs(t, alice())
	decide(false)
	for name, call := range map[string]func() error{
		"Sync":   func() error { _, err := d.Sync(t.Context(), &controlv1.SyncRequest{}); return err },
		"Await":  func() error { _, err := d.Await(t.Context(), &controlv1.AwaitRequest{}); return err },
		"Report": func() error { _, err := d.Report(t.Context(), &controlv1.ReportRequest{}); return err },
		"Submit": func() error {
			_, err := d.Submit(t.Context(), submission(enrollmentID(1), csr(t, p256(t))))
			return err
		},
		"Collect": func() error { _, err := d.Collect(t.Context(), &controlv1.CollectRequest{}); return err },
		"RenewIdentity": func() error {
			_, err := d.RenewIdentity(t.Context(), &controlv1.RenewIdentityRequest{Csr: csr(t, p256(t))})
			return err
		},
	} {
		if err := call(); reasonOf(err) != "DEVICE_REFUSED" {
			t.Errorf("%s of a removed device: %v", name, err)
		}
	}
}

func TestSubmitRefusals(t *testing.T) {
	s := start(t, stub.Options{PolicyYAML: policyOf("auto", "new-key")})
	text := token(t, s, &controlv1.CreateTokenRequest{MaxUses: 2})
	d, other := join(t, s, text), join(t, s, text)
	d.syncAs(t, alice(), &controlv1.UserPresence{User: "uid:1001", Account: "mallory"})
	other.syncAs(t, alice())
	used := p256(t)
	first := submission(enrollmentID(1), csr(t, used))
	if _, err := d.Submit(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	odd, err := rsa.GenerateKey(rand.Reader, 2056)
	if err != nil {
		t.Fatal(err)
	}
	good := csr(t, p256(t))
	broken := csr(t, p256(t))
	broken[len(broken)-1] ^= 1
	change := func(f func(*controlv1.SubmitRequest)) *controlv1.SubmitRequest {
		r := submission(enrollmentID(2), good)
		f(r)
		return r
	}
	for _, row := range []struct {
		name   string
		req    *controlv1.SubmitRequest
		reason string
	}{
		{"another mailbox", change(func(r *controlv1.SubmitRequest) { r.Mailboxes = []string{"boss@example.com"} }), "NOT_ASSIGNED"},
		{"one mailbox more", change(func(r *controlv1.SubmitRequest) { r.Mailboxes = append(r.Mailboxes, "boss@example.com") }), "NOT_ASSIGNED"},
		{"another user", change(func(r *controlv1.SubmitRequest) { r.User = "uid:1001" }), "NOT_ASSIGNED"},
		{"a user who is not here", change(func(r *controlv1.SubmitRequest) { r.User = "uid:7" }), "NOT_ASSIGNED"},
		{"a profile of others", change(func(r *controlv1.SubmitRequest) { r.Profile = "department-dual" }), "NOT_ASSIGNED"},
		{"an unknown profile", change(func(r *controlv1.SubmitRequest) { r.Profile = "root" }), "PROFILE_UNKNOWN"},
		{"a broken CSR", change(func(r *controlv1.SubmitRequest) { r.Csr = broken }), "CSR_INVALID"},
		{"a large CSR", change(func(r *controlv1.SubmitRequest) { r.Csr = make([]byte, 17<<10) }), "CSR_INVALID"},
		{"P-224", change(func(r *controlv1.SubmitRequest) { r.Csr = csr(t, p224) }), "KEY_UNSUITABLE"},
		{"RSA-2056", change(func(r *controlv1.SubmitRequest) { r.Csr = csr(t, odd) }), "KEY_UNSUITABLE"},
		{"a used key", change(func(r *controlv1.SubmitRequest) { r.Csr = first.GetCsr() }), "KEY_REUSED"},
		{"a used key as renewal", change(func(r *controlv1.SubmitRequest) { r.Csr, r.Replaces = first.GetCsr(), enrollmentID(1) }), "KEY_REUSED"},
		{"another CSR", submission(enrollmentID(1), good), "CSR_CHANGED"},
		{"no enrollment", change(func(r *controlv1.SubmitRequest) { r.EnrollmentId = "" }), "MALFORMED"},
		{"no mailbox", change(func(r *controlv1.SubmitRequest) { r.Mailboxes = nil }), "MALFORMED"},
	} {
		_, err := d.Submit(t.Context(), row.req)
		if got := reasonOf(err); got != row.reason {
			t.Errorf("%s: reason %q, want %q (%v)", row.name, got, row.reason, err)
		}
	}
	foreignDevice(t, d, other, first)
	if n := len(ledger(t, s)); n != 1 {
		t.Errorf("the ledger has %d certificates, want 1", n)
	}
}

// foreignDevice shows that another device gets nothing by knowing IDs and references.
func foreignDevice(t *testing.T, d, other *device, first *controlv1.SubmitRequest) {
	t.Helper()
	got, err := d.Submit(t.Context(), first)
	if err != nil {
		t.Fatal(err)
	}
	_, err = other.Collect(t.Context(), &controlv1.CollectRequest{Reference: got.GetReference()})
	wantReason(t, err, "REFERENCE_UNKNOWN")
	_, err = other.Submit(t.Context(), first)
	wantReason(t, err, "KEY_REUSED")
}

// TestTokenRace has 64 machines race for one token. By default 200 rounds;
// STUB_RACES sets another number, 10000 for the full campaign.
func TestTokenRace(t *testing.T) {
	rounds := 200
	if text := os.Getenv("STUB_RACES"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		rounds = n
	} else if testing.Short() {
		rounds = 20
	}
	const racers = 64
	s := start(t, stub.Options{})
	conn, err := s.Dial(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	client := controlv1.NewControlServiceClient(conn)
	csrs := make([][]byte, racers)
	for i := range csrs {
		csrs[i] = csr(t, p256(t))
	}
	for range rounds {
		text := token(t, s, &controlv1.CreateTokenRequest{})
		if won := race(t.Context(), t, client, text, csrs); won != 1 {
			t.Fatalf("%d of %d got in with a token for one", won, racers)
		}
	}
}

func race(ctx context.Context, t *testing.T, client controlv1.ControlServiceClient, text string, csrs [][]byte) int32 {
	t.Helper()
	var won atomic.Int32
	var wg sync.WaitGroup
	for _, der := range csrs {
		wg.Go(func() {
			_, err := client.Join(ctx, &controlv1.JoinRequest{Token: text, Csr: der})
			if err == nil {
				won.Add(1)
			} else if reasonOf(err) != "TOKEN_USED_UP" {
				t.Errorf("a loser hears %v", err)
			}
		})
	}
	wg.Wait()
	return won.Load()
}

// TestLintFailure plants a policy whose certificates contradict themselves, and
// shows that the same request goes through once the policy is right.
func TestLintFailure(t *testing.T) {
	bad := `organization: {name: Example GmbH, country: DE, identifier: NTRGB-12345678}
rules:
  - departments: ["*"]
    profiles: [employee-dual]
`
	s := start(t, stub.Options{PolicyYAML: bad})
	d := join(t, s, token(t, s, &controlv1.CreateTokenRequest{}))
	d.syncAs(t, alice())
	sent := submission(enrollmentID(1), csr(t, p256(t)))
	_, err := d.Submit(t.Context(), sent)
	wantReason(t, err, "LINT_FAILED")
	if n := len(ledger(t, s)); n != 0 {
		t.Errorf("%d certificates after a refusal", n)
	}
	people := []byte("account,mailbox,given_name,surname,department\nalice,alice@example.com,Alice,Example,Sales\n")
	_, err = s.Admin.ApplyPolicy(t.Context(), &controlv1.ApplyPolicyRequest{PolicyYaml: []byte(policyOf("auto", "new-key")), PeopleCsv: people})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := d.Submit(t.Context(), sent); err != nil || issued(t, got.GetOutcome()) == nil {
		t.Errorf("the same request afterwards: %v", err)
	}
}

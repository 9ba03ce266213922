package stub_test

import (
	"crypto/x509"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/server"
	"smime-agent/server-stub/store/pgtest"
	"smime-agent/server-stub/stub"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// TestSuiteOverPostgres runs the tests of this package once more, over PostgreSQL.
func TestSuiteOverPostgres(t *testing.T) {
	if pgtest.FromEnv() != nil {
		t.Skip("this is the run over PostgreSQL")
	}
	cluster := pgtest.Shared(t)
	args := []string{"-test.skip", "^Test(SuiteOverPostgres|Profiles|Flood|StopInAFlood|Servers.*)$", "-test.timeout", "8m"}
	if testing.Short() {
		args = append(args, "-test.short")
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, args...) //nolint:gosec // this very program
	cmd.Env = append(os.Environ(), cluster.Env())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// servers starts some over one database, each with a copy of the first one's directory.
func servers(t *testing.T, n int, o stub.Options) []*stub.Server {
	t.Helper()
	o.Postgres = pgtest.Shared(t).Database(t)
	out := []*stub.Server{start(t, o)}
	for range n - 1 {
		next := o
		next.Dir = filepath.Join(t.TempDir(), "copy")
		if err := os.CopyFS(next.Dir, os.DirFS(out[0].Dir)); err != nil {
			t.Fatal(err)
		}
		out = append(out, start(t, next))
	}
	return out
}

func joinAll(t *testing.T, all []*stub.Server) []*device {
	t.Helper()
	key := p256(t)
	resp, err := joinWith(t.Context(), all[0], &controlv1.JoinRequest{Token: token(t, all[0], &controlv1.CreateTokenRequest{}), Csr: csr(t, key)})
	if err != nil {
		t.Fatal(err)
	}
	var out []*device
	for _, s := range all {
		out = append(out, connect(t, s, resp.GetDeviceId(), key, resp.GetChain()))
	}
	return out
}

// TestServersAgree: what happens at one server holds at the others with the next call.
func TestServersAgree(t *testing.T) {
	all := servers(t, 3, stub.Options{})
	d := joinAll(t, all)
	// A user who logs in is reported to one server, and may enroll at another.
	d[0].syncAs(t)
	d[1].syncAs(t, alice())
	leaf := issued(t, mustSubmit(t, d[2], submission(enrollmentID(1), csr(t, p256(t)))))
	// Alternating reports: the record has the last one, whoever had which before.
	d[0].syncAs(t)
	d[1].syncAs(t, alice())
	d[0].syncAs(t)
	_, err := d[2].Submit(t.Context(), submission(enrollmentID(2), csr(t, p256(t))))
	wantReason(t, err, "NOT_ASSIGNED")
	d[0].syncAs(t, alice())
	// The same enrollment at every server is one certificate.
	same := submission(enrollmentID(3), csr(t, p256(t)))
	var wg sync.WaitGroup
	for _, one := range d {
		wg.Go(func() {
			if _, err := one.Submit(t.Context(), same); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := len(ledger(t, all[1])); n != 2 {
		t.Errorf("the ledger has %d certificates, want 2", n)
	}
	// A policy that was applied at one is in force at the others.
	before := d[1].syncAs(t, alice()).GetPolicyRevision()
	apply(t, all[0], policyOf("administrator", "new-key"), heading+"alice,alice@example.com,Alice,Other,,Sales\n", false)
	if after := d[1].syncAs(t, alice()); after.GetPolicyRevision() == before || !after.GetPolicyChanged() {
		t.Error("a policy that another server applied is not in force")
	}
	waiting := mustSubmit(t, d[2], submission(enrollmentID(4), csr(t, p256(t))))
	if waiting.GetPending() == nil {
		t.Error("the new policy is not in force for a submission")
	}
	listsAgree(t, all, leaf)
	// Who is removed at one is refused by all.
	if _, err := all[1].Admin.DecideDevice(t.Context(), &controlv1.DecideDeviceRequest{Id: d[0].id}); err != nil {
		t.Fatal(err)
	}
	for _, one := range d {
		_, err := one.Sync(t.Context(), &controlv1.SyncRequest{})
		wantReason(t, err, "DEVICE_REFUSED")
	}
}

func mustSubmit(t *testing.T, d *device, req *controlv1.SubmitRequest) *controlv1.CollectResponse {
	t.Helper()
	resp, err := d.Submit(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetOutcome()
}

// listsAgree: all hand out the same list, and its number grows, whoever makes the next.
func listsAgree(t *testing.T, all []*stub.Server, leaf *x509.Certificate) {
	t.Helper()
	lists := func() *x509.RevocationList {
		var first *x509.RevocationList
		for _, s := range all {
			list, err := x509.ParseRevocationList(fetch(t, "http://"+s.WebAddr+"/crl"))
			if err != nil {
				t.Fatal(err)
			}
			if first != nil && first.Number.Cmp(list.Number) != 0 {
				t.Errorf("lists %v and %v are handed out at once", first.Number, list.Number)
			}
			first = list
		}
		return first
	}
	before := lists()
	serial := leaf.SerialNumber.Text(16)
	if _, err := all[2].Admin.Revoke(t.Context(), &controlv1.RevokeRequest{Serial: serial, Reason: "keyCompromise"}); err != nil {
		t.Fatal(err)
	}
	after := lists()
	if after.Number.Cmp(before.Number) <= 0 || len(after.RevokedCertificateEntries) != 1 {
		t.Errorf("list %v with %d entries follows %v", after.Number, len(after.RevokedCertificateEntries), before.Number)
	}
}

// TestServersWake: a call that one server holds ends when something happens at another.
func TestServersWake(t *testing.T) {
	all := servers(t, 2, stub.Options{PolicyYAML: policyOf("administrator", "new-key")})
	d := joinAll(t, all)
	revision := d[1].syncAs(t, alice()).GetPolicyRevision()
	sent, err := d[1].Submit(t.Context(), submission(enrollmentID(1), csr(t, p256(t))))
	if err != nil {
		t.Fatal(err)
	}
	held := func() chan *controlv1.AwaitResponse {
		out := make(chan *controlv1.AwaitResponse, 1)
		go func() {
			resp, err := d[1].Await(t.Context(), &controlv1.AwaitRequest{
				References: []string{sent.GetReference()}, PolicyRevision: revision, MaxWait: durationpb.New(time.Minute),
			})
			if err != nil {
				t.Error(err)
			}
			out <- resp
		}()
		return out
	}
	begin := time.Now()
	first := held()
	// The device holds its call at the second server, and the administrator asks at the first.
	asked := make(chan *controlv1.AskDeviceResponse, 1)
	go func() {
		resp, err := all[0].Admin.AskDevice(t.Context(), &controlv1.AskDeviceRequest{DeviceId: d[0].id, Wait: durationpb.New(50 * time.Second)})
		if err != nil {
			t.Error(err)
		}
		asked <- resp
	}()
	if got := <-first; !got.GetSync() {
		t.Errorf("asked for a report, a held call ends with %v", got)
	}
	d[1].syncAs(t, alice())
	if got := <-asked; !got.GetReported() {
		t.Error("who asked at another server does not hear of the report")
	}
	second := held()
	if _, err := all[0].Admin.DecideRequest(t.Context(), &controlv1.DecideRequestRequest{Reference: sent.GetReference(), Approve: true}); err != nil {
		t.Fatal(err)
	}
	if got := <-second; len(got.GetReady()) != 1 {
		t.Errorf("approved at another server, a held call ends with %v", got)
	}
	sent.Reference = "" // nothing else is awaited
	third := held()
	apply(t, all[0], policyOf("auto", "same-key"), heading+"alice,alice@example.com,Alice,Example,,Sales\n", false)
	<-third
	if took := time.Since(begin); took > 50*time.Second {
		t.Errorf("the calls were held for %v: nobody was woken", took)
	}
}

// TestServersRemindOnce: all look for reminders at the same time, again and again.
func TestServersRemindOnce(t *testing.T) {
	c := &clock{}
	post, mailing := mailServer(t)
	all := servers(t, 3, stub.Options{Now: c.now, Mail: mailing, PolicyYAML: policyOf("auto", "new-key"), PeopleCSV: threePeople})
	d := admittedDevice(t, all[0], bobAndCarl()...)
	d.enroll(t, submissionFor(1, "uid:1001", "bob@example.com", csr(t, p256(t))))
	d.enroll(t, submissionFor(2, "uid:1002", "carl@example.com", csr(t, p256(t))))
	c.advance(310 * 24 * time.Hour)
	var wg sync.WaitGroup
	for _, s := range all {
		wg.Go(func() {
			for range 5 {
				if _, err := s.Server.Remind(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if got := recipients(t, post.Mails()); got != "admin@example.com bob@example.com carl@example.com" {
		t.Errorf("mails to %q", got)
	}
}

// TestServersMailOneCode: a device that asks all servers at once gets one code.
func TestServersMailOneCode(t *testing.T) {
	post, mailing := mailServer(t)
	all := servers(t, 3, stub.Options{Mail: mailing, PolicyYAML: checkedPolicy("auto")})
	d := joinAll(t, all)
	d[0].syncAs(t, alice())
	req := submission(enrollmentID(1), csr(t, p256(t)))
	var wg sync.WaitGroup
	for _, one := range d {
		wg.Go(func() {
			if _, err := one.Submit(t.Context(), req); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	code := codeIn(t, mailed(t, post, 1)[0])
	ref := mustReference(t, d[1], req)
	// Brought to all at once it is used once; the others hear that it is settled.
	for _, one := range d {
		wg.Go(func() { _, _ = confirm(t, one, ref, code) })
	}
	wg.Wait()
	if got := mustSubmit(t, d[2], req); got.GetIssued() == nil || len(ledger(t, all[0])) != 1 {
		t.Errorf("after the code: %v", got)
	}
	if more := post.Mails(); len(more) != 0 {
		t.Errorf("%d mails more", len(more))
	}
}

func mustReference(t *testing.T, d *device, req *controlv1.SubmitRequest) string {
	t.Helper()
	resp, err := d.Submit(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetReference()
}

// TestServersAskAnotherCAOnce: a request that all have in hand is handed on by one.
func TestServersAskAnotherCAOnce(t *testing.T) {
	other := newOtherCA(t)
	externals := map[string]server.External{"est": {Authority: other, Anchors: [][]byte{other.root.Raw}}}
	all := servers(t, 3, stub.Options{Externals: externals, PolicyYAML: externalPolicy("auto")})
	d := joinAll(t, all)
	d[0].syncAs(t, alice())
	req := submission(enrollmentID(1), csr(t, p256(t)))
	var wg sync.WaitGroup
	for _, one := range d {
		wg.Go(func() {
			for {
				resp, err := one.Submit(t.Context(), req)
				if err != nil {
					t.Error(err)
					return
				}
				if resp.GetOutcome().GetIssued() != nil {
					return
				}
				time.Sleep(20 * time.Millisecond)
			}
		})
	}
	wg.Wait()
	other.mu.Lock()
	defer other.mu.Unlock()
	if n := other.asked["alice@example.com"]; n != 2 { // it has an answer at the second question
		t.Errorf("the other CA was asked %d times, want 2", n)
	}
}

// TestServersOfAnotherSite: a database of somebody else is refused.
func TestServersOfAnotherSite(t *testing.T) {
	dsn := pgtest.Shared(t).Database(t)
	start(t, stub.Options{Postgres: dsn})
	s, err := stub.Start(t.Context(), stub.Options{Postgres: dsn})
	if err == nil {
		_ = s.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "another transport CA") {
		t.Errorf("a foreign database gives %v", err)
	}
}

// TestServersLoseTheDatabase: agents hear to come back, and it all goes on by itself.
func TestServersLoseTheDatabase(t *testing.T) {
	cluster := pgtest.Start(t)
	s := start(t, stub.Options{Postgres: cluster.Database(t)})
	d := joinAll(t, []*stub.Server{s})[0]
	d.syncAs(t, alice())
	list := fetch(t, "http://"+s.WebAddr+"/crl")
	cluster.Halt(t)
	req := submission(enrollmentID(1), csr(t, p256(t)))
	for range 3 {
		_, err := d.Submit(t.Context(), req)
		wantReason(t, err, "UNAVAILABLE")
		if status.Code(err) != codes.Unavailable {
			t.Errorf("without a database a submission gives %v", err)
		}
	}
	if string(fetch(t, "http://"+s.WebAddr+"/crl")) != string(list) {
		t.Error("without a database there is another revocation list")
	}
	cluster.Begin(t)
	if got := mustSubmit(t, d, req); got.GetIssued() == nil {
		t.Errorf("with the database back: %v", got)
	}
}

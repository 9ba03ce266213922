package control

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"smime-agent/agent/enroll"
	controlv1 "smime-agent/proto/control/v1"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func goodPolicy(ca *authority) *controlv1.Policy {
	return &controlv1.Policy{
		Organization: "Example", Contact: "help@example.com", Anchors: [][]byte{ca.cert.Raw}, InstallAnchors: true,
		Profiles: []*controlv1.Profile{{
			Name: "both", Keys: []string{"p-256", "rsa-2048"}, Sign: true, Encrypt: true,
			MaxValidity: durationpb.New(365 * 24 * time.Hour), Generation: "2", MinProtection: "software",
		}},
		Assignments: []*controlv1.Assignment{{
			User: "uid:1000", Mailboxes: []string{"a@example.com", "b@example.com"}, DisplayName: "A", Profile: "both",
			Consent: controlv1.Consent_CONSENT_SILENT, Stores: []string{"auto"},
			Renewal: &controlv1.RenewalRule{Before: durationpb.New(time.Hour), Suggested: map[string]*timestamppb.Timestamp{"0AB": timestamppb.New(noon)}, Rotation: "same-key"},
			Modules: []*controlv1.PkcsModule{{Path: "/usr/lib/p11.so", TokenLabel: "card"}},
			Note:    map[string]string{"en": "Hello\u202e\nthere\x00"},
			Mail:    &controlv1.MailRule{Programs: []string{"*"}, Sign: "always", Encrypt: "sometimes", Hash: "sha-256", Cipher: "rot13"},
		}},
	}
}

func TestPolicyOverTheWire(t *testing.T) {
	s := newServer(t)
	c := joined(t, s)
	s.skew = time.Hour
	s.sync = func(r *controlv1.SyncRequest) *controlv1.SyncResponse {
		return &controlv1.SyncResponse{
			ServerTime: s.time(), NextSync: durationpb.New(90 * time.Second), PolicyRevision: "8", PolicyChanged: r.GetPolicyRevision() != "8",
			Policy: goodPolicy(s.ca), Ready: []string{"ref"},
			Orders: []*controlv1.Order{
				{Id: "1", What: &controlv1.Order_Renew{Renew: &controlv1.RenewOrder{EnrollmentId: "smime-1"}}},
				{Id: "2", What: &controlv1.Order_Revoked{Revoked: &controlv1.RevokedOrder{EnrollmentId: "smime-2", Reason: "lost", At: timestamppb.New(noon)}}},
				{Id: "3", What: &controlv1.Order_Prove{}}, {Id: "4"},
			},
			Known: []*controlv1.KnownEnrollment{{EnrollmentId: "smime-1", Reference: "ref", Chain: [][]byte{s.ca.cert.Raw}}, {EnrollmentId: "smime-2", Chain: [][]byte{[]byte("bad")}}},
		}
	}
	got, err := c.Sync(t.Context(), SyncInput{Rebuild: true})
	if err != nil {
		t.Fatal(err)
	}
	want := &enroll.Policy{
		Revision: "8", Organization: "Example", Contact: "help@example.com", Anchors: [][]byte{s.ca.cert.Raw}, InstallAnchors: true,
		SuggestedRenewal: map[string]time.Time{"0ab": noon},
		Assignments: []enroll.Assignment{{
			User: "uid:1000", Mailboxes: []string{"a@example.com", "b@example.com"}, DisplayName: "A",
			Profile: enroll.Profile{Name: "both", Keys: []string{"p-256", "rsa-2048"}, Sign: true, Encrypt: true, MaxValidity: 365 * 24 * time.Hour, Generation: "2", MinProtection: "software"},
			Consent: enroll.ConsentSilent, MaxPostponements: 5, Stores: []string{"auto"}, RenewBefore: time.Hour, Rotation: enroll.SameKey,
			Modules: []enroll.Module{{Path: "/usr/lib/p11.so", TokenLabel: "card"}}, Note: map[string]string{"en": "Hello there"},
			Mail: enroll.MailRule{Programs: []string{"*"}, Sign: enroll.MailAlways, Encrypt: enroll.MailUser, ClearSign: enroll.MailUser, Hash: "sha-256"},
		}},
	}
	if !reflect.DeepEqual(got.Policy, want) {
		t.Errorf("policy = %+v\nwant %+v", got.Policy, want)
	}
	if len(got.Orders) != 3 || got.Orders[0].Kind != OrderRenew || got.Orders[1].At != noon || got.Orders[2].Kind != OrderProve {
		t.Errorf("orders = %+v", got.Orders)
	}
	if len(got.Known) != 2 || len(got.Known[0].Chain) != 1 || got.Known[1].Chain != nil || got.NextSync != 90*time.Second {
		t.Errorf("known = %+v", got)
	}
	if d := got.Offset - time.Hour; d.Abs() > 5*time.Second {
		t.Errorf("offset = %v", got.Offset)
	}
	if again, err := c.Sync(t.Context(), SyncInput{Revision: "8"}); err != nil || again.Policy != nil {
		t.Errorf("unchanged: %+v, %v", again.Policy, err)
	}
}

func TestUnusablePolicyLeavesTheOldOne(t *testing.T) {
	ca := newAuthority(t, "CA")
	many := func(n int) []string { return strings.Split(strings.Repeat("a@b,", n-1)+"a@b", ",") }
	for name, spoil := range map[string]func(*controlv1.Policy){
		"unknown profile":    func(p *controlv1.Policy) { p.Assignments[0].Profile = "x" },
		"no user":            func(p *controlv1.Policy) { p.Assignments[0].User = "" },
		"no mailbox":         func(p *controlv1.Policy) { p.Assignments[0].Mailboxes = nil },
		"not a mailbox":      func(p *controlv1.Policy) { p.Assignments[0].Mailboxes[1] = "b" },
		"line in a mailbox":  func(p *controlv1.Policy) { p.Assignments[0].Mailboxes[1] = "b@c\nd" },
		"too many mailboxes": func(p *controlv1.Policy) { p.Assignments[0].Mailboxes = many(maxMailboxes + 1) },
		"too many stores":    func(p *controlv1.Policy) { p.Assignments[0].Stores = many(maxList + 1) },
		"bad anchor":         func(p *controlv1.Policy) { p.Anchors[0] = []byte("x") },
		"large anchor":       func(p *controlv1.Policy) { p.Anchors[0] = make([]byte, maxCertificate+1) },
		"too many anchors": func(p *controlv1.Policy) {
			for range maxAnchors {
				p.Anchors = append(p.Anchors, ca.cert.Raw)
			}
		},
		"too many assignments": func(p *controlv1.Policy) {
			for range maxAssignments {
				p.Assignments = append(p.Assignments, p.Assignments[0])
			}
		},
	} {
		p := goodPolicy(ca)
		spoil(p)
		out, err := syncResult(&controlv1.SyncResponse{PolicyRevision: "2", PolicyChanged: true, Policy: p}, "1")
		if err != nil || out.Policy != nil || out.PolicyProblem == nil || out.PolicyProblem.Code != CodePolicyUnusable {
			t.Errorf("%s: %+v, %v", name, out, err)
		}
	}
	for name, resp := range map[string]*controlv1.SyncResponse{
		"no policy":   {PolicyRevision: "2", PolicyChanged: true},
		"no revision": {PolicyChanged: true, Policy: goodPolicy(ca)},
	} {
		if out, err := syncResult(resp, ""); err != nil || out.PolicyProblem == nil {
			t.Errorf("%s: %+v, %v", name, out, err)
		}
	}
}

func TestPolicyProblemIsACondition(t *testing.T) {
	s := newServer(t)
	c := joined(t, s)
	s.sync = func(*controlv1.SyncRequest) *controlv1.SyncResponse {
		return &controlv1.SyncResponse{PolicyChanged: true, PolicyRevision: "2"}
	}
	if out, err := c.Sync(t.Context(), SyncInput{Revision: "1"}); err != nil || out.PolicyProblem == nil {
		t.Fatalf("%+v, %v", out, err)
	}
	if cs := c.Conditions(); len(cs) != 1 || cs[0].Code != CodePolicyUnusable {
		t.Errorf("conditions = %+v", cs)
	}
	s.sync = nil
	if _, err := c.Sync(t.Context(), SyncInput{Revision: "1"}); err != nil || len(c.Conditions()) != 0 {
		t.Errorf("%v, %+v", err, c.Conditions())
	}
}

func TestRotation(t *testing.T) {
	for said, want := range map[string]enroll.Rotation{"": "", "same-key": enroll.SameKey, "new-key": enroll.NewKey, "quantum": enroll.NewKey} {
		if got := rotationIn(said); got != want {
			t.Errorf("%q became %q, want %q", said, got, want)
		}
	}
}

func TestUnknownValuesAreHarmless(t *testing.T) {
	ca := newAuthority(t, "CA")
	p := goodPolicy(ca)
	p.Assignments[0].Consent = 77
	p.Assignments[0].Renewal.Rotation = "quantum"
	p.Assignments[0].Renewal.Before = durationpb.New(-time.Hour)
	p.Assignments[0].Renewal.Suggested["1"] = &timestamppb.Timestamp{Nanos: -1}
	out, err := policyIn(p, "1")
	if err != nil {
		t.Fatal(err)
	}
	if a := out.Assignments[0]; a.Consent != enroll.ConsentAsk || a.Rotation != enroll.NewKey || a.RenewBefore != 0 || len(out.SuggestedRenewal) != 1 {
		t.Errorf("%+v", a)
	}
	for d, want := range map[time.Duration]time.Duration{0: defaultSync, -time.Hour: defaultSync, time.Millisecond: minSync, 1e6 * time.Hour: maxSync} {
		if out, _ := syncResult(&controlv1.SyncResponse{NextSync: durationpb.New(d)}, ""); out.NextSync != want {
			t.Errorf("next sync %v became %v", d, out.NextSync)
		}
	}
}

func TestTooMuchAtOnceIsRefused(t *testing.T) {
	for _, resp := range []*controlv1.SyncResponse{
		{Orders: make([]*controlv1.Order, maxOrders+1)}, {Known: make([]*controlv1.KnownEnrollment, maxKnown+1)}, {Ready: make([]string, maxReferences+1)},
	} {
		if _, err := syncResult(resp, ""); !errors.Is(err, errAnswer) {
			t.Errorf("error = %v", err)
		}
	}
}

// collected is an answer of the authority and what is to become of it.
type collected struct {
	answer *controlv1.CollectResponse
	want   enroll.Collection
	kind   enroll.Kind // empty for no error
	code   enroll.Code
	hint   string
}

func (w collected) check(t *testing.T, how string, got enroll.Collection, err error) {
	t.Helper()
	if w.kind == "" {
		if err != nil || !reflect.DeepEqual(got, w.want) {
			t.Errorf("%s: %+v, %v", how, got, err)
		}
		return
	}
	if e := wantError(t, err, w.kind, w.code); w.hint != "" && e.Hint != w.hint {
		t.Errorf("%s: hint = %q", how, e.Hint)
	}
}

func TestCollections(t *testing.T) {
	s := newServer(t)
	c := joined(t, s)
	long := make([][]byte, maxChain+1)
	for i := range long {
		long[i] = s.ca.cert.Raw
	}
	issued := func(chain ...[]byte) *controlv1.CollectResponse {
		return &controlv1.CollectResponse{Outcome: &controlv1.CollectResponse_Issued{Issued: &controlv1.Issued{Chain: chain, SuggestedRenewal: timestamppb.New(noon)}}}
	}
	pending := func(who string, d time.Duration) *controlv1.CollectResponse {
		return &controlv1.CollectResponse{Outcome: &controlv1.CollectResponse_Pending{Pending: &controlv1.Pending{WaitsFor: who, RetryAfter: durationpb.New(d)}}}
	}
	refused := func(text string) *controlv1.CollectResponse {
		return &controlv1.CollectResponse{Outcome: &controlv1.CollectResponse_Refused{Refused: &controlv1.Refused{Code: "policy", Text: text}}}
	}
	for name, tt := range map[string]collected{
		"issued":           {answer: issued(s.ca.cert.Raw), want: enroll.Collection{Chain: [][]byte{s.ca.cert.Raw}, SuggestedRenewal: noon}},
		"empty chain":      {answer: issued(), kind: enroll.Transient, code: enroll.CodeControlRejected},
		"long chain":       {answer: issued(long...), kind: enroll.Transient, code: enroll.CodeControlRejected},
		"garbage":          {answer: issued([]byte("x")), kind: enroll.Transient, code: enroll.CodeControlRejected},
		"administrator":    {answer: pending("administrator", time.Minute), want: enroll.Collection{WaitsFor: "administrator", RetryAfter: time.Minute}},
		"authority":        {answer: pending("authority", 0), want: enroll.Collection{WaitsFor: "authority", RetryAfter: defaultRetryAfter}},
		"the moon":         {answer: pending("the moon", time.Nanosecond), want: enroll.Collection{WaitsFor: "authority", RetryAfter: time.Second}},
		"patience":         {answer: pending("authority", 1e6*time.Hour), want: enroll.Collection{WaitsFor: "authority", RetryAfter: maxRetryAfter}},
		"challenge":        {answer: &controlv1.CollectResponse{Outcome: &controlv1.CollectResponse_Challenge{Challenge: &controlv1.Challenge{}}}, want: enroll.Collection{WaitsFor: "mailbox", RetryAfter: defaultRetryAfter}},
		"of tomorrow":      {answer: &controlv1.CollectResponse{}, want: enroll.Collection{WaitsFor: "authority", RetryAfter: defaultRetryAfter}},
		"refused":          {answer: refused("Not you.\x1b[31m\u202e"), kind: enroll.Final, code: enroll.CodeRequestRefused, hint: "Not you.[31m"},
		"refused silently": {answer: refused(""), kind: enroll.Final, code: enroll.CodeRequestRefused},
		"refused at length": {answer: refused(strings.Repeat("ä", 1000)), kind: enroll.Final, code: enroll.CodeRequestRefused,
			hint: strings.Repeat("ä", 150)},
	} {
		t.Run(name, func(t *testing.T) {
			s.collect = func(*controlv1.CollectRequest) *controlv1.CollectResponse { return tt.answer }
			got, err := c.Collect(t.Context(), "ref")
			tt.check(t, "by Collect", got, err)
			s.submit = func(*controlv1.SubmitRequest) *controlv1.SubmitResponse {
				return &controlv1.SubmitResponse{Reference: "early", Outcome: tt.answer}
			}
			if r, err := c.Submit(t.Context(), enroll.Submission{ID: "smime-1", CSR: []byte("x")}); err != nil || r.Reference != "early" {
				t.Fatal(r, err)
			}
			got, err = c.Collect(t.Context(), "early")
			tt.check(t, "with the receipt", got, err)
		})
	}
}

func TestEarlyOutcomeSavesACall(t *testing.T) {
	s := newServer(t)
	c := joined(t, s)
	s.submit = func(*controlv1.SubmitRequest) *controlv1.SubmitResponse {
		return &controlv1.SubmitResponse{Reference: "r", Outcome: &controlv1.CollectResponse{
			Outcome: &controlv1.CollectResponse_Issued{Issued: &controlv1.Issued{Chain: [][]byte{s.ca.cert.Raw}}}}}
	}
	if _, err := c.Submit(t.Context(), enroll.Submission{ID: "smime-1", CSR: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Collect(t.Context(), "r"); err != nil || len(got.Chain) != 1 || s.count("Collect") != 0 {
		t.Errorf("%+v, %v, %d calls", got, err, s.count("Collect"))
	}
	if _, err := c.Collect(t.Context(), "r"); err != nil || s.count("Collect") != 1 {
		t.Error("the second look does not ask")
	}
	for _, csr := range [][]byte{nil, make([]byte, maxCSR+1)} {
		_, err := c.Submit(t.Context(), enroll.Submission{ID: "smime-1", CSR: csr})
		wantError(t, err, enroll.Final, enroll.CodeControlRejected)
	}
	s.submit = func(*controlv1.SubmitRequest) *controlv1.SubmitResponse { return &controlv1.SubmitResponse{} }
	_, err := c.Submit(t.Context(), enroll.Submission{ID: "smime-1", CSR: []byte("x")})
	wantError(t, err, enroll.Transient, enroll.CodeControlRejected)
}

func TestWhatIsReported(t *testing.T) {
	s := newServer(t)
	c := joined(t, s)
	var got *controlv1.SyncRequest
	s.sync = func(r *controlv1.SyncRequest) *controlv1.SyncResponse { got = r; return &controlv1.SyncResponse{} }
	_, err := c.Sync(t.Context(), SyncInput{
		Users: []Presence{{User: "uid:1000", Account: "al\xffice", Present: true, Locale: "zh-CN", Stores: []enroll.StoreFound{{Name: "nss:default", Protection: "software", Consumers: []string{"Thunderbird"}}}}},
		Enrollments: []enroll.Enrollment{{
			ID: "smime-1", State: enroll.Active, Reason: enroll.ReasonFirst, Store: "nss:default", Chain: [][]byte{s.ca.cert.Raw}, NotAfter: noon,
			Assignment: enroll.Assignment{User: "uid:1000", Mailboxes: []string{"a@example.com"}, Profile: enroll.Profile{Name: "both"}},
			Consent:    enroll.Consent{Verdict: enroll.Approve}, Proof: &enroll.Proof{At: noon, Signs: true, Algorithms: []string{"x"}},
			Problem: &enroll.Problem{Kind: enroll.Waiting, Code: enroll.CodeStoreLocked, Hint: "Unlock it.", Detail: "/home/alice/secret", Since: noon},
		}},
		Conditions: []Condition{{Code: "clock-wrong", Severity: "warning", Text: strings.Repeat("é", 2000), Since: noon}},
		Revision:   "3",
	})
	if err != nil {
		t.Fatal(err)
	}
	k := got.GetCredentials()[0]
	if got.GetFacts().GetHostname() != "host\uFFFD" || got.GetUsers()[0].GetAccount() != "al\uFFFDice" || got.GetPolicyRevision() != "3" {
		t.Errorf("facts and users = %v", got)
	}
	if k.GetSerial() != s.ca.cert.SerialNumber.Text(16) || k.GetConsent() != "approved" || !k.GetProof().GetOk() || k.GetRenewAt() != nil || k.GetMailbox() != "a@example.com" {
		t.Errorf("credential = %v", k)
	}
	if k.GetProblem().GetText() != "Unlock it." || strings.Contains(got.String(), "secret") {
		t.Errorf("problem = %v", k.GetProblem())
	}
	if n := len(got.GetConditions()[0].GetText()); n > maxText || !utf8.ValidString(got.GetConditions()[0].GetText()) {
		t.Errorf("text of %d bytes", n)
	}
}

// TestWhatMattersMostIsReported: a machine with more than a report may hold tells
// of who is there and of what is in use.
func TestWhatMattersMostIsReported(t *testing.T) {
	var in SyncInput
	for i := range maxUsers + 3 {
		in.Users = append(in.Users, Presence{User: fmt.Sprint("uid:", i), Present: i > maxUsers})
	}
	for i := range maxCredentials + 40 {
		e := enroll.Enrollment{ID: enroll.ID(fmt.Sprintf("smime-%04d", i)), State: enroll.Kept}
		if i < 10 {
			e.State = enroll.Active
		}
		in.Enrollments = append(in.Enrollments, e)
	}
	in.Conditions = make([]Condition, maxConditions+1)
	req := (&Client{}).syncRequest(in)
	users, credentials := req.GetUsers(), req.GetCredentials()
	if len(users) != maxUsers || len(credentials) != maxCredentials || len(req.GetConditions()) != maxConditions {
		t.Fatalf("%d users, %d credentials, %d conditions", len(users), len(credentials), len(req.GetConditions()))
	}
	if !users[0].GetPresent() || !users[1].GetPresent() || users[2].GetUser() != "uid:0" {
		t.Errorf("users begin with %v", users[:3])
	}
	newest := fmt.Sprintf("smime-%04d", maxCredentials+39)
	if credentials[0].GetEnrollmentId() != "smime-0009" || credentials[9].GetEnrollmentId() != "smime-0000" || credentials[10].GetEnrollmentId() != newest {
		t.Errorf("credentials begin with %v", credentials[:11])
	}
	if in.Users[0].Present || in.Enrollments[0].ID != "smime-0000" {
		t.Error("the caller's lists were changed")
	}
}

func TestReportInParts(t *testing.T) {
	s := newServer(t)
	c := joined(t, s)
	var events []AuditEvent
	for i := range 250 {
		events = append(events, AuditEvent{ID: strings.Repeat("i", i+1), Event: enroll.Event{At: noon, Code: enroll.EventIssued, Outcome: "success", Fields: map[string]string{"serial": "1\xff"}}})
	}
	done, err := c.Report(t.Context(), events)
	if err != nil || len(done) != 250 || s.count("Report") != 3 {
		t.Errorf("%d recorded in %d calls, %v", len(done), s.count("Report"), err)
	}
}

func TestClock(t *testing.T) {
	start := time.Now() // with a monotonic reading
	var k clock
	k.observe(start.Add(time.Hour), start.Add(-2*time.Second), start)
	if d := k.offsetAt(start) - time.Hour - time.Second; d.Abs() > time.Millisecond {
		t.Errorf("half the round trip: off by %v", d)
	}
	base := k.offsetAt(start)
	if got := k.offsetAt(start.Add(5 * time.Hour)); got != base {
		t.Errorf("5 h later: %v", got)
	}
	slept := start.Round(0).Add(30 * 24 * time.Hour) // no monotonic reading: the wall clock is all there is
	if got := k.offsetAt(slept); got != base {
		t.Errorf("after sleep: %v", got)
	}
	k.observe(time.Unix(0, 0), start, start)
	if got := k.offsetAt(start); got != base {
		t.Errorf("a server in 1970 was believed: %v", got)
	}
}

// TestClockDoesNotWaver: an answer that took long says little, and moves nothing
// that can still be true; one that cannot be does.
func TestClockDoesNotWaver(t *testing.T) {
	start := time.Now()
	var k clock
	for _, o := range []struct{ after, want time.Duration }{
		{0, 0}, {50 * time.Second, 0}, {time.Minute, 0}, // written at once, late, at the end of a held call
		{time.Hour, time.Hour - 30*time.Second},
		{time.Hour + 20*time.Second, time.Hour - 30*time.Second},
	} {
		k.observe(start.Add(o.after), start, start.Add(time.Minute))
		if got := k.offsetAt(start.Add(time.Minute)); got != o.want {
			t.Errorf("a server's time %v after the call began: offset %v, want %v", o.after, got, o.want)
		}
	}
}

func FuzzAnswers(f *testing.F) {
	ca := newAuthority(f, "CA")
	raw, err := proto.Marshal(&controlv1.SyncResponse{PolicyChanged: true, PolicyRevision: "1", Policy: goodPolicy(ca)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		var s controlv1.SyncResponse
		if proto.Unmarshal(raw, &s) == nil {
			if out, err := syncResult(&s, ""); err == nil && (out.NextSync < minSync || out.NextSync > maxSync) {
				t.Errorf("next sync in %v", out.NextSync)
			}
		}
		var k controlv1.CollectResponse
		if proto.Unmarshal(raw, &k) == nil {
			_, _ = collectionIn(&k)
		}
	})
}

func FuzzIdentity(f *testing.F) {
	r, err := newRequest("join", "m", "t")
	if err != nil {
		f.Fatal(err)
	}
	raw, err := ring{next: r}.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(_ *testing.T, raw []byte) { _, _ = decodeRing(raw) })
}

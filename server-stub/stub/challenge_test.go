package stub_test

import (
	"context"
	"encoding/base32"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/mailtest"
	"smime-agent/server-stub/stub"
)

func checkedPolicy(approval string) string {
	return strings.Replace(policyOf(approval, "new-key"), "renewal:", "mailbox_check: mail\n    renewal:", 1)
}

// mailed waits for mails, which go out beside the call.
func mailed(t testing.TB, post *mailtest.Server, n int) []mailtest.Mail {
	t.Helper()
	var got []mailtest.Mail
	for range 500 {
		if got = append(got, post.Mails()...); len(got) >= n {
			return got
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%d mails came, want %d", len(got), n)
	return nil
}

// noted waits until it is on record that the mail server took the n-th code of a
// request, which is after it came, and says what an administrator sees of it then.
func noted(t testing.TB, s *stub.Server, ref string, n int) *controlv1.MailboxCheck {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		list, err := s.Admin.ListRequests(ctx, &controlv1.ListRequestsRequest{All: true})
		if err != nil {
			t.Fatalf("code %d is not noted: %v", n, err)
		}
		for _, r := range list.GetRequests() {
			if checks := r.GetChecks(); r.GetReference() == ref && len(checks) == 1 && int(checks[0].GetMails()) == n {
				return checks[0]
			}
		}
		time.Sleep(time.Millisecond)
	}
}

// codeIn takes the code from the mail as a person would, and counts its bits.
func codeIn(t testing.TB, m mailtest.Mail) string {
	t.Helper()
	found := regexp.MustCompile(`(?m)^ {4}([A-Z2-7-]+)$`).FindStringSubmatch(m.Text)
	if found == nil {
		t.Fatalf("no code in the mail:\n%s", m.Text)
	}
	plain := strings.ReplaceAll(found[1], "-", "")
	if bits := len(plain) * 5; bits < 112 {
		t.Errorf("the code has at most %d bits, BR 1.6.1 wants 112", bits)
	}
	if _, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(plain); err != nil {
		t.Errorf("code %s: %v", found[1], err)
	}
	return found[1]
}

func confirm(t testing.TB, d *device, ref, code string) (*controlv1.CollectResponse, error) {
	t.Helper()
	resp, err := d.Confirm(t.Context(), &controlv1.ConfirmRequest{Reference: ref, Code: code})
	return resp.GetOutcome(), err
}

// challenged submits for Alice and expects a challenge.
func challenged(t testing.TB, d *device, n int) string {
	t.Helper()
	req := submission(enrollmentID(n), csr(t, p256(t)))
	got, err := d.Submit(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if c := got.GetOutcome().GetChallenge(); c.GetKind() != "mail-code" || c.GetSentTo() != "alice@example.com" {
		t.Fatalf("outcome %v, want a challenge", got.GetOutcome())
	}
	again, err := d.Submit(t.Context(), req)
	if err != nil || again.GetReference() != got.GetReference() || again.GetOutcome().GetChallenge() == nil {
		t.Fatalf("the same again gives %v, %v", again, err)
	}
	return got.GetReference()
}

func TestChallenge(t *testing.T) {
	c := &clock{}
	post, mailing := mailServer(t)
	s := start(t, stub.Options{Now: c.now, Mail: mailing, PolicyYAML: checkedPolicy("auto"), PeopleCSV: threePeople})
	d := admittedDevice(t, s, &controlv1.UserPresence{User: "uid:1000", Account: "alice", Locale: "zh-CN"})
	other := admittedDevice(t, s, alice())
	ref := challenged(t, d, 1)
	mails := mailed(t, post, 1)
	code := codeIn(t, mails[0])
	if mails[0].To != "alice@example.com" || !strings.HasPrefix(mails[0].Text, "您好") || !strings.Contains(mails[0].Text, "This code confirms") {
		t.Errorf("mail %+v", mails[0])
	}
	_, err := confirm(t, d, ref, "AAAA-AAAA")
	wantReason(t, err, "CODE_WRONG")
	_, err = confirm(t, d, ref, "")
	wantReason(t, err, "CODE_WRONG")
	_, err = confirm(t, other, ref, code)
	wantReason(t, err, "REFERENCE_UNKNOWN")
	collected, err := d.Collect(t.Context(), &controlv1.CollectRequest{Reference: ref})
	if err != nil || collected.GetChallenge().GetExpires() == nil {
		t.Fatalf("collect gives %v, %v, want the challenge", collected, err)
	}
	outcome, err := confirm(t, d, ref, strings.ToLower(strings.ReplaceAll(code, "-", " ")))
	if err != nil {
		t.Fatal(err)
	}
	leaf := issued(t, outcome)
	outcome, err = confirm(t, d, ref, code) // the answer was lost
	if err != nil || !issued(t, outcome).Equal(leaf) {
		t.Errorf("the same code again gives %v, %v", outcome, err)
	}
	if n := len(mailed(t, post, 0)); n != 0 {
		t.Errorf("%d more mails", n)
	}
	// Confirmed for 30 days, for this user of this device.
	d.enroll(t, submission(enrollmentID(2), csr(t, p256(t))))
	challenged(t, other, 3)
	_, err = confirm(t, other, ref, code)
	wantReason(t, err, "REFERENCE_UNKNOWN")
	c.advance(25 * 24 * time.Hour)
	mailed(t, post, 1)
	c.advance(4 * 24 * time.Hour)
	d.enroll(t, submission(enrollmentID(4), csr(t, p256(t))))
	c.advance(2 * 24 * time.Hour)
	d = reconnect(t, s, d, c.now())
	ref = challenged(t, d, 5)
	_, err = confirm(t, d, ref, code) // single use: the old code does nothing for a new request
	wantReason(t, err, "CODE_WRONG")
}

// TestChallengeExpires lets codes run out, until the request is refused.
func TestChallengeExpires(t *testing.T) {
	c := &clock{}
	post, mailing := mailServer(t)
	s := start(t, stub.Options{Now: c.now, Mail: mailing, PolicyYAML: checkedPolicy("auto"), PeopleCSV: threePeople})
	d := admittedDevice(t, s, alice())
	ref := challenged(t, d, 1)
	collect := func() *controlv1.CollectResponse {
		t.Helper()
		got, err := d.Collect(t.Context(), &controlv1.CollectRequest{Reference: ref})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	seen := map[string]bool{}
	for n := range 7 {
		code := codeIn(t, mailed(t, post, 1)[0])
		if seen[code] {
			t.Error("the same code is mailed twice")
		}
		seen[code] = true
		// A clock that jumps before the mail is on record makes it one that got lost.
		noted(t, s, ref, n+1)
		c.advance(24*time.Hour - time.Minute)
		if collect().GetChallenge() == nil || len(post.Mails()) != 0 {
			t.Error("another code is mailed while one is in force")
		}
		c.advance(2 * time.Minute)
		_, err := confirm(t, d, ref, code)
		wantReason(t, err, "CODE_EXPIRED")
		if n < 6 && collect().GetChallenge() == nil {
			t.Error("no challenge after a code ran out")
		}
	}
	if got := collect().GetRefused(); got == nil {
		t.Error("the request is not refused after seven codes")
	}
}

// TestChallengeMailFails keeps trying while the mail server refuses, and takes
// no more than 20 wrong codes.
func TestChallengeMailFails(t *testing.T) {
	c := &clock{}
	post, mailing := mailServer(t)
	s := start(t, stub.Options{Now: c.now, Mail: mailing, PolicyYAML: checkedPolicy("administrator"), PeopleCSV: threePeople})
	d := admittedDevice(t, s, alice())
	post.Refuse("alice@example.com", 451)
	ref := challenged(t, d, 1)
	for n := 0; post.Refused() == 0 && n < 500; n++ {
		time.Sleep(10 * time.Millisecond) // the mail goes out beside the call
	}
	post.Refuse("alice@example.com", 0)
	c.advance(5 * time.Minute)
	if _, err := d.Collect(t.Context(), &controlv1.CollectRequest{Reference: ref}); err != nil {
		t.Fatal(err)
	}
	code := codeIn(t, mailed(t, post, 1)[0])
	for range 20 {
		_, err := confirm(t, d, ref, "WRONG")
		wantReason(t, err, "CODE_WRONG")
	}
	_, err := confirm(t, d, ref, code)
	wantReason(t, err, "CODE_WRONG")
	c.advance(5 * time.Minute)
	if _, err := d.Collect(t.Context(), &controlv1.CollectRequest{Reference: ref}); err != nil {
		t.Fatal(err)
	}
	outcome, err := confirm(t, d, ref, codeIn(t, mailed(t, post, 1)[0]))
	if err != nil || outcome.GetPending().GetWaitsFor() != "administrator" {
		t.Fatalf("outcome %v, %v, want pending", outcome, err)
	}
	list, err := s.Admin.ListRequests(t.Context(), &controlv1.ListRequestsRequest{})
	if err != nil || len(list.GetRequests()) != 1 {
		t.Fatalf("requests %v, %v", list, err)
	}
	if _, err := s.Admin.DecideRequest(t.Context(), &controlv1.DecideRequestRequest{Reference: ref, Approve: true}); err != nil {
		t.Fatal(err)
	}
	collected, err := d.Collect(t.Context(), &controlv1.CollectRequest{Reference: ref})
	if err != nil || issued(t, collected) == nil {
		t.Errorf("collect: %v, %v", collected, err)
	}
}

// TestChallengeOutlivesTheMailServer: a mail server that takes nothing for longer
// than there are codes costs none of them. One that will never take mails for the
// mailbox does, and the request is refused.
func TestChallengeOutlivesTheMailServer(t *testing.T) {
	c := &clock{}
	post, mailing := mailServer(t)
	s := start(t, stub.Options{Now: c.now, Mail: mailing, PolicyYAML: checkedPolicy("auto"), PeopleCSV: threePeople})
	d := admittedDevice(t, s, alice())
	collect := func(ref string) *controlv1.CollectResponse {
		t.Helper()
		got, err := d.Collect(t.Context(), &controlv1.CollectRequest{Reference: ref})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	refused := func(want int) {
		t.Helper()
		for n := 0; post.Refused() < want && n < 500; n++ {
			time.Sleep(10 * time.Millisecond) // the mail goes out beside the call
		}
		if got := post.Refused(); got < want {
			t.Fatalf("%d mails are tried, want %d", got, want)
		}
	}
	try := func(ref string, before int) {
		t.Helper()
		refused(before + 1)
		c.advance(5 * time.Minute)
		if collect(ref).GetChallenge() == nil {
			t.Fatal("the challenge is over")
		}
	}
	post.Refuse("alice@example.com", 451)
	ref := challenged(t, d, 1)
	for n := range 9 {
		try(ref, n)
	}
	refused(10)
	post.Refuse("alice@example.com", 0)
	c.advance(5 * time.Minute)
	collect(ref)
	outcome, err := confirm(t, d, ref, codeIn(t, mailed(t, post, 1)[0]))
	if err != nil || issued(t, outcome) == nil {
		t.Fatalf("outcome %v, %v", outcome, err)
	}
	d = admittedDevice(t, s, alice()) // on which nothing is confirmed
	post.Refuse("alice@example.com", 550)
	before := post.Refused()
	ref = challenged(t, d, 2)
	for n := range 6 {
		try(ref, before+n)
	}
	refused(before + 7)
	var got *controlv1.CollectResponse
	for n := 0; got.GetRefused() == nil && n < 3; n++ { // the last may not be noted yet
		c.advance(25 * time.Hour)
		got = collect(ref)
	}
	if mails := post.Refused() - before; got.GetRefused() == nil || mails > 8 {
		t.Errorf("after %d mails that nobody will ever get: %v", mails, got)
	}
}

// TestChallengeIsSeen: an administrator sees when a code was mailed, until when it
// holds, and that a mailbox gets none.
func TestChallengeIsSeen(t *testing.T) {
	c := &clock{}
	post, mailing := mailServer(t)
	s := start(t, stub.Options{Now: c.now, Mail: mailing, PolicyYAML: checkedPolicy("auto"), PeopleCSV: threePeople})
	d := admittedDevice(t, s, alice())
	post.Refuse("alice@example.com", 550)
	ref := challenged(t, d, 1)
	got := noted(t, s, ref, 1)
	if got.GetMailbox() != "alice@example.com" || got.GetMailed() != nil || got.GetConfirmed() != nil || got.GetMaxMails() != 7 {
		t.Errorf("of a mailbox that takes none: %v", got)
	}
	post.Refuse("alice@example.com", 0)
	c.advance(2 * time.Minute)
	if _, err := d.Collect(t.Context(), &controlv1.CollectRequest{Reference: ref}); err != nil {
		t.Fatal(err)
	}
	mailed(t, post, 1)
	got = noted(t, s, ref, 2)
	if at := got.GetMailed().AsTime(); c.now().Sub(at) > time.Minute || !got.GetExpires().AsTime().After(at.Add(23*time.Hour)) || got.GetConfirmed() != nil {
		t.Errorf("of one that took it: %v", got)
	}
}

// TestTwoMailboxes confirms each by its own code.
func TestTwoMailboxes(t *testing.T) {
	post, mailing := mailServer(t)
	people := heading + "alice,alice@example.com a@example.com,Alice,Example,,Sales\n"
	s := start(t, stub.Options{Mail: mailing, PolicyYAML: checkedPolicy("auto"), PeopleCSV: people})
	d := admittedDevice(t, s, alice())
	req := submission(enrollmentID(1), csr(t, p256(t)))
	req.Mailboxes = []string{"alice@example.com", "a@example.com"}
	got, err := d.Submit(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	mails := mailed(t, post, 2)
	if mails[0].To == mails[1].To || codeIn(t, mails[0]) == codeIn(t, mails[1]) {
		t.Errorf("mails %v", mails)
	}
	outcome, err := confirm(t, d, got.GetReference(), codeIn(t, mails[0]))
	if err != nil || outcome.GetChallenge().GetSentTo() != mails[1].To {
		t.Fatalf("after the first code: %v, %v", outcome, err)
	}
	outcome, err = confirm(t, d, got.GetReference(), codeIn(t, mails[1]))
	if err != nil || len(issued(t, outcome).EmailAddresses) != 2 {
		t.Errorf("after both codes: %v, %v", outcome, err)
	}
}

// TestChallengeWantsMail refuses a policy that could confirm nothing.
func TestChallengeWantsMail(t *testing.T) {
	s := start(t, stub.Options{})
	_, err := s.Admin.ApplyPolicy(t.Context(), &controlv1.ApplyPolicyRequest{PolicyYaml: []byte(checkedPolicy("auto")), PeopleCsv: []byte(threePeople)})
	if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "no mail server") {
		t.Errorf("the policy gives %v", err)
	}
}

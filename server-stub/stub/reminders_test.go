package stub_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/mail"
	"smime-agent/server-stub/mailtest"
	"smime-agent/server-stub/stub"
)

func mailServer(t testing.TB) (*mailtest.Server, mail.Outbox) {
	t.Helper()
	m, err := mailtest.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return m, mail.Outbox{
		Mailer: mail.Server{Address: m.Addr, Security: mail.Clear}, From: "pki@example.com", Administrator: "admin@example.com",
	}
}

const threePeople = heading + "alice,alice@example.com,Alice,Example,,Sales\nbob,bob@example.com,Bob,Example,,Sales\ncarl,carl@example.com,Carl,Example,,Sales\n"

func bobAndCarl() []*controlv1.UserPresence {
	return []*controlv1.UserPresence{
		{User: "uid:1001", Account: "bob", Locale: "zh-CN"}, {User: "uid:1002", Account: "carl", Locale: "de-DE"},
	}
}

func submissionFor(n int, user, mailbox string, csr []byte) *controlv1.SubmitRequest {
	req := submission(enrollmentID(n), csr)
	req.User, req.Mailboxes = user, []string{mailbox}
	return req
}

// recipients gives to whom mails went, in order, and checks that each is in both languages.
func recipients(t testing.TB, mails []mailtest.Mail) string {
	t.Helper()
	var to []string
	for _, m := range mails {
		to = append(to, m.To)
		if !strings.Contains(m.Text, "certificate") || !strings.Contains(m.Text, "证书") {
			t.Errorf("the mail to %s is not in both languages:\n%s", m.To, m.Text)
		}
	}
	slices.Sort(to)
	return strings.Join(to, " ")
}

// TestReminders follows three certificates to their end: Alice's is renewed by
// her agent, Bob's is not, and Carl leaves.
func TestReminders(t *testing.T) {
	c := &clock{}
	post, mailing := mailServer(t)
	s := start(t, stub.Options{Now: c.now, Mail: mailing, PolicyYAML: policyOf("auto", "new-key"), PeopleCSV: threePeople})
	d := admittedDevice(t, s, append(bobAndCarl(), alice())...)
	d.enroll(t, submissionFor(0, "uid:1000", "alice@example.com", csr(t, p256(t))))
	bobs := d.enroll(t, submissionFor(1, "uid:1001", "bob@example.com", csr(t, p256(t))))
	d.enroll(t, submissionFor(2, "uid:1002", "carl@example.com", csr(t, p256(t))))
	remind := func() string {
		t.Helper()
		if _, err := s.Server.Remind(t.Context()); err != nil {
			t.Fatal(err)
		}
		return recipients(t, post.Mails())
	}
	if got := remind(); got != "" {
		t.Errorf("fresh certificates: mails to %q", got)
	}
	renewed := submissionFor(3, "uid:1000", "alice@example.com", csr(t, p256(t)))
	renewed.Replaces = enrollmentID(0)
	d.enroll(t, renewed)
	c.advance(306 * 24 * time.Hour)
	// Both of Alice's end alike, but the clock moved only now: renew once more.
	d = reconnect(t, s, d, c.now())
	again := submissionFor(4, "uid:1000", "alice@example.com", csr(t, p256(t)))
	again.Replaces = enrollmentID(3)
	d.enroll(t, again)
	if got := remind(); got != "admin@example.com bob@example.com carl@example.com" {
		t.Errorf("59 days before the end: mails to %q", got)
	}
	if got := remind(); got != "" {
		t.Errorf("the same again: mails to %q", got)
	}
	apply(t, s, policyOf("auto", "new-key"), heading+"alice,alice@example.com,Alice,Example,,Sales\nbob,bob@example.com,Bob,Example,,Sales\n", false)
	c.advance(30 * 24 * time.Hour)
	post.Refuse("bob@example.com", 451)
	if _, err := s.Server.Remind(t.Context()); err == nil {
		t.Error("the mail server's refusal is not told")
	}
	post.Refuse("bob@example.com", 0)
	if got := remind(); got != "admin@example.com bob@example.com" {
		t.Errorf("29 days before the end: mails to %q", got)
	}
	c.advance(26 * 24 * time.Hour)
	post.Refuse("bob@example.com", 550)
	if got := remind(); got != "admin@example.com" {
		t.Errorf("3 days before the end: mails to %q", got)
	}
	if got := remind(); got != "" {
		t.Errorf("the same again: mails to %q", got)
	}
	remembered(t, s, bobs)
	c.advance(10 * 24 * time.Hour)
	if got := remind(); got != "" {
		t.Errorf("after the end: mails to %q", got)
	}
}

// remembered looks for the reminders in the history, also after a restart of the server.
func remembered(t *testing.T, s *stub.Server, serial string) {
	t.Helper()
	got, err := s.Admin.GetCertificate(t.Context(), &controlv1.GetCertificateRequest{Serial: serial})
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for _, line := range got.GetHistory() {
		count[line.GetCode()]++
	}
	if count["reminder-owner"] != 3 || count["reminder-administrator"] != 3 || count["issued"] != 1 {
		t.Errorf("history %v", got.GetHistory())
	}
	if !slices.ContainsFunc(got.GetHistory(), func(l *controlv1.HistoryLine) bool { return strings.Contains(l.GetDetail(), "not delivered: ") }) {
		t.Error("the history does not tell of the mail that was refused")
	}
}

// TestReminderLanguage looks at what Bob reads first.
func TestReminderLanguage(t *testing.T) {
	c := &clock{}
	post, mailing := mailServer(t)
	s := start(t, stub.Options{Now: c.now, Mail: mailing, PolicyYAML: policyOf("auto", "new-key"), PeopleCSV: threePeople})
	d := admittedDevice(t, s, bobAndCarl()...)
	d.enroll(t, submissionFor(1, "uid:1001", "bob@example.com", csr(t, p256(t))))
	c.advance(360 * 24 * time.Hour)
	if _, err := s.Server.Remind(t.Context()); err != nil {
		t.Fatal(err)
	}
	mails := post.Mails()
	if len(mails) != 2 || !strings.HasPrefix(mails[0].Text, "Bob Example，您好") || !strings.Contains(mails[0].Subject, "Your e-mail certificate ends in") {
		t.Errorf("mails %+v", mails)
	}
	if stage := mails[0].Header.Get("Message-Id"); !strings.HasSuffix(stage, ".7@example.com>") {
		t.Errorf("message ID %s: a reminder at 5 days is of the stage of 7", stage)
	}
}

// TestHistory renews twice and looks from the one in the middle.
func TestHistory(t *testing.T) {
	s := start(t, stub.Options{})
	d := admittedDevice(t, s, alice())
	var serials []string
	for n := range 3 {
		req := submission(enrollmentID(n), csr(t, p256(t)))
		if n > 0 {
			req.Replaces = enrollmentID(n - 1)
		}
		serials = append(serials, d.enroll(t, req))
	}
	_, err := d.Report(t.Context(), &controlv1.ReportRequest{Events: []*controlv1.Event{
		{Id: "1", Code: "certificate-installed", EnrollmentId: enrollmentID(1), Outcome: "success"}, {Id: "2", Code: "other", EnrollmentId: "x"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.Admin.GetCertificate(t.Context(), &controlv1.GetCertificateRequest{Serial: serials[1]})
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for _, line := range got.GetHistory() {
		count[line.GetCode()]++
	}
	if count["issued"] != 3 || count["replaced"] != 2 || count["certificate-installed"] != 1 || count["other"] != 0 {
		t.Errorf("history %v", got.GetHistory())
	}
	if _, err := s.Admin.GetCertificate(t.Context(), &controlv1.GetCertificateRequest{Serial: "4199"}); err == nil {
		t.Error("a certificate that is not there is shown")
	}
}

package service

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"smime-agent/agent/enroll"
	"smime-agent/agent/local"
	"smime-agent/agent/status"
	"smime-agent/platform"
	"smime-agent/platform/platformtest"
	"smime-agent/server-stub/mail"
	"smime-agent/server-stub/mailtest"
	"smime-agent/server-stub/stub"
)

// challenged is an installation whose certificate waits for a code that a real
// mail server on the loopback takes in.
type challenged struct {
	*bench
	post *mailtest.Server
}

func startChallenged(t *testing.T, enter func(ctx context.Context, c *challenged, e platform.Entry) (string, error)) *challenged {
	t.Helper()
	user, err := platform.CurrentUser()
	if err != nil {
		t.Fatal(err)
	}
	post, err := mailtest.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = post.Close() })
	ctx, cancel := context.WithCancel(t.Context())
	c := &challenged{post: post}
	c.bench = &bench{t: t, dir: t.TempDir(), stop: cancel, ended: make(chan error, 1),
		store: platformtest.NewStore("memory"), prompter: &platformtest.Prompter{
			OnEnter: func(ctx context.Context, e platform.Entry) (string, error) { return enter(ctx, c, e) },
		}}
	c.server, err = stub.Start(ctx, stub.Options{
		Mail: mail.Outbox{Mailer: mail.Server{Address: post.Addr, Security: mail.Clear}, From: "pki@example.com"},
		PolicyYAML: `organization: {name: "Example GmbH", country: "DE", identifier: "NTRDE-DER3306.HRB12345"}
rules:
  - departments: ["*"]
    profiles: [employee-sign]
    consent: silent
    stores: [memory]
    mailbox_check: mail
`,
		PeopleCSV: "account,mailbox,given_name,surname,display_name,department\n" + user.Account + ",alice@example.com,Alice,Example,Alice Example,Sales\n",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.server.Close() })
	c.writeSettings()
	c.start(ctx)
	return c
}

// code reads the mail, as its owner does.
func (c *challenged) code() (string, error) {
	var mails []mailtest.Mail
	for n := 0; len(mails) == 0 && n < 3000; n++ {
		time.Sleep(10 * time.Millisecond)
		mails = c.post.Mails()
	}
	if len(mails) != 1 {
		return "", fmt.Errorf("%d mails", len(mails))
	}
	code := regexp.MustCompile(`--code ([A-Z2-7-]+)`).FindStringSubmatch(mails[0].Text)
	if code == nil {
		return "", fmt.Errorf("no code in\n%s", mails[0].Text)
	}
	return code[1], nil
}

func codeAwaited(r status.Report) bool {
	for _, c := range r.Credentials {
		if c.Problem != nil && c.Problem.Code == enroll.CodeChallengePending {
			return true
		}
	}
	return false
}

// TestMailboxCode goes the whole way by the command line's call: the server mails
// a code, the person hands it in on the local socket, first a wrong one, and the
// certificate comes. The dialog that was open meanwhile goes away by itself.
func TestMailboxCode(t *testing.T) {
	opened, closed := make(chan struct{}, 9), make(chan struct{}, 9)
	c := startChallenged(t, func(ctx context.Context, _ *challenged, _ platform.Entry) (string, error) {
		opened <- struct{}{}
		<-ctx.Done()
		closed <- struct{}{}
		return "", ctx.Err()
	})
	c.await("the challenge", codeAwaited)
	<-opened
	for bad, want := range map[string]local.Reason{
		"": local.ReasonInvalid, strings.Repeat("A", 65): local.ReasonInvalid, "WRONG": local.ReasonHint, "\x1b[2J": local.ReasonHint,
	} {
		_, err := c.client.Confirm(t.Context(), "", bad)
		wrong, ok := errors.AsType[*local.Error](err)
		if !ok || wrong.Reason != want || want == local.ReasonHint && (wrong.Code != enroll.CodeChallengePending || wrong.Text == "") {
			t.Errorf("the code %q gives %#v: %v", bad, err, err)
		}
	}
	if r, err := c.client.Status(t.Context()); err != nil || !codeAwaited(r) {
		t.Errorf("after wrong codes: %+v, %v", r, err)
	}
	code, err := c.code()
	if err != nil {
		t.Fatal(err)
	}
	if moved, err := c.client.Confirm(t.Context(), "", code); err != nil || len(moved) != 1 {
		t.Fatalf("confirm: %v, %v", moved, err)
	}
	c.await("the certificate", inState(enroll.Active))
	<-closed
	if n := len(c.prompter.Entries()); n != 1 {
		t.Errorf("asked %d times for the code", n)
	}
}

// TestMailboxCodeInTheDialog types a wrong code, is told so, and types the right one.
func TestMailboxCodeInTheDialog(t *testing.T) {
	c := startChallenged(t, func(_ context.Context, c *challenged, e platform.Entry) (string, error) {
		if e.Text == "alice@example.com wrong=false" {
			return "ABCD-EFGH", nil
		}
		code, err := c.code()
		return "  " + strings.ToLower(code) + "\n", err
	})
	c.await("the certificate", inState(enroll.Active))
	entries := c.prompter.Entries()
	if len(entries) != 2 || entries[1].Text != "alice@example.com wrong=true" || entries[0].Secret {
		t.Errorf("asked for %+v", entries)
	}
}

// TestMailboxCodePutOff closes the dialog: what is waited for is on show, nobody
// is asked again at once, and the command line still works.
func TestMailboxCodePutOff(t *testing.T) {
	asked := make(chan struct{}, 9)
	c := startChallenged(t, func(context.Context, *challenged, platform.Entry) (string, error) {
		asked <- struct{}{}
		return "", fmt.Errorf("%w: the person closed the dialog", platform.ErrDenied)
	})
	<-asked
	for n := 0; !strings.Contains(c.logs(), "mailbox code put off") && n < 3000; n++ {
		time.Sleep(10 * time.Millisecond)
	}
	if _, err := c.client.Confirm(t.Context(), "", "WRONG"); err == nil { // stirs the service
		t.Error("a wrong code is taken")
	}
	if r, err := c.client.Status(t.Context()); err != nil || !codeAwaited(r) {
		t.Errorf("the code is not waited for any more: %v, %v", r, err)
	}
	code, err := c.code()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.client.Confirm(t.Context(), "", code); err != nil {
		t.Fatal(err)
	}
	c.await("the certificate", inState(enroll.Active))
	if n := len(c.prompter.Entries()); n != 1 {
		t.Errorf("asked %d times for the code", n)
	}
}

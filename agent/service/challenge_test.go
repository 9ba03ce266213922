package service

import (
	"context"
	"errors"
	"regexp"
	"testing"
	"time"

	"smime-agent/agent/enroll"
	"smime-agent/agent/status"
	"smime-agent/platform"
	"smime-agent/platform/platformtest"
	"smime-agent/server-stub/mail"
	"smime-agent/server-stub/mailtest"
	"smime-agent/server-stub/server"
	"smime-agent/server-stub/stub"
)

// TestMailboxCode goes the whole way: the server mails a code, the person hands
// it in on the local socket, first a wrong one, and the certificate comes.
func TestMailboxCode(t *testing.T) {
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
	b := &bench{t: t, dir: t.TempDir(), stop: cancel, ended: make(chan error, 1),
		store: platformtest.NewStore("memory"), prompter: &platformtest.Prompter{}}
	b.server, err = stub.Start(ctx, stub.Options{
		Mail: server.Mail{Mailer: mail.Server{Address: post.Addr, Security: mail.Clear}, From: "pki@example.com"},
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
	t.Cleanup(func() { _ = b.server.Close() })
	b.writeSettings()
	b.start(ctx)
	b.await("the challenge", func(r status.Report) bool {
		for _, c := range r.Credentials {
			if c.Problem != nil && c.Problem.Code == enroll.CodeChallengePending {
				return true
			}
		}
		return false
	})
	_, err = b.client.Confirm(ctx, "", "WRONG")
	if wrong, ok := errors.AsType[*enroll.Error](err); err == nil || ok && wrong.Code != enroll.CodeChallengePending {
		t.Errorf("a wrong code gives %v", err)
	}
	var mails []mailtest.Mail
	for n := 0; len(mails) == 0 && n < 500; n++ {
		time.Sleep(10 * time.Millisecond)
		mails = post.Mails()
	}
	if len(mails) != 1 {
		t.Fatalf("%d mails", len(mails))
	}
	code := regexp.MustCompile(`--code ([A-Z2-7-]+)`).FindStringSubmatch(mails[0].Text)
	if code == nil {
		t.Fatalf("no code in\n%s", mails[0].Text)
	}
	if moved, err := b.client.Confirm(ctx, "", code[1]); err != nil || len(moved) != 1 {
		t.Fatalf("confirm: %v, %v", moved, err)
	}
	b.await("the certificate", inState(enroll.Active))
}

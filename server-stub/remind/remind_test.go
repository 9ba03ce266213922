package remind

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/ca"
	"smime-agent/server-stub/mail"
	"smime-agent/server-stub/mailtest"
	"smime-agent/server-stub/policy"
	"smime-agent/server-stub/store"
)

const rules = "organization: {name: Example GmbH, country: DE, identifier: NTRDE-DER3306.HRB12345}\n" +
	"rules: [{departments: ['*'], profiles: [mailbox-dual]}]\n"

// office sends reminders about certificates of p00@example.com and so on, which
// end in twenty days, by a mail server on the loopback.
type office struct {
	*Reminders
	t      *testing.T
	post   *mailtest.Server
	policy *policy.Policy
}

func newOffice(t *testing.T, people int) *office {
	t.Helper()
	db, err := store.OpenBolt(filepath.Join(t.TempDir(), "records.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	post, err := mailtest.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = post.Close() })
	csv, serials := "account,mailbox,department\n", ca.Serials{}
	var entries []*controlv1.LedgerEntry
	for n := range people {
		mailbox := fmt.Sprintf("p%02d@example.com", n)
		csv += fmt.Sprintf("p%02d,%s,Sales\n", n, mailbox)
		reference := serials.Next(time.Now()).String()
		entries = append(entries, &controlv1.LedgerEntry{
			Reference: reference, Serial: reference, Mailbox: mailbox, Type: "mailbox-dual", NotAfter: timestamppb.New(time.Now().Add(20 * day)),
		})
	}
	o := &office{t: t, post: post}
	o.policy, err = policy.Parse(policy.Source{Name: "policy.yaml", Data: []byte(rules)}, policy.Source{Name: "people.csv", Data: []byte(csv)},
		policy.Catalog{Profiles: []string{"mailbox-dual"}, Now: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	o.Reminders = &Reminders{
		Store: db, Now: time.Now, Sent: func(string, int, int) {},
		Mail: mail.Outbox{
			Mailer: mail.Server{Address: post.Addr, Security: mail.Clear}, From: "pki@example.com", Administrator: "admin@example.com",
		},
		Hold:    func(context.Context) (bool, error) { return true, nil },
		Release: func(context.Context) error { return nil },
		Valid: func(visit func(store.Tx, *controlv1.LedgerEntry, Device) bool) error {
			return db.View(func(tx store.Tx) error {
				for _, e := range entries {
					if !visit(tx, e, Device{State: store.Admitted, Last: time.Now()}) {
						break
					}
				}
				return nil
			})
		},
	}
	return o
}

// send gives how many owners and administrators got a mail.
func (o *office) send() (owners, administrators int, err error) {
	o.t.Helper()
	told, err := o.Send(o.t.Context(), o.policy)
	for _, m := range o.post.Mails() {
		if m.To == "admin@example.com" {
			administrators++
		} else {
			owners++
		}
	}
	if told != owners {
		o.t.Errorf("%d owners are said to be told, %d got a mail", told, owners)
	}
	return owners, administrators, err
}

// TestOneMailboxHoldsNobodyUp: while one mailbox takes no mail, be it for days,
// all others and the administrator get theirs, once.
func TestOneMailboxHoldsNobodyUp(t *testing.T) {
	const people = mailBatch + 5
	o := newOffice(t, people)
	o.post.Refuse("p03@example.com", 452)
	owners, administrators, err := o.send()
	if owners != people-1 || administrators != 1 || err == nil || !strings.Contains(err.Error(), "452") {
		t.Errorf("%d owners and %d administrators are told, %v", owners, administrators, err)
	}
	if owners, administrators, err = o.send(); owners+administrators != 0 || err == nil {
		t.Errorf("again: %d owners and %d administrators are told, %v", owners, administrators, err)
	}
	o.post.Refuse("p03@example.com", 0)
	if owners, administrators, err = o.send(); owners != 1 || administrators != 0 || err != nil {
		t.Errorf("once it takes mail: %d owners and %d administrators are told, %v", owners, administrators, err)
	}
}

// TestRefusedSenderCostsNoReminder: a mail server that takes nothing from this
// server, as one does whose settings changed, refuses the server and not the owners:
// they are told when it takes mails again.
func TestRefusedSenderCostsNoReminder(t *testing.T) {
	o := newOffice(t, 3)
	o.post.Refuse("pki@example.com", 550)
	if owners, administrators, err := o.send(); owners+administrators != 0 || err == nil {
		t.Errorf("%d owners and %d administrators are told, %v", owners, administrators, err)
	}
	o.post.Refuse("pki@example.com", 0)
	if owners, administrators, err := o.send(); owners != 3 || administrators != 1 || err != nil {
		t.Errorf("%d owners and %d administrators are told, %v", owners, administrators, err)
	}
}

package coverage_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/coverage"
	"smime-agent/server-stub/policy"
)

func now() time.Time { return time.Date(2028, 2, 29, 23, 59, 59, 0, time.UTC) }

// machine is a device with what it reports and what was issued to it.
type machine struct {
	id      string
	users   []*controlv1.UserPresence
	reports []*controlv1.CredentialReport
	entries []*controlv1.LedgerEntry
}

// fleet is a record in memory.
type fleet []machine

func (f fleet) Certificates(visit func(*controlv1.LedgerEntry, string, *controlv1.SyncRequest)) error {
	for _, m := range f {
		for _, e := range m.entries {
			e.DeviceId = m.id
			visit(e, "admitted", &controlv1.SyncRequest{Users: m.users})
		}
	}
	return nil
}

func (f fleet) Machines(visit func(*controlv1.Device, *controlv1.SyncRequest)) error {
	for _, m := range f {
		visit(&controlv1.Device{Id: m.id, State: "admitted", LastContact: timestamppb.New(now())}, &controlv1.SyncRequest{Users: m.users, Credentials: m.reports})
	}
	return nil
}

func rules(t *testing.T, people string) *policy.Policy {
	t.Helper()
	const yaml = "organization: {name: Example, country: DE, identifier: NTRDE-DER3306.HRB12345}\n" +
		"rules: [{departments: ['*'], profiles: [mailbox-dual]}]\n"
	p, err := policy.Parse(policy.Source{Name: "policy.yaml", Data: []byte(yaml)},
		policy.Source{Name: "people.csv", Data: []byte("account,mailbox,department\n" + people)},
		policy.Catalog{Profiles: []string{"mailbox-dual"}, Now: now()})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// entry is a certificate in force that is proved.
func entry(user, mailbox string, ends time.Time) *controlv1.LedgerEntry {
	return &controlv1.LedgerEntry{
		Status: "valid", Mailbox: mailbox, Mailboxes: []string{mailbox}, Type: "mailbox-dual", User: user, NotAfter: timestamppb.New(ends),
		Proof: &controlv1.ProofReport{Ok: true, At: timestamppb.New(now())},
	}
}

func user(id, account string) *controlv1.UserPresence {
	return &controlv1.UserPresence{User: id, Account: account}
}

func reported(t *testing.T, people string, f fleet) *controlv1.GetCoverageResponse {
	t.Helper()
	got, err := coverage.Report(rules(t, people), f, &controlv1.GetCoverageRequest{All: true}, now())
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// TestOfWhom: a mailbox that was handed on is proved by its new holder's certificate
// only; the one of whom had it before is on another machine.
func TestOfWhom(t *testing.T) {
	year := now().AddDate(1, 0, 0)
	for name, c := range map[string]struct {
		people string
		fleet  fleet
		want   string
	}{
		"its holder":                    {"alice,sales@example.com,S\n", fleet{{id: "a", users: []*controlv1.UserPresence{user("1", `CORP\Alice`)}, entries: []*controlv1.LedgerEntry{entry("1", "Sales@example.com", year)}}}, "proved"},
		"who had it before":             {"alice,sales@example.com,S\n", fleet{{id: "b", users: []*controlv1.UserPresence{user("1", "bob")}, entries: []*controlv1.LedgerEntry{entry("1", "sales@example.com", year)}}}, "missing"},
		"who had it, still at work":     {"alice,sales@example.com,S\n", fleet{{id: "b", users: []*controlv1.UserPresence{user("1", "bob")}, reports: []*controlv1.CredentialReport{{User: "1", Mailbox: "sales@example.com", Profile: "mailbox-dual", State: "wanted"}}}}, "missing"},
		"a user who is not there now":   {"alice,sales@example.com,S\n", fleet{{id: "a", entries: []*controlv1.LedgerEntry{entry("1", "sales@example.com", year)}}}, "proved"},
		"a user whose name is not told": {"alice,sales@example.com,S\n", fleet{{id: "a", users: []*controlv1.UserPresence{user("1", "")}, entries: []*controlv1.LedgerEntry{entry("1", "sales@example.com", year)}}}, "proved"},
	} {
		t.Run(name, func(t *testing.T) {
			got := reported(t, c.people, c.fleet)
			if state := got.GetWishes()[0].GetState(); state != c.want || got.GetTotal().GetWanted() != 1 {
				t.Errorf("it is %s, want %s: %v", state, c.want, got)
			}
		})
	}
}

// TestDepartments: rules do not look at case, so the report has one row where the
// people file writes a department in two ways.
func TestDepartments(t *testing.T) {
	got := reported(t, "alice,a@example.com,Sales\nbob,b@example.com,SALES\ncarl,c@example.com,IT\n", nil)
	if len(got.GetDepartments()) != 2 || got.GetDepartments()[1].GetDepartment() != "Sales" || got.GetDepartments()[1].GetPeople() != 2 ||
		got.GetTotal().GetPeople() != 3 {
		t.Errorf("departments %v", got.GetDepartments())
	}
}

// TestNobody: without policy, and without people, there is a report all the same.
func TestNobody(t *testing.T) {
	for _, p := range []*policy.Policy{nil, rules(t, "")} {
		got, err := coverage.Report(p, fleet{{id: "a"}}, &controlv1.GetCoverageRequest{}, now())
		if err != nil || got.GetTotal().GetWanted() != 0 || got.GetDevices() != 1 || len(got.GetEndingByWeek()) != 13 {
			t.Errorf("nobody: %v, %v", got, err)
		}
	}
}

// TestWeeks: the weeks count from now, over the end of a leap February.
func TestWeeks(t *testing.T) {
	people, f := "", fleet{{id: "a", users: []*controlv1.UserPresence{user("1", "alice")}}}
	for _, c := range []struct {
		mailbox string
		ends    time.Time
	}{
		{"a@example.com", now()}, {"b@example.com", now().Add(7*24*time.Hour - time.Second)}, {"c@example.com", now().Add(7 * 24 * time.Hour)},
		{"d@example.com", now().Add(13*7*24*time.Hour - time.Second)}, {"e@example.com", now().Add(13 * 7 * 24 * time.Hour)},
	} {
		people += "alice," + c.mailbox + ",S\n"
		f[0].entries = append(f[0].entries, entry("1", c.mailbox, c.ends))
	}
	got := reported(t, people, f)
	weeks := got.GetEndingByWeek()
	if weeks[0] != 2 || weeks[1] != 1 || weeks[12] != 1 || got.GetTotal().GetEnding() != 3 || got.GetTotal().GetPeople() != 1 {
		t.Errorf("ending by week %v, soon %d, %d people", weeks, got.GetTotal().GetEnding(), got.GetTotal().GetPeople())
	}
}

package status

import (
	"bytes"
	"encoding/json"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"smime-agent/agent/enroll"
	"smime-agent/agent/text"
)

var now = time.Date(2026, 3, 10, 9, 0, 0, 0, time.UTC)

const day = 24 * time.Hour

func credential(change func(*enroll.Enrollment)) enroll.Enrollment {
	e := enroll.Enrollment{
		ID: "smime-2", Store: "nss:default", State: enroll.Active, Reason: enroll.ReasonFirst,
		Assignment: enroll.Assignment{
			User: "uid:1000", Mailboxes: []string{"ann@corp.example"}, Profile: enroll.Profile{Name: "smime"},
		},
		NotAfter: now.Add(300 * day), RenewAt: now.Add(240 * day), Protection: "software",
		Proof: &enroll.Proof{At: now},
	}
	if change != nil {
		change(&e)
	}
	return e
}

func facts(change func(*Facts)) Facts {
	f := Facts{
		Version: "1.0.0", Started: now.Add(-time.Hour), Assigned: []string{"uid:1000"},
		Organization: Organization{Name: "Contoso", Contact: "it@corp.example"},
		Users:        []User{{ID: "uid:1000", Account: "ann", Since: now.Add(-time.Hour)}},
		Device: Device{
			ID: "d1", Joined: true, IdentityFrom: now.Add(-10 * day), IdentityEnds: now.Add(20 * day),
			Server: "control.corp.example:443", PolicyRevision: "7", LastContact: now,
		},
	}
	if change != nil {
		change(&f)
	}
	return f
}

func codes(r Report) []enroll.Code {
	found := []enroll.Code{}
	for _, c := range r.Conditions {
		found = append(found, c.Code)
	}
	return found
}

func problem(code enroll.Code, age time.Duration) *enroll.Problem {
	return &enroll.Problem{Code: code, Kind: enroll.Waiting, Since: now.Add(-age), Hint: "hint", Detail: "not for people"}
}

func mail(accounts ...enroll.MailAccount) func(*enroll.Enrollment) {
	return func(e *enroll.Enrollment) { e.Mail = &enroll.Preparation{Accounts: accounts} }
}

func TestBuildFindsConditions(t *testing.T) {
	cases := []struct {
		name   string
		facts  func(*Facts)
		change func(*enroll.Enrollment)
		want   []enroll.Code
		exit   int
	}{
		{"all well", nil, nil, nil, 0},
		{"ending", nil, func(e *enroll.Enrollment) { e.NotAfter, e.RenewAt = now.Add(29*day), now.Add(-31*day) }, []enroll.Code{CertificateEnding}, 1},
		{"not yet ending", nil, func(e *enroll.Enrollment) { e.NotAfter, e.RenewAt = now.Add(31*day), now.Add(-29*day) }, nil, 0},
		{"short life, on time", nil, func(e *enroll.Enrollment) { e.NotAfter, e.RenewAt = now.Add(9*day), now.Add(2*day) }, nil, 0},
		{"short life, late", nil, func(e *enroll.Enrollment) { e.NotAfter, e.RenewAt = now.Add(2*day), now.Add(-5*day) }, []enroll.Code{CertificateEnding}, 1},
		{"ended", nil, func(e *enroll.Enrollment) { e.NotAfter = now }, []enroll.Code{CertificateEnded}, 2},
		{"ended and revoked", nil, func(e *enroll.Enrollment) { e.NotAfter, e.Revoked = now, true }, []enroll.Code{CertificateRevoked}, 2},
		{"ended but kept", nil, func(e *enroll.Enrollment) { e.State, e.NotAfter = enroll.Kept, now.Add(-day) }, nil, 0},
		{"ended but unwanted", nil, func(e *enroll.Enrollment) { e.NotAfter, e.Unwanted = now, true }, nil, 0},
		{"waiting", nil, func(e *enroll.Enrollment) {
			e.State, e.Problem = enroll.Wanted, problem(enroll.CodeConsentPending, 0)
		}, []enroll.Code{enroll.CodeConsentPending}, 0},
		{"young trouble does not show", nil, func(e *enroll.Enrollment) { e.Problem = problem(enroll.CodeStoreFailed, time.Minute) }, nil, 0},
		{"old trouble shows", nil, func(e *enroll.Enrollment) { e.Problem = problem(enroll.CodeStoreFailed, time.Hour) }, []enroll.Code{enroll.CodeStoreFailed}, 1},
		{"not joined", func(f *Facts) { f.Device = Device{} }, nil, []enroll.Code{NotJoined}, 2},
		{"not joined, still starting", func(f *Facts) { f.Device, f.Started, f.Starting = Device{}, now, true }, nil, []enroll.Code{Restarting}, 0},
		{"not joined, young trouble shows", func(f *Facts) {
			f.Device, f.Raised = Device{}, []Raised{{Code: enroll.CodeControlUnreachable, Since: now}}
		}, nil, []enroll.Code{enroll.CodeControlUnreachable}, 1},
		{"joined, young trouble does not", func(f *Facts) { f.Raised = []Raised{{Code: enroll.CodeControlUnreachable, Since: now}} }, nil, nil, 0},
		{"another setting does not explain not joined", func(f *Facts) {
			f.Device, f.Raised = Device{}, []Raised{{Code: SettingsInvalid}}
		}, nil, []enroll.Code{NotJoined, SettingsInvalid}, 2},
		{"unconfigured explains not joined", func(f *Facts) { f.Device = Device{}; f.Raised = []Raised{{Code: Unconfigured}} }, nil, []enroll.Code{Unconfigured}, 2},
		{"refused explains not joined", func(f *Facts) { f.Device = Device{}; f.Raised = []Raised{{Code: TokenRefused}} }, nil, []enroll.Code{TokenRefused}, 2},
		{"no policy", func(f *Facts) { f.Device.PolicyRevision = "" }, nil, []enroll.Code{PolicyMissing}, 1},
		{"clock", func(f *Facts) { f.Device.ClockOffset = -400 }, nil, []enroll.Code{ClockWrong}, 1},
		{"clock, tolerable", func(f *Facts) { f.Device.ClockOffset = 200 }, nil, nil, 0},
		{"identity ends", func(f *Facts) { f.Device.IdentityEnds = now.Add(3 * day) }, nil, []enroll.Code{IdentityEnding}, 1},
		{"identity ended", func(f *Facts) { f.Device.IdentityEnds = now.Add(-day) }, nil, []enroll.Code{IdentityExpired}, 2},
		{"nothing assigned", func(f *Facts) { f.Assigned = nil }, nil, []enroll.Code{NothingAssigned}, 0},
		{"mail program open", nil, mail(enroll.MailAccount{Title: "Thunderbird", State: enroll.MailBusy}), []enroll.Code{enroll.CodeMailRestart}, 0},
		{"mail program just written", nil, mail(enroll.MailAccount{State: enroll.MailRestart, Since: now}), nil, 0},
		{"two accounts of one program, one of another", nil, mail(
			enroll.MailAccount{Title: "Outlook", State: enroll.MailRestart}, enroll.MailAccount{Title: "Outlook", State: enroll.MailBusy},
			enroll.MailAccount{Title: "Thunderbird", State: enroll.MailManaged}), []enroll.Code{enroll.CodeMailManaged, enroll.CodeMailRestart}, 1},
		{"mail program ready, but by hand", nil, mail(enroll.MailAccount{State: enroll.MailReady, ByHand: []string{"sign"}}), []enroll.Code{enroll.CodeMailByHand}, 0},
		{"mail program served from its own store", nil, mail(enroll.MailAccount{State: enroll.MailOtherStore, Store: "nss:default"}), nil, 0},
		{"mail program not served", nil, mail(enroll.MailAccount{State: enroll.MailOtherStore, Store: "nss:x"}), []enroll.Code{enroll.CodeMailOtherStore}, 0},
		{"mail programs not looked at", nil, func(e *enroll.Enrollment) {
			e.Mail = &enroll.Preparation{Problem: problem(enroll.CodeMailFailed, time.Hour)}
		}, []enroll.Code{enroll.CodeMailFailed}, 1},
		{"mail programs as before", nil, func(e *enroll.Enrollment) {
			e.Mail = &enroll.Preparation{Undone: true, Accounts: []enroll.MailAccount{{Title: "Thunderbird", State: enroll.MailUndone}}}
		}, []enroll.Code{enroll.CodeMailUndone}, 0},
		{"partners just not filed", func(f *Facts) { f.Raised = []Raised{{Code: PartnersNotFiled, User: "uid:1000", Since: now}} }, nil, nil, 0},
		{"partners not filed", func(f *Facts) {
			f.Raised = []Raised{{Code: PartnersNotFiled, User: "uid:1000", Since: now.Add(-time.Hour)}}
		}, nil,
			[]enroll.Code{PartnersNotFiled}, 1},
		{"starting", func(f *Facts) { f.Starting = true }, nil, []enroll.Code{Restarting}, 0},
		{"unknown word is not hidden", func(f *Facts) { f.Raised = []Raised{{Code: "brand-new", Since: now}} }, nil, []enroll.Code{"brand-new"}, 2},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := Build(facts(c.facts), []enroll.Enrollment{credential(c.change)}, now)
			if got := codes(r); !slices.Equal(got, c.want) && len(got)+len(c.want) > 0 {
				t.Errorf("conditions %v, want %v", got, c.want)
			}
			if r.ExitCode() != c.exit {
				t.Errorf("exit code %d, want %d", r.ExitCode(), c.exit)
			}
		})
	}
}

// TestProgramUsesOldCertificate: what an open program is in the way of weighs more
// when the certificate that it goes on with is about to end.
func TestProgramUsesOldCertificate(t *testing.T) {
	for _, c := range []struct {
		name  string
		left  time.Duration // of the old certificate
		state enroll.MailState
		want  enroll.Code
		exit  int
	}{
		{"long before the end", 40 * day, enroll.MailBusy, enroll.CodeMailRestart, 0},
		{"near the end", 20 * day, enroll.MailBusy, enroll.CodeMailOldCertificate, 1},
		{"written, not yet known to the program", 20 * day, enroll.MailRestart, enroll.CodeMailOldCertificate, 1},
		{"after the end", -day, enroll.MailBusy, enroll.CodeMailOldCertificate, 1},
		{"near the end, but done", 20 * day, enroll.MailReady, "", 0},
		{"near the end, but undone", 20 * day, enroll.MailUndone, "", 0},
	} {
		old := credential(func(e *enroll.Enrollment) {
			e.ID, e.State, e.NotAfter, e.RenewAt = "smime-00", enroll.Kept, now.Add(c.left), now.Add(c.left-60*day)
		})
		renewed := credential(mail(enroll.MailAccount{Title: "Thunderbird", State: c.state, Since: now.Add(-time.Hour)}))
		renewed.Replaces = old.ID
		r := Build(facts(nil), []enroll.Enrollment{old, renewed}, now)
		var want []enroll.Code
		if c.want != "" {
			want = []enroll.Code{c.want}
		}
		if got := codes(r); !slices.Equal(got, want) || r.ExitCode() != c.exit {
			t.Errorf("%s: %v, exit code %d", c.name, got, r.ExitCode())
		}
		if c.want == enroll.CodeMailOldCertificate && (r.Conditions[0].Program != "Thunderbird" || !strings.Contains(r.Conditions[0].Text, old.NotAfter.Local().Format(time.DateOnly))) {
			t.Errorf("%s: %+v", c.name, r.Conditions[0])
		}
	}
}

// TestProgramsForPeople: each account in a line, with what is left to the person
// and what he chose himself.
func TestProgramsForPeople(t *testing.T) {
	e := credential(mail(
		enroll.MailAccount{Program: "thunderbird", Title: "Thunderbird", ID: "x.default/id1", Mailbox: "ann@corp.example", State: enroll.MailReady,
			Own: []string{"signing-certificate", "encrypt"}},
		enroll.MailAccount{Program: "outlook", Title: "Outlook", ID: "16.0/Work\x1b[2J", Mailbox: "Ann@corp.example", State: enroll.MailBusy, ByHand: []string{"clear-sign"}}))
	for locale, lines := range map[string][]string{
		"en": {
			"MAIL PROGRAM  MAILBOX           ACCOUNT        STATE                    LEFT TO YOU              YOUR CHOICE",
			"Thunderbird   ann@corp.example  x.default/id1  ready                    -                        certificate for signing, encrypt by default",
			"Outlook       Ann@corp.example  16.0/Work[2J   waits until it is closed  readable without S/MIME  -",
		},
		"zh-CN": {"已就绪", "等待程序关闭", "明文签名", "签名证书, 默认加密"},
	} {
		var page bytes.Buffer
		if err := Text(&page, Build(facts(nil), []enroll.Enrollment{e}, now), Options{Locale: locale}); err != nil {
			t.Fatal(err)
		}
		for _, line := range lines {
			if squeezed(page.String(), line) {
				t.Errorf("%s: no line %q in\n%s", locale, line, page.String())
			}
		}
	}
	var page bytes.Buffer
	plain := credential(mail(enroll.MailAccount{Title: "Thunderbird", State: enroll.MailReady}))
	if err := Text(&page, Build(facts(nil), []enroll.Enrollment{plain}, now), Options{Locale: "en"}); err != nil || strings.Contains(page.String(), "LEFT TO YOU") {
		t.Errorf("a column that nobody needs: %v\n%s", err, page.String())
	}
}

// squeezed says that a line is not in a page, however wide the columns are.
func squeezed(page, line string) bool {
	return !strings.Contains(strings.Join(strings.Fields(page), " "), strings.Join(strings.Fields(line), " "))
}

func TestMachineConditionsShowOnce(t *testing.T) {
	a := credential(func(e *enroll.Enrollment) { e.Problem = problem(enroll.CodeControlUnreachable, time.Hour) })
	b := credential(func(e *enroll.Enrollment) {
		e.ID, e.Problem = "smime-3", problem(enroll.CodeControlUnreachable, 2*time.Hour)
	})
	r := Build(facts(nil), []enroll.Enrollment{a, b}, now)
	if len(r.Conditions) != 1 || !r.Conditions[0].Since.Equal(now.Add(-2*time.Hour)) || r.Conditions[0].User != "" {
		t.Errorf("%+v", r.Conditions)
	}
	if !strings.Contains(r.Conditions[0].Text, "control.corp.example:443") {
		t.Error(r.Conditions[0].Text)
	}
}

func TestADetailTellsMore(t *testing.T) {
	generic := text.For(text.Chinese).Explain(string(enroll.CodeStoreDenied), text.About{})
	for _, c := range []struct {
		code       enroll.Code
		hint, want string
	}{
		{enroll.CodeRequestRefused, "The key is too short.", "The key is too short."},
		{enroll.CodeStoreDenied, generic.Text + " " + generic.Cure, ""},
		{enroll.CodeNobodyToAsk, "There is no screen.", ""},
	} {
		e := credential(func(e *enroll.Enrollment) {
			e.State, e.Problem = enroll.Wanted, &enroll.Problem{Code: c.code, Hint: c.hint, Since: now.Add(-time.Hour)}
		})
		r := Build(facts(nil), []enroll.Enrollment{e}, now)
		if len(r.Conditions) != 1 || r.Conditions[0].Detail != c.want || r.Credentials[0].Problem.Hint != c.hint {
			t.Errorf("%s: %+v", c.code, r.Conditions)
		}
	}
}

func TestHidingIsPerMailbox(t *testing.T) {
	ended := credential(func(e *enroll.Enrollment) { e.NotAfter = now })
	other := credential(func(e *enroll.Enrollment) {
		e.ID, e.Assignment.Mailboxes = "smime-3", []string{"bob@corp.example"}
		e.Problem = problem(enroll.CodeProofFailed, time.Hour)
	})
	got := codes(Build(facts(nil), []enroll.Enrollment{ended, other}, now))
	if !slices.Equal(got, []enroll.Code{CertificateEnded, enroll.CodeProofFailed}) {
		t.Error(got)
	}
}

func TestWhatAnotherCarriesOnIsSilent(t *testing.T) {
	refused := credential(func(e *enroll.Enrollment) {
		e.ID, e.State, e.Problem = "smime-1", enroll.Over, problem(enroll.CodeRequestRefused, time.Hour)
	})
	if got := codes(Build(facts(nil), []enroll.Enrollment{refused}, now)); !slices.Equal(got, []enroll.Code{enroll.CodeRequestRefused}) {
		t.Error(got)
	}
	if got := codes(Build(facts(nil), []enroll.Enrollment{refused, credential(nil)}, now)); len(got) != 0 {
		t.Error(got)
	}
}

func TestForShowsNothingOfOthers(t *testing.T) {
	mine := credential(func(e *enroll.Enrollment) { e.NotAfter = now })
	others := credential(func(e *enroll.Enrollment) {
		e.ID, e.Assignment.User, e.Assignment.Mailboxes = "smime-9", "uid:1001", []string{"secret@corp.example"}
		e.NotAfter = now
	})
	f := facts(func(f *Facts) {
		f.Users = append(f.Users, User{ID: "uid:1001", Account: "mallory"})
		f.Raised = []Raised{{Code: CertificateRevoked, User: "uid:1001"}, {Code: enroll.CodeInternal}, {Code: SettingsInvalid}}
	})
	whole := Build(f, []enroll.Enrollment{mine, others}, now)
	if got := len(whole.Credentials); got != 2 {
		t.Fatal(got)
	}
	part := whole.For("uid:1000")
	raw, err := json.Marshal(part)
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"uid:1001", "secret@", "mallory", "smime-9", "internal-error"} {
		if bytes.Contains(raw, []byte(word)) {
			t.Errorf("%q in %s", word, raw)
		}
	}
	if got := codes(part); !slices.Equal(got, []enroll.Code{CertificateEnded, SettingsInvalid}) {
		t.Error(got)
	}
	if len(whole.Credentials) != 2 || len(whole.Users) != 2 {
		t.Error("the whole report was changed")
	}
}

func TestReportKeepsTheLogsDetailBack(t *testing.T) {
	raw, err := json.Marshal(Build(facts(nil), []enroll.Enrollment{credential(func(e *enroll.Enrollment) {
		e.Problem, e.CSR = problem(enroll.CodeStoreDenied, time.Hour), []byte("csr")
	})}, now))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(raw, []byte("not for people")) || !bytes.Contains(raw, []byte(`"hint":"hint"`)) {
		t.Error(string(raw))
	}
}

func TestEverySeverityHasAnExitCode(t *testing.T) {
	want := map[Severity]int{OK: 0, Info: 0, Warning: 1, Error: 2, Unknown: 3, "new-word": 3}
	for s, code := range want {
		if got := (Report{Severity: s}).ExitCode(); got != code {
			t.Errorf("%s: %d", s, got)
		}
	}
	if Unreachable("1", now).ExitCode() != 3 {
		t.Error("unreachable")
	}
}

// TestEveryConditionIsExplainedAndInTheRunbook starts from the definitions; that
// they are all that anybody says, a test of agent/service sees.
func TestEveryConditionIsExplainedAndInTheRunbook(t *testing.T) {
	var defined []string
	for _, d := range Definitions() {
		defined = append(defined, string(d.Code))
	}
	if len(defined) < 40 {
		t.Fatalf("only %d codes found", len(defined))
	}
	for _, d := range Definitions() {
		for _, by := range d.HiddenBy {
			if !slices.Contains(defined, string(by)) {
				t.Errorf("%s is hidden by %s, which does not exist", d.Code, by)
			}
		}
		for _, tag := range []string{text.English, text.Chinese} {
			if !text.For(tag).Knows(string(d.Code)) {
				t.Errorf("%s has no text in %s", d.Code, tag)
			}
		}
	}
	for _, book := range []string{"../../docs/runbook.md", "../../docs/runbook.zh-CN.md"} {
		raw, err := os.ReadFile(book)
		if err != nil {
			t.Fatal(err)
		}
		var entries []string
		for _, m := range regexp.MustCompile("(?m)^### `([^`]+)`").FindAllStringSubmatch(string(raw), -1) {
			entries = append(entries, m[1])
		}
		compare(t, book, defined, entries)
	}
}

func compare(t *testing.T, what string, want, got []string) {
	t.Helper()
	for _, w := range want {
		if !slices.Contains(got, w) {
			t.Errorf("%s: %s is missing", what, w)
		}
	}
	for i, g := range got {
		if !slices.Contains(want, g) {
			t.Errorf("%s: %s does not exist", what, g)
		}
		if slices.Contains(got[:i], g) {
			t.Errorf("%s: %s is there twice", what, g)
		}
	}
}

// Two conditions that hide each other would both vanish.
func TestHidingHasNoCircle(t *testing.T) {
	var walk func(code enroll.Code, path []enroll.Code)
	walk = func(code enroll.Code, path []enroll.Code) {
		if slices.Contains(path, code) {
			t.Fatalf("circle: %v", append(path, code))
		}
		for _, by := range define(code).HiddenBy {
			walk(by, append(slices.Clone(path), code))
		}
	}
	for _, d := range Definitions() {
		walk(d.Code, nil)
	}
}

func TestEveryFieldIsDocumented(t *testing.T) {
	raw, err := os.ReadFile("../../docs/status.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[reflect.Type]bool{}
	var walk func(reflect.Type)
	walk = func(v reflect.Type) {
		switch v.Kind() {
		case reflect.Pointer, reflect.Slice:
			walk(v.Elem())
			return
		case reflect.Struct:
		default:
			return
		}
		if seen[v] || v == reflect.TypeFor[time.Time]() {
			return
		}
		seen[v] = true
		for field := range v.Fields() {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if name == "-" { // not in the report
				continue
			}
			if name == "" || (!bytes.Contains(raw, []byte("`"+name+"`")) && !bytes.Contains(raw, []byte(`"`+name+`"`))) {
				t.Errorf("%s.%s (%q) is not in docs/status.md", v.Name(), field.Name, name)
			}
			walk(field.Type)
		}
	}
	for _, v := range []reflect.Type{reflect.TypeFor[Report](), reflect.TypeFor[Checks](), reflect.TypeFor[Settings]()} {
		walk(v)
	}
	if len(seen) < 10 {
		t.Errorf("only %d types looked at", len(seen))
	}
}

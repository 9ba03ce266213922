package status

import (
	"cmp"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"slices"
	"time"

	"smime-agent/agent/enroll"
	"smime-agent/agent/text"
)

// Thresholds of conditions that follow from the facts.
const (
	// endingSoon is when an unrenewed certificate becomes a warning; renewal
	// begins about 60 days before the end.
	endingSoon = 30 * 24 * time.Hour
	// clockTolerance is how far our clock may be off before times in
	// certificates are judged wrongly.
	clockTolerance = 5 * time.Minute
	// identityEndingSoon serves where the start of the identity is not known.
	identityEndingSoon = 7 * 24 * time.Hour
)

// Facts is what the service knows beside the enrollments.
type Facts struct {
	Version      string
	Device       Device
	Organization Organization
	Users        []User
	// Assigned are the users to whom policy gives a mailbox.
	Assigned []string
	// Started is when the service started; Starting says that it is not done.
	Started  time.Time
	Starting bool
	// Mail is what looks through people's old mail found, brought up to date with
	// what is in their stores now.
	Mail []enroll.MailCheck
	// Raised are conditions that the service has seen itself.
	Raised []Raised
}

// Raised is a condition that somebody in the service reports. User and Mailbox
// are empty for one of the machine. Detail must be fit for people's eyes.
type Raised struct {
	Code       enroll.Code
	User       string
	Mailbox    string
	Program    string
	Enrollment enroll.ID
	Detail     string
	Since      time.Time
	Until      time.Time
}

// Build makes the report of all users.
func Build(f Facts, enrollments []enroll.Enrollment, now time.Time) Report {
	b := builder{facts: f, now: now, english: text.For(text.English), byID: map[enroll.ID]enroll.Enrollment{}}
	for _, e := range enrollments {
		b.byID[e.ID] = e
	}
	r := Report{
		Version: f.Version, At: now, Device: f.Device, Organization: f.Organization,
		Users:       append([]User{}, f.Users...),
		Credentials: make([]Credential, 0, len(enrollments)), OldMail: f.Mail,
	}
	for _, e := range enrollments {
		r.Credentials = append(r.Credentials, b.credential(e))
		b.judge(e)
	}
	b.judgeDevice()
	b.judgeUsers()
	b.judgeMail()
	for _, raised := range f.Raised {
		b.raise(raised)
	}
	r.Conditions = visible(b.found, f.Device.Joined, now)
	slices.SortFunc(r.Conditions, order)
	slices.SortFunc(r.Credentials, func(a, b Credential) int {
		return cmp.Or(cmp.Compare(a.User, b.User), cmp.Compare(a.Mailbox, b.Mailbox), cmp.Compare(b.ID, a.ID))
	})
	r.Severity = worst(r.Conditions)
	return r
}

type builder struct {
	facts   Facts
	now     time.Time
	english *text.Text
	byID    map[enroll.ID]enroll.Enrollment
	found   []Condition
}

// raise adds a condition; one of the machine only once, with its earliest Since.
func (b *builder) raise(r Raised) {
	d := define(r.Code)
	if d.Machine {
		r.User, r.Mailbox, r.Enrollment = "", "", ""
	}
	for i, c := range b.found {
		if c.Code == r.Code && c.User == r.User && c.Mailbox == r.Mailbox && c.Program == r.Program && c.Enrollment == r.Enrollment {
			if r.Since.Before(c.Since) {
				b.found[i].Since = r.Since
			}
			b.found[i].Detail = cmp.Or(c.Detail, r.Detail)
			return
		}
	}
	c := Condition{
		Code: r.Code, Severity: d.Severity, User: r.User, Account: b.account(r.User), Mailbox: r.Mailbox, Program: r.Program,
		Enrollment: r.Enrollment, Detail: r.Detail, Since: r.Since, Until: r.Until,
	}
	e := explain(b.english, c, b.facts.Device, b.facts.Organization)
	c.Title, c.Text, c.Cure = e.Title, e.Text, e.Cure
	b.found = append(b.found, c)
}

// explain puts a condition into a language.
func explain(t *text.Text, c Condition, d Device, o Organization) text.Explanation {
	about := text.About{User: cmp.Or(c.Account, c.User), Mailbox: c.Mailbox, Program: c.Program, Server: d.Server, Contact: o.Contact}
	if !c.Until.IsZero() {
		about.Date = c.Until.Local().Format(time.DateOnly)
	}
	return t.Explain(string(c.Code), about)
}

func (b *builder) account(user string) string {
	for _, u := range b.facts.Users {
		if u.ID == user {
			return u.Account
		}
	}
	return ""
}

// judge finds what is wrong with one enrollment.
func (b *builder) judge(e enroll.Enrollment) {
	about := Raised{User: e.Assignment.User, Mailbox: e.Mailbox(), Enrollment: e.ID}
	if p := e.Problem; p != nil && (e.State == enroll.Kept || !b.superseded(e)) {
		r := about
		r.Code, r.Since = p.Code, p.Since
		if !define(p.Code).Machine && adds(p) {
			r.Detail = p.Hint // one user's hint is not for the others' eyes
		}
		b.raise(r)
	}
	if inUse := e.State == enroll.Active || e.State == enroll.Installed || e.State == enroll.Prepared; !inUse || e.Unwanted {
		return
	}
	b.judgePrograms(e)
	if e.Revoked {
		r := about
		r.Code = CertificateRevoked
		b.raise(r)
	}
	if e.NotAfter.IsZero() {
		return
	}
	about.Until = e.NotAfter
	if !b.now.Before(e.NotAfter) {
		about.Code, about.Since = CertificateEnded, e.NotAfter
		b.raise(about)
		return
	}
	if warnAt := e.NotAfter.Add(-endingWindow(e)); !b.now.Before(warnAt) {
		about.Code, about.Since = CertificateEnding, warnAt
		b.raise(about)
	}
}

// adds says that a problem's hint tells more than the condition's own sentences,
// which name the person and the mailbox. A helper takes its hints from the same
// catalog, in its user's language.
func adds(p *enroll.Problem) bool {
	switch p.Code {
	case enroll.CodeUserAbsent, enroll.CodeConsentPostponed, enroll.CodeConsentDeclined, enroll.CodeNobodyToAsk,
		enroll.CodeApprovalPending, enroll.CodeAuthorityPending:
		return false
	default:
	}
	for _, tag := range []string{text.English, text.Chinese} {
		if e := text.For(tag).Explain(string(p.Code), text.About{}); p.Hint == e.Text+" "+e.Cure {
			return false
		}
	}
	return true
}

// superseded says that another enrollment carries on, whose problems count.
func (b *builder) superseded(e enroll.Enrollment) bool {
	if e.ReplacedBy != "" && e.State != enroll.Active {
		return true
	}
	if e.State != enroll.Over {
		return false
	}
	for _, other := range b.byID {
		sameSlot := other.Assignment.User == e.Assignment.User && other.Mailbox() == e.Mailbox() && other.Store == e.Store
		if sameSlot && other.ID > e.ID && other.Assignment.Profile.Name == e.Assignment.Profile.Name {
			return true // IDs sort by age
		}
	}
	return false
}

// endingWindow is shorter for short-lived certificates: half of the time in
// which renewal ought to have happened.
func endingWindow(e enroll.Enrollment) time.Duration {
	if e.RenewAt.IsZero() || !e.RenewAt.Before(e.NotAfter) {
		return endingSoon
	}
	return min(endingSoon, e.NotAfter.Sub(e.RenewAt)/2)
}

func (b *builder) judgeDevice() {
	d, f := b.facts.Device, b.facts
	if f.Starting {
		b.raise(Raised{Code: Restarting, Since: f.Started})
	}
	if !d.Joined {
		b.raise(Raised{Code: NotJoined, Since: f.Started})
		return
	}
	if d.PolicyRevision == "" {
		b.raise(Raised{Code: PolicyMissing, Since: f.Started})
	}
	if off := time.Duration(d.ClockOffset * float64(time.Second)); off.Abs() > clockTolerance {
		b.raise(Raised{Code: ClockWrong, Detail: "server minus this computer: " + off.Round(time.Second).String()})
	}
	b.judgeIdentity(d)
}

func (b *builder) judgeIdentity(d Device) {
	if d.IdentityEnds.IsZero() {
		return
	}
	window := identityEndingSoon
	if !d.IdentityFrom.IsZero() {
		// Renewal is due at half life; a quarter before the end it is late.
		window = d.IdentityEnds.Sub(d.IdentityFrom) / 4
	}
	switch warnAt := d.IdentityEnds.Add(-window); {
	case !b.now.Before(d.IdentityEnds):
		b.raise(Raised{Code: IdentityExpired, Since: d.IdentityEnds, Until: d.IdentityEnds})
	case !b.now.Before(warnAt):
		b.raise(Raised{Code: IdentityEnding, Since: warnAt, Until: d.IdentityEnds})
	}
}

func (b *builder) judgeUsers() {
	if b.facts.Device.PolicyRevision == "" {
		return
	}
	for _, u := range b.facts.Users {
		if !slices.Contains(b.facts.Assigned, u.ID) {
			b.raise(Raised{Code: NothingAssigned, User: u.ID, Since: u.Since})
		}
	}
}

func (b *builder) credential(e enroll.Enrollment) Credential {
	c := Credential{
		ID: e.ID, User: e.Assignment.User, Account: b.account(e.Assignment.User),
		Mailbox: e.Mailbox(), Mailboxes: e.Assignment.Mailboxes, Profile: e.Assignment.Profile.Name,
		Store: e.Store, Protection: e.Protection, Algorithm: e.Algorithm,
		State: e.State, Reason: e.Reason, NotAfter: e.NotAfter, RenewAt: e.RenewAt,
		Created: e.Created, Changed: e.Changed, Replaces: e.Replaces, ReplacedBy: e.ReplacedBy,
		Revoked: e.Revoked, Unwanted: e.Unwanted, Proof: e.Proof, NextAttempt: e.NextAttempt,
	}
	if e.Mail != nil {
		c.Mail = mailOf(e)
	}
	if e.Consent != (enroll.Consent{}) {
		c.Consent = &e.Consent
	}
	if p := e.Problem; p != nil {
		c.Problem = &Problem{Kind: p.Kind, Code: p.Code, Hint: p.Hint, Since: p.Since}
	}
	if len(e.Chain) > 0 {
		describe(&c, e.Chain[0])
	}
	c.Key, c.NeededBy = e.KeyName(), b.neededBy(e)
	return c
}

// describe adds what the certificate says. One that does not parse was refused
// before it could be saved; then these fields stay empty.
func describe(c *Credential, der []byte) {
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return
	}
	sum := sha256.Sum256(der)
	c.Serial, c.Fingerprint = leaf.SerialNumber.Text(16), hex.EncodeToString(sum[:])
	c.Issuer, c.NotBefore, c.KeyID = leaf.Issuer.String(), leaf.NotBefore, hex.EncodeToString(leaf.SubjectKeyId)
}

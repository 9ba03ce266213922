package status

import (
	"slices"
	"strings"
	"time"

	"smime-agent/agent/enroll"
)

// Report is the state of everything at one moment. Its JSON form is described
// in docs/status.md and only grows.
type Report struct {
	Version      string       `json:"version"`
	At           time.Time    `json:"at"`
	Severity     Severity     `json:"severity"`
	Device       Device       `json:"device"`
	Organization Organization `json:"organization"`
	Users        []User       `json:"users"`
	Credentials  []Credential `json:"credentials"`
	Conditions   []Condition  `json:"conditions"`
	// OldMail is what looks through old mail found, newest last.
	OldMail []enroll.MailCheck `json:"old_mail,omitempty"`
}

// Device is this machine as central management knows it.
type Device struct {
	ID   string `json:"id,omitempty"`
	Name string `json:"name,omitempty"`
	// Joined says that central management has admitted the machine.
	Joined       bool      `json:"joined"`
	IdentityFrom time.Time `json:"identity_from,omitzero"`
	IdentityEnds time.Time `json:"identity_ends,omitzero"`
	Server       string    `json:"server,omitempty"`
	LastContact  time.Time `json:"last_contact,omitzero"`
	NextContact  time.Time `json:"next_contact,omitzero"`
	// ClockOffset is the server's clock minus ours, in seconds.
	ClockOffset    float64 `json:"clock_offset_seconds"`
	PolicyRevision string  `json:"policy_revision,omitempty"`
}

// Organization is whom the policy names.
type Organization struct {
	Name    string `json:"name,omitempty"`
	Contact string `json:"contact,omitempty"`
}

// User is somebody whose helper is attached.
type User struct {
	// ID is the system's identity of the account: "uid:1000", a SID.
	ID      string `json:"id"`
	Account string `json:"account,omitempty"`
	UPN     string `json:"upn,omitempty"`
	Locale  string `json:"locale,omitempty"`
	// Helper is the helper's version.
	Helper string    `json:"helper,omitempty"`
	Since  time.Time `json:"since,omitzero"`
}

// Credential is one enrollment as people see it.
type Credential struct {
	ID         enroll.ID     `json:"id"`
	User       string        `json:"user"`
	Account    string        `json:"account,omitempty"`
	Mailbox    string        `json:"mailbox"`
	Mailboxes  []string      `json:"mailboxes,omitempty"`
	Profile    string        `json:"profile"`
	Store      string        `json:"store"`
	Protection string        `json:"protection,omitempty"`
	Algorithm  string        `json:"algorithm,omitempty"`
	State      enroll.State  `json:"state"`
	Reason     enroll.Reason `json:"reason"`
	// Serial is the certificate's number and Fingerprint its SHA-256, both in
	// lower-case hex.
	Serial      string `json:"serial,omitempty"`
	Fingerprint string `json:"fingerprint,omitempty"`
	Issuer      string `json:"issuer,omitempty"`
	// KeyID is the certificate's subject key identifier in lower-case hex, and Key
	// the name of the key in its store.
	KeyID string    `json:"key_id,omitempty"`
	Key   enroll.ID `json:"key,omitempty"`
	// NeededBy is how many messages need this key, as far as mail was looked through.
	NeededBy   int             `json:"needed_by_messages,omitempty"`
	NotBefore  time.Time       `json:"not_before,omitzero"`
	NotAfter   time.Time       `json:"not_after,omitzero"`
	RenewAt    time.Time       `json:"renew_at,omitzero"`
	Created    time.Time       `json:"created,omitzero"`
	Changed    time.Time       `json:"changed,omitzero"`
	Replaces   enroll.ID       `json:"replaces,omitempty"`
	ReplacedBy enroll.ID       `json:"replaced_by,omitempty"`
	Revoked    bool            `json:"revoked,omitempty"`
	Unwanted   bool            `json:"unwanted,omitempty"`
	Consent    *enroll.Consent `json:"consent,omitempty"`
	Proof      *enroll.Proof   `json:"proof,omitempty"`
	// Mail are the accounts of the user's mail programs.
	Mail        []enroll.MailAccount `json:"mail,omitempty"`
	Problem     *Problem             `json:"problem,omitempty"`
	NextAttempt time.Time            `json:"next_attempt,omitzero"`
}

// Problem is what holds a credential up. The log's detail is left out.
type Problem struct {
	Kind  enroll.Kind `json:"kind"`
	Code  enroll.Code `json:"code"`
	Hint  string      `json:"hint,omitempty"`
	Since time.Time   `json:"since,omitzero"`
}

// For gives the part of the report that a user may see: the machine, himself,
// his own credentials and their conditions. The severity is that of what is left.
func (r Report) For(user string) Report {
	r.Users = slices.DeleteFunc(slices.Clone(r.Users), func(u User) bool { return u.ID != user })
	r.Credentials = slices.DeleteFunc(slices.Clone(r.Credentials), func(c Credential) bool { return c.User != user })
	r.OldMail = slices.DeleteFunc(slices.Clone(r.OldMail), func(c enroll.MailCheck) bool { return c.User != user })
	r.Conditions = slices.DeleteFunc(slices.Clone(r.Conditions), func(c Condition) bool {
		return c.User != user && (c.User != "" || !define(c.Code).Machine)
	})
	r.Severity = worst(r.Conditions)
	return r
}

// Unreachable is the report of a service that does not answer.
func Unreachable(version string, now time.Time) Report {
	return Report{
		Version: version, At: now, Severity: Unknown,
		Users: []User{}, Credentials: []Credential{}, Conditions: []Condition{},
	}
}

// ExitCode is for monitoring, as Nagios plugins have it: 0 well, 1 warning,
// 2 error, 3 unknown.
func (r Report) ExitCode() int {
	switch r.Severity {
	case OK, Info:
		return 0
	case Warning:
		return 1
	case Error:
		return 2
	case Unknown:
		return 3
	}
	return 3
}

// worst is the overall severity: notes do not spoil an OK.
func worst(conditions []Condition) Severity {
	w := OK
	for _, c := range conditions {
		if c.Severity != Info && c.Severity.rank() > w.rank() {
			w = c.Severity
		}
	}
	return w
}

// order sorts by severity, worst first, then by mailbox and code, so that two
// reports of the same state read the same.
func order(a, b Condition) int {
	if d := b.Severity.rank() - a.Severity.rank(); d != 0 {
		return d
	}
	if d := strings.Compare(a.Mailbox, b.Mailbox); d != 0 {
		return d
	}
	return strings.Compare(string(a.Code)+a.User+string(a.Enrollment), string(b.Code)+b.User+string(b.Enrollment))
}

// Package status says in what state everything is: the conditions, as data, and
// the report that people, scripts and the fleet's monitoring read.
package status

import (
	"time"

	"smime-agent/agent/enroll"
)

// The conditions of the machine and its service. Those of one enrollment are
// [enroll.Code]s; both share one space of words, with those that agent/control
// gives itself, and each has an entry in docs/runbook.md.
const (
	NotJoined          enroll.Code = "not-joined"
	TokenRefused       enroll.Code = "join-token-refused" //nolint:gosec // the name of a fault
	DevicePending      enroll.Code = "device-pending"
	DeviceRefused      enroll.Code = "device-refused"
	IdentityEnding     enroll.Code = "identity-ending"
	IdentityExpired    enroll.Code = "identity-expired"
	IdentityRefused    enroll.Code = "identity-refused"
	SecretsFailed      enroll.Code = "secrets-failed"
	Unconfigured       enroll.Code = "control-unconfigured"
	ControlUntrusted   enroll.Code = "control-untrusted"
	ProxyRefused       enroll.Code = "proxy-refused"
	ClockWrong         enroll.Code = "clock-wrong"
	SettingsInvalid    enroll.Code = "settings-invalid"
	SettingsInsecure   enroll.Code = "settings-insecure"
	RecordDamaged      enroll.Code = "record-damaged"
	RecordRebuilding   enroll.Code = "record-rebuilding"
	PolicyMissing      enroll.Code = "policy-missing"
	PolicyUnusable     enroll.Code = "policy-unusable"
	AnchorsUntrusted   enroll.Code = "anchors-untrusted"
	CertificateEnding  enroll.Code = "certificate-ending"
	CertificateEnded   enroll.Code = "certificate-ended"
	CertificateRevoked enroll.Code = "certificate-revoked"
	NothingAssigned    enroll.Code = "nothing-assigned"
	MachineCloned      enroll.Code = "machine-cloned"
	OldMailUnreadable  enroll.Code = "old-mail-unreadable"
	OldMailOtherKey    enroll.Code = "old-mail-other-key"
	PartnersNotFiled   enroll.Code = "partners-not-filed"
	Restarting         enroll.Code = "restarting"
)

// Severity sorts conditions by how much they matter.
type Severity string

// The severities. A report without warnings and errors is OK.
const (
	OK      Severity = "ok"
	Info    Severity = "info"
	Warning Severity = "warning"
	Error   Severity = "error"
	Unknown Severity = "unknown"
)

// rank orders severities; what is not known ranks highest, so that a newer
// service's word is never taken for "all well".
func (s Severity) rank() int {
	switch s {
	case OK:
		return 0
	case Info:
		return 1
	case Warning:
		return 2
	case Error:
		return 3
	case Unknown:
		return 4
	}
	return 4
}

// Definition is what is known of a condition before it ever holds.
type Definition struct {
	Code     enroll.Code
	Severity Severity
	// HiddenBy are conditions that explain this one: while one of them holds (for
	// the machine, or for the same mailbox of the same user), this one is not shown.
	HiddenBy []enroll.Code
	// Wait is how long the condition must have held before it shows, since most
	// trouble of that kind passes by itself. What keeps a machine from joining
	// shows at once: somebody is setting it up and looks.
	Wait time.Duration
	// Machine conditions concern the whole machine and show once, however many
	// enrollments they hold up.
	Machine bool
}

// offline are the conditions that keep the agent from central management.
var offline = []enroll.Code{
	enroll.CodeControlUnreachable, Unconfigured, ControlUntrusted, ProxyRefused, IdentityExpired, IdentityRefused,
	SecretsFailed, DeviceRefused, MachineCloned,
}

// unjoined are the conditions under which there can be no policy.
var unjoined = append([]enroll.Code{NotJoined, TokenRefused, DevicePending, Restarting}, offline...)

// definitions has every condition there is; a test compares it with the
// constants, the texts and the runbook.
var definitions = []Definition{
	{Code: enroll.CodeUserAbsent, Severity: Info, Wait: 2 * time.Minute, HiddenBy: []enroll.Code{Restarting}},
	{Code: enroll.CodeConsentPending, Severity: Info},
	{Code: enroll.CodeConsentPostponed, Severity: Info},
	{Code: enroll.CodeConsentDeclined, Severity: Warning},
	{Code: enroll.CodeNobodyToAsk, Severity: Warning},
	{Code: enroll.CodeStoreMissing, Severity: Warning, Wait: 2 * time.Minute},
	{Code: enroll.CodeStoreLocked, Severity: Warning, Wait: 2 * time.Minute},
	{Code: enroll.CodeStoreDenied, Severity: Error},
	{Code: enroll.CodeStoreUnsuitable, Severity: Error},
	{Code: enroll.CodeStoreFailed, Severity: Warning, Wait: 10 * time.Minute},
	{Code: enroll.CodeStoreHangs, Severity: Warning},
	{Code: enroll.CodeKeyMissing, Severity: Error},
	{Code: enroll.CodeProofFailed, Severity: Error, HiddenBy: []enroll.Code{CertificateEnded, CertificateRevoked}},
	{Code: enroll.CodeOldKeyUnusable, Severity: Warning, HiddenBy: []enroll.Code{enroll.CodeStoreLocked}},
	{Code: enroll.CodeControlUnreachable, Severity: Warning, Wait: 10 * time.Minute, Machine: true,
		HiddenBy: []enroll.Code{Unconfigured, ControlUntrusted, ProxyRefused, IdentityExpired, IdentityRefused, SecretsFailed,
			DeviceRefused, MachineCloned, Restarting}},
	{Code: enroll.CodeControlOverloaded, Severity: Warning, Wait: time.Hour, Machine: true},
	{Code: enroll.CodeControlRejected, Severity: Error, Machine: true, HiddenBy: []enroll.Code{DeviceRefused, ControlUntrusted}},
	{Code: enroll.CodeApprovalPending, Severity: Info},
	{Code: enroll.CodeAuthorityPending, Severity: Info, Wait: 10 * time.Minute, HiddenBy: offline},
	{Code: enroll.CodeChallengePending, Severity: Warning},
	{Code: enroll.CodeRequestRefused, Severity: Error},
	{Code: enroll.CodeCertificateRejected, Severity: Error},
	{Code: enroll.CodeMailRestart, Severity: Info, Wait: time.Minute, HiddenBy: []enroll.Code{enroll.CodeMailOldCertificate}},
	{Code: enroll.CodeMailOldCertificate, Severity: Warning},
	{Code: enroll.CodeMailManaged, Severity: Warning},
	{Code: enroll.CodeMailFailed, Severity: Warning, Wait: 10 * time.Minute},
	{Code: enroll.CodeMailByHand, Severity: Info},
	{Code: enroll.CodeMailOtherStore, Severity: Info},
	{Code: enroll.CodeMailUndone, Severity: Info},
	{Code: PartnersNotFiled, Severity: Warning, Wait: 10 * time.Minute},
	{Code: enroll.CodeRecordFailed, Severity: Error, Machine: true},
	{Code: enroll.CodeInternal, Severity: Error, Wait: 5 * time.Minute},

	{Code: Unconfigured, Severity: Error, Machine: true, HiddenBy: []enroll.Code{SettingsInsecure}},
	{Code: NotJoined, Severity: Error, Machine: true,
		HiddenBy: append([]enroll.Code{TokenRefused, DevicePending, Restarting}, offline...)},
	{Code: TokenRefused, Severity: Error, Machine: true, HiddenBy: []enroll.Code{DeviceRefused, MachineCloned}},
	{Code: DevicePending, Severity: Warning, Machine: true, HiddenBy: []enroll.Code{DeviceRefused, TokenRefused}},
	{Code: DeviceRefused, Severity: Error, Machine: true, HiddenBy: []enroll.Code{MachineCloned}},
	{Code: IdentityEnding, Severity: Warning, Machine: true, HiddenBy: []enroll.Code{IdentityExpired, DeviceRefused, MachineCloned}},
	{Code: IdentityExpired, Severity: Error, Machine: true, HiddenBy: []enroll.Code{DeviceRefused, MachineCloned, ClockWrong}},
	{Code: IdentityRefused, Severity: Error, Machine: true, HiddenBy: []enroll.Code{IdentityExpired, DeviceRefused, MachineCloned, ClockWrong}},
	{Code: SecretsFailed, Severity: Error, Machine: true},
	{Code: ControlUntrusted, Severity: Error, Machine: true, HiddenBy: []enroll.Code{ClockWrong}},
	{Code: ProxyRefused, Severity: Error, Machine: true, Wait: 2 * time.Minute},
	{Code: ClockWrong, Severity: Warning, Machine: true, Wait: 2 * time.Minute},
	{Code: SettingsInvalid, Severity: Warning, Machine: true},
	{Code: SettingsInsecure, Severity: Error, Machine: true},
	{Code: RecordDamaged, Severity: Warning, Machine: true},
	{Code: RecordRebuilding, Severity: Info, Machine: true},
	{Code: PolicyMissing, Severity: Warning, Machine: true, Wait: 2 * time.Minute, HiddenBy: append([]enroll.Code{PolicyUnusable}, unjoined...)},
	{Code: PolicyUnusable, Severity: Error, Machine: true, HiddenBy: []enroll.Code{DeviceRefused, MachineCloned}},
	{Code: AnchorsUntrusted, Severity: Warning, Machine: true},
	{Code: CertificateEnding, Severity: Warning, HiddenBy: []enroll.Code{CertificateEnded, CertificateRevoked}},
	{Code: CertificateEnded, Severity: Error, HiddenBy: []enroll.Code{CertificateRevoked}},
	{Code: CertificateRevoked, Severity: Error},
	{Code: NothingAssigned, Severity: Info, Wait: 2 * time.Minute, HiddenBy: append([]enroll.Code{PolicyMissing}, unjoined...)},
	{Code: MachineCloned, Severity: Error, Machine: true},
	{Code: OldMailUnreadable, Severity: Warning},
	{Code: OldMailOtherKey, Severity: Info},
	{Code: Restarting, Severity: Info, Machine: true},
}

// Definitions gives every condition there is, in the order of the runbook.
func Definitions() []Definition { return append([]Definition(nil), definitions...) }

// define finds a condition's definition. A word that is not in the table is an
// error of the machine, shown at once: nothing is hidden for being new.
func define(code enroll.Code) Definition {
	for _, d := range definitions {
		if d.Code == code {
			return d
		}
	}
	return Definition{Code: code, Severity: Error}
}

// Condition is something that a person may want to know or do. Text and Cure
// are in English; [Text] says them in other languages.
type Condition struct {
	Code       enroll.Code `json:"code"`
	Severity   Severity    `json:"severity"`
	User       string      `json:"user,omitempty"`
	Account    string      `json:"account,omitempty"`
	Enrollment enroll.ID   `json:"enrollment,omitempty"`
	Mailbox    string      `json:"mailbox,omitempty"`
	// Program is the mail program, as people call it.
	Program string `json:"program,omitempty"`
	Title   string `json:"title"`
	Text    string `json:"text"`
	Cure    string `json:"cure"`
	// Detail is what the other side or the system said of it, if it may be shown.
	Detail string `json:"detail,omitempty"`
	// Since is zero where nobody knows. Until is when something ends.
	Since time.Time `json:"since,omitzero"`
	Until time.Time `json:"until,omitzero"`
}

// sameSubject says whether a explains b by concerning the same thing.
func sameSubject(a, b Condition) bool {
	if define(a.Code).Machine {
		return true
	}
	if a.User != b.User {
		return false
	}
	return (a.Mailbox == "" || a.Mailbox == b.Mailbox) && (a.Program == "" || a.Program == b.Program)
}

// visible takes away what is too young and what another condition explains.
func visible(all []Condition, joined bool, now time.Time) []Condition {
	shown := make([]Condition, 0, len(all))
	for _, c := range all {
		d := define(c.Code)
		if young := !c.Since.IsZero() && now.Sub(c.Since) < d.Wait; young && (joined || !d.Machine) {
			continue
		}
		if !explained(c, d, all) {
			shown = append(shown, c)
		}
	}
	return shown
}

func explained(c Condition, d Definition, all []Condition) bool {
	for _, by := range d.HiddenBy {
		for _, other := range all {
			if other.Code == by && sameSubject(other, c) {
				return true
			}
		}
	}
	return false
}

// Package enroll is the heart of the agent: it brings one credential (a key
// with its certificate) from wish to proof, renews it in time and keeps what
// old mail needs. It is pure: no files, no network, no clock of its own. What
// it needs from outside it declares as small interfaces, which others fill.
package enroll

import (
	"context"
	"time"
)

// ID names an enrollment, and with it the key in the store. It begins with
// [IDPrefix] and goes on with a UUID version 7 (RFC 9562), so that names sort
// by age.
type ID string

// IDPrefix begins every [ID]; in a key store it tells our keys from others'.
const IDPrefix = "smime-"

// State is a resting place in the life of a credential. Only resting places
// are saved: each step between two of them can be repeated without harm.
type State string

// The states, in order.
const (
	Wanted    State = "wanted"    // policy gives it; the person has not been asked
	Consented State = "consented" // the person agrees, or need not be asked
	Requested State = "requested" // key in the store, CSR signed by it
	Submitted State = "submitted" // the authority has the CSR
	Issued    State = "issued"    // the chain passed every check
	Installed State = "installed" // chain beside its key, read back
	Prepared  State = "prepared"  // mail programs use it, or will after their next start
	Active    State = "active"    // proved through the store
	// Kept: a newer credential took its place; key and certificate stay for old mail.
	Kept State = "kept"
	// Over: ended without a certificate; a new enrollment needs a new reason.
	Over State = "over"
)

// Reason says why there is an enrollment.
type Reason string

// The reasons, in the order in which they are looked at.
const (
	ReasonFirst          Reason = "first"
	ReasonRemoved        Reason = "removed" // key or certificate is gone from the store
	ReasonRevoked        Reason = "revoked"
	ReasonProfileChanged Reason = "profile-changed"
	ReasonRenewalDue     Reason = "renewal-due"
	ReasonPerson         Reason = "asked-by-person"
	ReasonAdministrator  Reason = "asked-by-administrator"
	// ReasonAdopted: found in the store, for example after the record was lost.
	ReasonAdopted Reason = "adopted"
)

// ConsentMode says whether the person is asked.
type ConsentMode string

// The consent modes of policy.
const (
	ConsentAsk    ConsentMode = "ask"
	ConsentNotify ConsentMode = "notify"
	ConsentSilent ConsentMode = "silent"
)

// Verdict is a person's answer.
type Verdict string

// The verdicts.
const (
	Approve Verdict = "approve"
	Later   Verdict = "later"
	Decline Verdict = "decline"
)

// Rotation says whether a renewal makes a new key.
type Rotation string

// The rotations. Empty leaves it to the store: the same key where each new one
// costs the person something ([StoreFound.CostlyKeys]), else a new one.
const (
	NewKey  Rotation = "new-key"
	SameKey Rotation = "same-key"
)

// Profile is a kind of certificate, as central management defines it.
type Profile struct {
	Name string `json:"name"`
	// Keys are the accepted kinds, best first, as platform names them ("p-256").
	Keys          []string      `json:"keys"`
	Sign          bool          `json:"sign"`
	Encrypt       bool          `json:"encrypt"`
	MaxValidity   time.Duration `json:"max_validity"`
	Generation    string        `json:"generation,omitempty"`
	MinProtection string        `json:"min_protection,omitempty"`
}

// Module is a PKCS #11 module that policy lets the helper load.
type Module struct {
	Path       string `json:"path"`
	TokenLabel string `json:"token_label,omitempty"`
}

// Assignment gives one user one credential in each matching store.
type Assignment struct {
	// User is the system's identity of the account: "uid:1000", a SID.
	User string `json:"user"`
	// Mailboxes are all in the certificate; the first is the main one.
	Mailboxes        []string          `json:"mailboxes"`
	DisplayName      string            `json:"display_name,omitempty"`
	Profile          Profile           `json:"profile"`
	Consent          ConsentMode       `json:"consent"`
	MaxPostponements int               `json:"max_postponements,omitempty"`
	Stores           []string          `json:"stores,omitempty"`
	RenewBefore      time.Duration     `json:"renew_before,omitempty"`
	Rotation         Rotation          `json:"rotation,omitempty"`
	Modules          []Module          `json:"modules,omitempty"`
	Note             map[string]string `json:"note,omitempty"`
	Mail             MailRule          `json:"mail,omitzero"`
}

// Policy is what central management wants on this machine.
type Policy struct {
	Revision     string       `json:"revision"`
	Organization string       `json:"organization"`
	Contact      string       `json:"contact,omitempty"`
	Assignments  []Assignment `json:"assignments"`
	// Anchors (DER): only chains to these are believed.
	Anchors        [][]byte `json:"anchors"`
	InstallAnchors bool     `json:"install_anchors,omitempty"`
	// SuggestedRenewal is by serial number in lower-case hex.
	SuggestedRenewal map[string]time.Time `json:"suggested_renewal,omitempty"`
}

// Consent is what is known of the person's will.
type Consent struct {
	Verdict   Verdict   `json:"verdict,omitempty"`
	NotNeeded bool      `json:"not_needed,omitempty"`
	At        time.Time `json:"at,omitzero"`
	// Postponed counts how often "later" was said; AskAgain is when it may be asked again.
	Postponed int       `json:"postponed,omitempty"`
	AskAgain  time.Time `json:"ask_again,omitzero"`
}

// Problem stands beside a state and says what holds the enrollment up.
type Problem struct {
	Kind Kind `json:"kind"`
	// Code is a stable word that the runbook explains, e.g. "store-locked".
	Code Code `json:"code"`
	// Hint may be shown to people; Detail is for the log.
	Hint   string    `json:"hint,omitempty"`
	Detail string    `json:"detail,omitempty"`
	Since  time.Time `json:"since"`
}

// Enrollment is one credential on its way, or there.
type Enrollment struct {
	ID         ID         `json:"id"`
	Assignment Assignment `json:"assignment"` // as it was when the enrollment began
	Store      string     `json:"store"`
	// Key names the key in its store if it is that of an earlier enrollment
	// (rotation same-key); empty means that the key bears this enrollment's ID.
	Key        ID        `json:"key,omitempty"`
	State      State     `json:"state"`
	Reason     Reason    `json:"reason"`
	Replaces   ID        `json:"replaces,omitempty"`
	ReplacedBy ID        `json:"replaced_by,omitempty"`
	Created    time.Time `json:"created"`
	Changed    time.Time `json:"changed"`
	Consent    Consent   `json:"consent"`

	CSR        []byte   `json:"csr,omitempty"`
	Algorithm  string   `json:"algorithm,omitempty"`
	Protection string   `json:"protection,omitempty"`
	Reference  string   `json:"reference,omitempty"`
	Chain      [][]byte `json:"chain,omitempty"` // DER, leaf first

	NotAfter  time.Time `json:"not_after,omitzero"`
	RenewAt   time.Time `json:"renew_at,omitzero"`
	Revoked   bool      `json:"revoked,omitempty"`
	Unwanted  bool      `json:"unwanted,omitempty"` // policy no longer gives it; renewal stops, key stays
	Proof     *Proof    `json:"proof,omitempty"`
	NextProof time.Time `json:"next_proof,omitzero"`
	// Mail is nil where policy leaves mail programs alone.
	Mail     *Preparation `json:"mail,omitempty"`
	NextMail time.Time    `json:"next_mail,omitzero"`

	Problem     *Problem  `json:"problem,omitempty"`
	Attempts    int       `json:"attempts,omitempty"`
	NextAttempt time.Time `json:"next_attempt,omitzero"`
}

// Mailbox is the main mailbox.
func (e Enrollment) Mailbox() string {
	if len(e.Assignment.Mailboxes) == 0 {
		return ""
	}
	return e.Assignment.Mailboxes[0]
}

// Proof is the last demonstration that the credential works through its store.
type Proof struct {
	At         time.Time `json:"at"`
	Signs      bool      `json:"signs"`
	Decrypts   bool      `json:"decrypts"`
	ChainOK    bool      `json:"chain_ok"`
	Algorithms []string  `json:"algorithms,omitempty"`
	Protection string    `json:"protection,omitempty"`
	// Failure is one sentence; empty if all that the profile wants works.
	Failure string `json:"failure,omitempty"`
}

// OK says that everything the profile wants works.
func (p *Proof) OK() bool { return p != nil && p.Failure == "" }

// Session is a logged-in user's helper, lent to the service. Every method can
// be repeated; errors are *[Error].
type Session interface {
	Keeper
	Warden
	Person
	Correspondent
}

// Keeper makes, files and proves one credential, and has mail programs use it.
type Keeper interface {
	// MakeRequest makes the key under the enrollment's name, or finds it, and
	// gives a CSR signed by it.
	MakeRequest(ctx context.Context, w RequestWanted) (RequestMade, error)
	// Install files the chain beside its key and reads it back.
	Install(ctx context.Context, w InstallWanted) error
	// Prepare makes the mail programs use the credential, as policy wants, and says
	// how far each account is; none is no error.
	Prepare(ctx context.Context, w PrepareWanted) ([]MailAccount, error)
	// Prove signs, verifies, encrypts and decrypts through the store. A proof
	// that fails is a Proof with a Failure, not an error.
	Prove(ctx context.Context, w ProofWanted) (Proof, error)
}

// Warden looks after what is in the stores.
type Warden interface {
	Inventory(ctx context.Context, modules []Module) (Inventory, error)
	// Discard removes a key that never got a certificate; the store refuses any other.
	Discard(ctx context.Context, store string, id ID, modules []Module) error
}

// Person is the human at the session.
type Person interface {
	// Ask blocks until the person answers or ctx ends.
	Ask(ctx context.Context, q Question) (Verdict, error)
	// EnterCode blocks until the person gives the code that was mailed to a
	// mailbox, or puts that off, which is an empty code, or ctx ends.
	EnterCode(ctx context.Context, q CodeQuestion) (string, error)
	Notify(ctx context.Context, n Notice) error
}

// RequestWanted is what [Keeper.MakeRequest] needs.
type RequestWanted struct {
	ID          ID
	Store       string
	Keys        []string
	Mailboxes   []string
	DisplayName string
	Sign        bool
	Encrypt     bool
	Modules     []Module
	// ReuseKeyOf names the enrollment whose key serves again (rotation same-key).
	ReuseKeyOf ID
}

// RequestMade is a CSR (PKCS #10, DER) with what is known of its key.
type RequestMade struct {
	CSR        []byte
	Algorithm  string
	Protection string
}

// InstallWanted is what [Keeper.Install] needs.
type InstallWanted struct {
	ID      ID
	Store   string
	Chain   [][]byte
	Trust   [][]byte
	Modules []Module
}

// ProofWanted is what [Keeper.Prove] needs.
type ProofWanted struct {
	ID      ID
	Store   string
	Mailbox string
	Chain   [][]byte
	Anchors [][]byte
	Sign    bool
	Encrypt bool
	// Kept: for old mail only; an ended certificate is no failure.
	Kept bool
	// Now is the best known time; the session's own clock may be wrong.
	Now     time.Time
	Modules []Module
}

// Inventory is what a user's stores hold.
type Inventory struct {
	Stores []StoreFound
	Keys   []KeyFound
	// Failures are stores that are there but could not be read.
	Failures []*Error
	// At is when the engine had it read.
	At time.Time
}

// StoreFound is a store, in the order that "auto" prefers.
type StoreFound struct {
	Name       string   `json:"name"`
	Protection string   `json:"protection"`
	Algorithms []string `json:"algorithms,omitempty"`
	Consumers  []string `json:"consumers,omitempty"`
	// CostlyKeys says that the system asks the person once for each mail program
	// whether it may use a new key.
	CostlyKeys bool `json:"costly_keys,omitempty"`
}

// KeyFound is a key that bears one of our names.
type KeyFound struct {
	ID    ID
	Store string
	// PublicKey is SubjectPublicKeyInfo (DER); empty for half a key.
	PublicKey []byte
	// Chain is empty if the store has no certificate for the key.
	Chain   [][]byte
	Created time.Time
}

// Question is the one prompt of an employee's life with the agent.
type Question struct {
	ID                ID
	Organization      string
	Contact           string
	Mailbox           string
	Reason            Reason
	Note              map[string]string // by BCP 47 tag
	PostponementsLeft int
	// ProgramsAsk says that afterwards the system asks once for each mail program
	// whether it may use the new key: the person must know before.
	ProgramsAsk bool
}

// CodeQuestion asks for the code that was mailed to a mailbox.
type CodeQuestion struct {
	ID           ID
	Organization string
	Contact      string
	Mailbox      string
	// Wrong says that the last code was not the right one.
	Wrong bool
}

// NoticeCode is a stable word for a notice.
type NoticeCode string

// The notices.
const (
	NoticeEnrolling NoticeCode = "enrolling" // consent mode notify
	NoticeEnrolled  NoticeCode = "enrolled"
	NoticeRenewed   NoticeCode = "renewed"
	NoticeRefused   NoticeCode = "refused"
	NoticeRevoked   NoticeCode = "revoked"
	NoticeEnding    NoticeCode = "ending"
)

// Notice tells the person something.
type Notice struct {
	ID           ID
	Code         NoticeCode
	Organization string
	Contact      string
	Mailbox      string
	// ProgramsAsk is as in [Question].
	ProgramsAsk bool
}

// Authority is where certificates come from.
type Authority interface {
	// Submit is idempotent on (ID, CSR).
	Submit(ctx context.Context, s Submission) (Receipt, error)
	// Collect asks what became of it.
	Collect(ctx context.Context, reference string) (Collection, error)
}

// Submission is a CSR with what the authority must know.
type Submission struct {
	ID         ID
	CSR        []byte
	Profile    string
	User       string
	Mailboxes  []string
	Store      string
	Protection string
	Replaces   ID
	Reason     Reason
}

// Receipt says that the authority has the submission.
type Receipt struct {
	Reference string
}

// Collection is the authority's answer. If Chain is empty, come back after
// RetryAfter; WaitsFor says for whom it waits ("administrator", "authority",
// "mailbox" for a challenge sent there). A refusal is an *[Error] of kind [Final].
type Collection struct {
	Chain            [][]byte
	SuggestedRenewal time.Time
	RetryAfter       time.Duration
	WaitsFor         string
}

// Sessions finds the helper that a user lends, if he is logged in.
type Sessions interface {
	Session(user string) (Session, bool)
}

// Ledger keeps enrollments and the events that tell of them.
type Ledger interface {
	// Save puts all of both on record or, with an error, nothing: an event is
	// never lost while its change is kept, nor told of one that was not. What it
	// returned for survives a crash. Either may be empty.
	Save(es []Enrollment, told []Event) error
	Load() ([]Enrollment, error)
}

// Event is one line of the audit trail.
type Event struct {
	At         time.Time
	Code       EventCode
	Enrollment Enrollment
	Outcome    string // "success" or "failure"
	Fields     map[string]string
}

// EventCode is a stable word that docs/audit.md explains.
type EventCode string

// The events of an enrollment.
const (
	EventWanted    EventCode = "enrollment-wanted"
	EventConsent   EventCode = "consent-given"
	EventPostponed EventCode = "consent-postponed"
	EventDeclined  EventCode = "consent-declined"
	EventKey       EventCode = "key-created"
	EventSubmitted EventCode = "request-submitted"
	EventIssued    EventCode = "certificate-issued"
	EventRejected  EventCode = "certificate-rejected" // it failed our checks
	EventRefused   EventCode = "request-refused"      // the authority refused
	EventEnded     EventCode = "enrollment-ended"     // over for another reason, such as a lost key
	EventInstalled EventCode = "certificate-installed"
	EventPrepared  EventCode = "mail-programs-prepared"
	EventUndone    EventCode = "mail-programs-undone"
	EventProved    EventCode = "credential-proved"
	EventRenewal   EventCode = "renewal-started"
	EventKept      EventCode = "credential-kept"
	EventRevoked   EventCode = "certificate-revoked"
	EventOrphan    EventCode = "orphan-key-found"
	EventDiscarded EventCode = "orphan-key-removed"
	EventAdopted   EventCode = "credential-adopted"
)

package local

import (
	"context"

	"smime-agent/agent/enroll"
	"smime-agent/agent/status"
	"smime-agent/platform"
)

// Agent is what the service does for its callers. An error that is an [*Error]
// or an *[enroll.Error] with a hint is shown to the caller; any other is logged
// here and shown as [ReasonInternal].
type Agent interface {
	Reporter
	Mover
	Confirmer
	Doctor
	Librarian
	Preparer
	Attacher
}

// Reporter tells in what state everything is.
type Reporter interface {
	// Report is that of all users; this package cuts it down for each caller.
	Report(ctx context.Context) (status.Report, error)
	// Changes gives a channel that gets a value after each change, until ctx ends.
	// Several changes may become one value; a slow reader must not hold it up.
	Changes(ctx context.Context) <-chan struct{}
}

// Mover moves enrollments. The IDs have been checked: the caller may move them,
// and they were in a fitting state a moment ago.
type Mover interface {
	// Decide gives the person's verdict on enrollments that wait for it.
	Decide(ctx context.Context, by platform.Peer, ids []enroll.ID, v enroll.Verdict) error
	// Renew starts a new enrollment for each of these.
	Renew(ctx context.Context, by platform.Peer, ids []enroll.ID) error
	// Prove proves these soon.
	Prove(ctx context.Context, by platform.Peer, ids []enroll.ID) error
	// Sync asks central management now, and returns when it has answered.
	Sync(ctx context.Context) error
}

// Confirmer takes codes that were mailed to people.
type Confirmer interface {
	// Confirm hands in a code for these, which wait for one. A code that fits none
	// is an *[enroll.Error] with a hint.
	Confirm(ctx context.Context, by platform.Peer, ids []enroll.ID, code string) error
}

// Doctor looks at the service itself.
type Doctor interface {
	Diagnose(ctx context.Context) (status.Checks, error)
	// Settings may hold secrets; this package masks them for everybody.
	Settings(ctx context.Context) (status.Settings, error)
}

// Librarian keeps what people's old mail needs.
type Librarian interface {
	// MailChecked takes what somebody found in his own mail; User is set by
	// this package, and the rest is bounded but a claim.
	MailChecked(ctx context.Context, c enroll.MailCheck) error
}

// Preparer changes what is done in the mail programs. The IDs have been checked as
// a [Mover]'s.
type Preparer interface {
	// UndoMail has put back what the programs had before the agent came; where
	// policy rules them and the caller is no administrator it is [ReasonRuled].
	UndoMail(ctx context.Context, by platform.Peer, ids []enroll.ID) error
	// ApplyMail has them made ready again.
	ApplyMail(ctx context.Context, by platform.Peer, ids []enroll.ID) error
}

// Attacher learns of the sessions that helpers lend. The calls for one session
// come one after another.
type Attacher interface {
	Attached(a Attachment)
	// Changed says that the user's stores have changed. A helper that says so too
	// often is heard at most every few seconds.
	Changed(a Attachment)
	Detached(a Attachment)
}

// Hello is how a helper introduces itself. All of it is a claim.
type Hello struct {
	// Version is the helper's, e.g. "smime-helper/1.2.3".
	Version string
	// Locale is a BCP 47 tag, UPN is empty where the system knows none.
	Locale, UPN string
}

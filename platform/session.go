package platform

import (
	"context"
	"net"
	"time"
)

// SecretStore keeps the service's own secrets: root/SYSTEM only.
type SecretStore interface {
	// Get answers [ErrNotFound] if there is none.
	Get(ctx context.Context, name string) ([]byte, error)
	// Put replaces atomically: after a crash there is the old value or the new one.
	Put(ctx context.Context, name string, value []byte) error
	// Delete is no error if there is none.
	Delete(ctx context.Context, name string) error
}

// Secrets opens the secret store. dir is the service's state folder, for systems
// that keep secrets in files.
func Secrets(dir string) (SecretStore, error) { return secrets(dir) }

// Lacking says in one sentence what this build lacks of what its system could
// do ([ErrUnsupported]); nil if nothing. Programs say it when they start.
func Lacking() error { return lacking() }

// Answer is what a person said to a question.
type Answer string

// The answers. A dialog that was closed or timed out is AnswerLater.
const (
	AnswerYes   Answer = "yes"
	AnswerLater Answer = "later"
	AnswerNo    Answer = "no"
)

// Question is a dialog. All texts come ready in the user's language.
type Question struct {
	Title, Text    string
	Yes, Later, No string
	// Timeout closes the dialog as AnswerLater; 0 means never.
	Timeout time.Duration
}

// Entry asks for one line of text.
type Entry struct {
	Title, Text string
	OK, Cancel  string
	// Secret hides what is typed.
	Secret  bool
	Timeout time.Duration
}

// Notice is a message that needs no answer.
type Notice struct {
	Title, Text string
}

// Prompter speaks with the person at this session.
type Prompter interface {
	// Ask blocks until the person answers or ctx ends. [ErrUnsupported] if nobody
	// can be asked in this session.
	Ask(ctx context.Context, q Question) (Answer, error)
	// Enter answers [ErrDenied] if the person cancels.
	Enter(ctx context.Context, e Entry) (string, error)
	Notify(ctx context.Context, n Notice) error
}

// NewPrompter takes the best way of this session: dialog program, desktop
// notification, terminal.
func NewPrompter() Prompter { return newPrompter() }

// User is the account that runs this process.
type User struct {
	// ID is the system's own identity: "uid:1000", a SID.
	ID string
	// Account is the name at login.
	Account string
	// UPN is empty where the system knows none.
	UPN string
	// Locale is a BCP 47 tag such as "zh-CN".
	Locale string
}

// CurrentUser tells who runs this process.
func CurrentUser() (User, error) { return currentUser() }

// Peer is who is at the other end of a local connection, by the kernel's word.
type Peer struct {
	// User is as in [User.ID].
	User string
	// Admin is true for root, and for Administrators and SYSTEM.
	Admin bool
	// PID is for the log, and tells this process's own connections from others of its
	// account; it proves nothing of any other process.
	PID int
}

// Listen opens the service's local address: a Unix socket's path or a pipe's
// name. It refuses if somebody else holds the address.
func Listen(address string) (net.Listener, error) { return listen(address) }

// Dial connects to the service and refuses one that is neither the system's
// nor the caller's own.
func Dial(ctx context.Context, address string) (net.Conn, error) { return dial(ctx, address) }

// PeerOf asks the kernel who is at the other end of a connection that [Listen]
// accepted. Users of another namespace ([ErrDenied]) are nobody. It asks no
// directory, so it is cheap and never waits.
func PeerOf(c net.Conn) (Peer, error) { return peerOf(c) }

// AccountOf is the login name of a user by [User.ID], as in [User.Account]; empty
// if he has none or the system cannot say. It may ask a directory service or a
// domain controller, which can take seconds.
func AccountOf(id string) string { return accountOf(id) }

// Paths is where things lie on this system.
type Paths struct {
	// Config is the administrator's settings file; Policy is the folder or registry
	// key of managed policy. Installed is the place of what the installer was told,
	// for [ReadPolicy]; empty where installers write the settings file.
	Config, Policy, Installed string
	// Handover is where an installer leaves a join token for the service to take,
	// for [TakeHandover]; empty where installers write a file for it.
	Handover string
	// State is the service's folder, Logs that of its logs.
	State, Logs string
	// Address is the local API's.
	Address string
	// Service is what the service is called in the system's service manager.
	Service string
}

// SystemPaths gives the places of an installed agent.
func SystemPaths() Paths { return systemPaths() }

// Machine is what the system says of itself.
type Machine struct {
	Hostname string
	// OS is "linux", "windows" or "darwin"; Version the release as people know it.
	OS, Version string
	// ID is the installation's stable ID, not secret, not hashed.
	ID string
}

// ThisMachine describes the machine; what is not known is empty.
func ThisMachine() Machine { return thisMachine() }

package platform

import (
	"os"
	"syscall"
)

// UserPaths is where a user's own process keeps what is not a key.
type UserPaths struct {
	// State is for logs, Runtime for what a logout may take away.
	State, Runtime string
}

// CurrentUserPaths gives the places of the account that runs this process. The
// folders may not be there yet. env reads the environment, as [os.Getenv] does.
func CurrentUserPaths(env func(string) string) (UserPaths, error) { return currentUserPaths(env) }

// StopSignals are those by which a system asks a process to end. Windows has
// console and logoff events; the runtime gives them these names (os/signal).
func StopSignals() []os.Signal { return []os.Signal{os.Interrupt, syscall.SIGTERM} }

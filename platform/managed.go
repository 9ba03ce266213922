package platform

import (
	"context"
	"log/slog"
)

// RunManaged runs the work of a service that the system's service manager
// started: run begins at once, and its ctx ends when the service manager wants
// the service stopped. An error of run counts there as a failure, after which the
// service is started again. It returns when run has.
func RunManaged(ctx context.Context, name string, run func(context.Context) error) error {
	return runManaged(ctx, name, run)
}

// PrepareService sets what the service manager shall know of an installed service
// beyond what its installer said: to start it late, to start it again after any
// failure, and which privileges it needs. Doing it twice does no harm. Nil where
// the installation says it all.
func PrepareService(name string) error { return prepareService(name) }

// ServiceState asks the service manager with no more rights than every user has:
// "running", "stopped" or "not installed". [ErrUnsupported] where this is nothing
// special.
func ServiceState(name string) (string, error) { return serviceState(name) }

// SystemLog is the machine's own log, where administrators look first.
type SystemLog interface {
	Write(level slog.Level, text string) error
	Close() error
}

// OpenSystemLog opens the machine's log under a name. [ErrUnsupported] where the
// service manager takes a service's output to it by itself.
func OpenSystemLog(name string) (SystemLog, error) { return openSystemLog(name) }

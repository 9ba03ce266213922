// Command smime-agent is the service and its command line: the state of the
// machine's e-mail certificates, consent, renewal and diagnosis.
package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"golang.org/x/term"

	"smime-agent/platform"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, env{
		Args: os.Args[1:], Stdout: os.Stdout, Stderr: os.Stderr,
		Getenv: os.Getenv, Width: terminalWidth, Now: time.Now, Version: version(),
		Dial: platform.Dial, User: platform.CurrentUser, Stores: storeNames,
		Serve: noServe, Control: noControl,
	})
	stop()
	os.Exit(exitCode(err))
}

// errNotWired is what the service's commands answer in a build without the service.
var errNotWired = errors.New("this build has no service in it")

func noServe(context.Context, ServeOptions) error    { return errNotWired }
func noControl(context.Context, ControlAction) error { return errNotWired }

// version is the module's, as the Go tool stamped it.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

// terminalWidth is that of the standard output, if it is a terminal.
func terminalWidth() (columns int, ok bool) {
	fd := int(os.Stdout.Fd())
	if !term.IsTerminal(fd) {
		return 0, false
	}
	columns, _, err := term.GetSize(fd)
	if err != nil {
		return 0, true
	}
	return columns, true
}

// storeNames lists the certificate stores of whoever runs this.
func storeNames(ctx context.Context) ([]string, error) {
	stores, err := platform.Stores(ctx, platform.StoreOptions{})
	names := make([]string, 0, len(stores))
	for _, s := range stores {
		names = append(names, s.Info().Name)
	}
	return names, err
}

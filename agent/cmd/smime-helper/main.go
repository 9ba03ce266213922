// Command smime-helper lends the session of the user who runs it to the agent's
// service: keys, certificate stores and prompts. The system starts it at logon.
// It listens nowhere, has no window of its own, and ends with the session.
package main

// The manifest asks Windows for its newer dialogs and for sharp text on every
// screen, and for no more rights than the user has.
//go:generate go run github.com/tc-hib/go-winres@v0.3.3 make --in winres.json --arch amd64,arm64 --out rsrc

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"

	"smime-agent/agent/config"
	"smime-agent/agent/local"
	"smime-agent/platform"
)

// version is set by the linker.
var version = "unknown"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), platform.StopSignals()...)
	defer stop()
	err := run(ctx, env{
		args: os.Args[1:], getenv: os.Getenv, stdout: os.Stdout, stderr: os.Stderr,
		user: platform.CurrentUser, stores: platform.Stores, programs: platform.MailPrograms, prompter: platform.NewPrompter(), settings: settings, attach: attach,
		supervise: platform.Supervise,
	})
	if err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintf(os.Stderr, "smime-helper: %v\n", err)
		}
		stop()
		os.Exit(1)
	}
}

// settings are the system's. What is wrong with them the service says; what this
// user may not read is the service's own.
func settings() config.Settings {
	s, _ := config.Load(config.SystemSources(nil))
	return s
}

// attach is the way to the real service.
func attach(ctx context.Context, address string, once bool, l local.Lending) error {
	d := local.Dialer{Address: address}
	if !once {
		d.AttachForever(ctx, l)
		return nil
	}
	c, err := d.Connect(ctx)
	if err != nil {
		return err
	}
	return errors.Join(c.Attach(ctx, l), c.Close())
}

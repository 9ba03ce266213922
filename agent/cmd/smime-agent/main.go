// Command smime-agent is the service and its command line: the state of the
// machine's e-mail certificates, consent, renewal and diagnosis.
package main

// Windows shows the version and what the program is; long paths are allowed.
//go:generate go run github.com/tc-hib/go-winres@v0.3.3 make --in winres.json --arch amd64,arm64 --out rsrc

import (
	"context"
	"os"
	"os/signal"
	"runtime/debug"
	"time"

	"golang.org/x/term"

	"smime-agent/agent/config"
	"smime-agent/agent/service"
	"smime-agent/platform"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), platform.StopSignals()...)
	err := run(ctx, env{
		Args: os.Args[1:], Stdout: os.Stdout, Stderr: os.Stderr,
		Getenv: os.Getenv, Width: terminalWidth, Now: time.Now, Version: builtAs(),
		Dial: platform.Dial, User: platform.CurrentUser, Stores: storeNames, Keys: heldKeys,
		Address: func() string { s, _ := config.Load(config.SystemSources(nil)); return s.Address },
		Serve:   serve, Control: control,
	})
	stop()
	os.Exit(exitCode(err))
}

// serve runs the service with the settings of the places that o names.
func serve(ctx context.Context, o ServeOptions) error {
	flags := map[string]string{}
	for name, value := range map[string]string{"address": o.Address, "state_dir": o.StateDir} {
		if value != "" {
			flags[name] = value
		}
	}
	sources := config.SystemSources(flags)
	if o.ConfigFile != "" {
		sources.File, sources.FileWanted = o.ConfigFile, true
	}
	if o.PolicyDir != "" {
		sources.Policy = config.PolicyFolder(o.PolicyDir)
	}
	options := service.Options{Sources: sources, Version: o.Version, Managed: o.Managed}
	if place := platform.SystemPaths().Handover; place != "" {
		options.Handover = func(keep func(platform.Handover) error) error { return platform.TakeHandover(place, keep) }
	}
	if term.IsTerminal(int(os.Stderr.Fd())) { // somebody runs it by hand, and looks
		options.Console = os.Stderr
	}
	return service.Serve(ctx, options)
}

func control(_ context.Context, action ControlAction) error {
	said, err := service.Control(string(action), nil)
	if said != "" {
		_, _ = os.Stdout.WriteString(said + "\n")
	}
	return err
}

// version is set by the linker where a release is built.
var version string

// builtAs is the version: the linker's, or the module's as the Go tool stamped it.
func builtAs() string {
	if version != "" {
		return version
	}
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

package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/kardianos/service"

	"smime-agent/platform"
)

// Actions are what [Control] takes.
var Actions = []string{"install", "uninstall", "start", "stop", "restart", "status"}

// Serve runs the service until ctx ends or the service manager stops it. Options
// say whether a service manager started it or a person.
func Serve(ctx context.Context, o Options) error {
	if !o.Managed {
		return Run(ctx, o)
	}
	system, err := platform.OpenSystemLog(name())
	if err == nil {
		o.system = system
		defer func() { _ = system.Close() }() // nobody is left to be told
	}
	return platform.RunManaged(ctx, name(), func(ctx context.Context) error {
		// The installer may not have said all that the service manager should know.
		if err := platform.PrepareService(name()); err != nil {
			o.tell(slog.LevelWarn, "The service manager did not take all settings.", err)
		}
		err := Run(ctx, o)
		if err != nil && !errors.Is(err, context.Canceled) {
			o.tell(slog.LevelError, "The S/MIME agent cannot run.", err)
		}
		return err
	})
}

// tell writes to the system's log where there is one: the service's own may not
// be open yet, or no more.
func (o Options) tell(level slog.Level, text string, err error) {
	if o.system != nil {
		_ = o.system.Write(level, fmt.Sprintf("%s\n%v", text, err))
	}
}

// controlLimit bounds what the service manager is asked: kardianos/service waits
// for ever on a service that does not stop.
const controlLimit = 90 * time.Second

// Control installs, removes, starts, stops or asks after the service, and says
// what the service manager answered. On Linux the package's own unit is better:
// it is hardened, and restarts at once (docs/architecture.md).
func Control(action string, arguments []string) (string, error) {
	if !slices.Contains(Actions, action) {
		return "", fmt.Errorf("service %s: no such action", action)
	}
	type answer struct {
		said string
		err  error
	}
	answered := make(chan answer, 1)
	go func() {
		said, err := controlNow(action, arguments)
		answered <- answer{said, err}
	}()
	select {
	case a := <-answered:
		return a.said, a.err
	case <-time.After(controlLimit):
		return "", fmt.Errorf("service %s: the service manager did not answer within %v", action, controlLimit)
	}
}

func controlNow(action string, arguments []string) (string, error) {
	d := definition()
	d.Arguments = append(d.Arguments, arguments...)
	s, err := service.New(unstarted{}, d)
	if err != nil {
		return "", fmt.Errorf("meet the service manager: %w", err)
	}
	if action == "status" {
		return manager(s)
	}
	if err := service.Control(s, action); err != nil {
		return "", fmt.Errorf("service %s: %w", action, err)
	}
	if action == "install" {
		return "", platform.PrepareService(name())
	}
	return "", nil
}

func manager(s service.Service) (string, error) {
	if state, err := platform.ServiceState(name()); !errors.Is(err, platform.ErrUnsupported) {
		return state, err
	}
	switch st, err := s.Status(); {
	case errors.Is(err, service.ErrNotInstalled):
		return "not installed", nil
	case err != nil:
		return "", fmt.Errorf("service status: %w", err)
	case st == service.StatusRunning:
		return "running", nil
	case st == service.StatusStopped:
		return "stopped", nil
	}
	return "unknown", nil
}

// name is the service's in the system's service manager.
func name() string { return platform.SystemPaths().Service }

func definition() *service.Config {
	return &service.Config{
		Name: name(), DisplayName: "S/MIME Agent",
		Description: "Gives the people on this computer S/MIME certificates and keeps them working.",
		Arguments:   []string{"service", "run", "--managed"},
		// What Windows is to know beside this, platform.PrepareService sets: with
		// options that the system refuses, kardianos/service leaves half an
		// installation behind.
		Option: service.KeyValue{"Restart": "on-failure", "RunAtLoad": true, "KeepAlive": true},
	}
}

// unstarted is the service as kardianos/service wants to have it: something to
// start and stop. It only ever installs and controls; [platform.RunManaged] runs.
type unstarted struct{}

func (unstarted) Start(service.Service) error { return errors.ErrUnsupported }
func (unstarted) Stop(service.Service) error  { return errors.ErrUnsupported }

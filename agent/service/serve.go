package service

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/kardianos/service"

	"smime-agent/platform"
)

// Actions are what [Control] takes.
var Actions = []string{"install", "uninstall", "start", "stop", "restart", "status"}

// Serve runs the service until ctx ends or the service manager stops it.
func Serve(ctx context.Context, o Options) error {
	if service.Interactive() {
		return Run(ctx, o)
	}
	p := &program{ctx: ctx, options: o}
	s, err := service.New(p, definition())
	if err != nil {
		return fmt.Errorf("meet the service manager: %w", err)
	}
	return errors.Join(s.Run(), p.result)
}

// Control installs, removes, starts, stops or asks after the service, and says
// what the service manager answered. On Linux the package's own unit is better:
// it is hardened, and restarts at once (docs/architecture.md).
func Control(action string, arguments []string) (string, error) {
	if !slices.Contains(Actions, action) {
		return "", fmt.Errorf("service %s: no such action", action)
	}
	d := definition()
	d.Arguments = append(d.Arguments, arguments...)
	s, err := service.New(&program{}, d)
	if err != nil {
		return "", fmt.Errorf("meet the service manager: %w", err)
	}
	if action == "status" {
		return manager(s)
	}
	if err := service.Control(s, action); err != nil {
		return "", fmt.Errorf("service %s: %w", action, err)
	}
	return "", nil
}

func manager(s service.Service) (string, error) {
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

func definition() *service.Config {
	return &service.Config{
		Name: platform.SystemPaths().Service, DisplayName: "S/MIME Agent",
		Description: "Gives the people on this computer S/MIME certificates and keeps them working.",
		Arguments:   []string{"service", "run"},
		Option: service.KeyValue{
			"Restart": "on-failure", "OnFailure": "restart", "DelayedAutoStart": true, "RunAtLoad": true, "KeepAlive": true,
		},
	}
}

// program is what the service manager starts and stops; neither may block.
type program struct {
	ctx     context.Context
	options Options
	cancel  context.CancelFunc
	done    chan struct{}
	result  error
}

// Start begins the work.
func (p *program) Start(s service.Service) error {
	ctx, cancel := context.WithCancel(p.ctx)
	p.cancel, p.done = cancel, make(chan struct{})
	go func() {
		defer close(p.done)
		if err := Run(ctx, p.options); err != nil && !errors.Is(err, context.Canceled) {
			p.result = err
			_ = s.Stop() // the service manager then restarts us, as it is told to
		}
	}()
	return nil
}

// Stop ends it, and waits until everything is down.
func (p *program) Stop(service.Service) error {
	p.cancel()
	<-p.done
	return nil
}

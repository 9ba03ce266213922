package platform

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/registry"
	"golang.org/x/sys/windows/svc"
	"golang.org/x/sys/windows/svc/eventlog"
	"golang.org/x/sys/windows/svc/mgr"

	"smime-agent/platform/internal/win32"
)

// runManaged speaks with the service manager without asking first whether it is
// there: under Wine svc.IsWindowsService denies it inside a service too.
func runManaged(ctx context.Context, name string, run func(context.Context) error) error {
	heedNoConsole()
	die := os.Exit //nolint:forbidigo // see managed.ended
	m := &managed{ctx: ctx, run: run, die: die, patience: stopHint * time.Millisecond}
	if win32.Wine() { // its service manager does not see the end of a process, and starts nothing again
		m.die = func(int) {}
	}
	if err := svc.Run(name, m); err != nil {
		return fmt.Errorf("meet the service manager: %w", err)
	}
	return m.failed
}

// heedNoConsole leaves to the system what it tells programs of a console. A service
// is told by CTRL_LOGOFF_EVENT of everybody who logs off, whoever that is (Microsoft
// Learn, HandlerRoutine), and to Go that is the signal to end.
func heedNoConsole() { signal.Reset(StopSignals()...) }

// managed is the work between the service manager's start and stop.
type managed struct {
	ctx context.Context
	run func(context.Context) error
	// die ends the process and does not return, but in tests and under Wine.
	die func(code int)
	// patience is how long the work may take to end when it is to stop.
	patience time.Duration
	failed   error
}

const exitFailed = 1

var errOverdue = errors.New("the service did not stop in time: its process ends without it")

// stopHint is how long the service manager shall wait for the end, in
// milliseconds, and for how long after a shutdown began.
const stopHint = 20_000

// Execute reports "running" at once: all work is done beside it, because the
// service manager gives a start half a minute.
func (m *managed) Execute(_ []string, requests <-chan svc.ChangeRequest, states chan<- svc.Status) (own bool, code uint32) {
	const accepts = svc.AcceptStop | svc.AcceptShutdown | svc.AcceptPreShutdown
	ctx, cancel := context.WithCancel(m.ctx)
	defer cancel()
	done := make(chan error, 1)
	var overdue <-chan time.Time
	states <- svc.Status{State: svc.Running, Accepts: accepts}
	go func() { done <- m.run(ctx) }()
	for {
		select {
		case err := <-done:
			return m.ended(ctx.Err() != nil, err)
		case <-overdue: // whatever holds it up, the next start must not wait for it
			m.failed = errOverdue
			return false, 0
		case r := <-requests:
			switch r.Cmd {
			case svc.Interrogate:
				states <- r.CurrentStatus
			case svc.Stop, svc.Shutdown, svc.PreShutdown:
				states <- svc.Status{State: svc.StopPending, WaitHint: stopHint}
				if overdue == nil {
					overdue = time.After(m.patience)
				}
				cancel()
			default: // what was not accepted does not come
			}
		}
	}
}

// ended says to the service manager how the work ended. After a stop that is
// always well: an error would have the service started again, which somebody has
// stopped. An error of its own ends the process without a word: that counts as a
// failure at once, but an exit code only when the system has been started since
// the service was prepared (SERVICE_FAILURE_ACTIONS_FLAG, Remarks).
func (m *managed) ended(stopped bool, err error) (own bool, code uint32) {
	if err == nil || stopped && errors.Is(err, context.Canceled) {
		return false, 0
	}
	m.failed = err
	if stopped {
		return false, 0
	}
	m.die(exitFailed)
	return true, exitFailed
}

// The failure count of a service that has run for a day begins anew.
const failuresForgotten = 24 * 60 * 60 // seconds

func restarts() []mgr.RecoveryAction {
	return []mgr.RecoveryAction{
		{Type: mgr.ServiceRestart, Delay: 5 * time.Second},
		{Type: mgr.ServiceRestart, Delay: 30 * time.Second},
		{Type: mgr.ServiceRestart, Delay: 2 * time.Minute}, // and ever after
	}
}

// privileges are all that the service keeps of LocalSystem's: to pass through
// folders, as every account may, and to ask who is at the other end of a pipe.
var privileges = []string{"SeChangeNotifyPrivilege", "SeImpersonatePrivilege"}

func prepareService(name string) error {
	m, err := mgr.Connect()
	if err != nil {
		return fmt.Errorf("prepare service %s: %w", name, denied(err))
	}
	defer func() { _ = m.Disconnect() }()
	s, err := m.OpenService(name)
	if errors.Is(err, windows.ERROR_SERVICE_DOES_NOT_EXIST) {
		return fmt.Errorf("prepare service %s: %w: %w", name, ErrNotFound, err)
	}
	if err != nil {
		return fmt.Errorf("prepare service %s: %w", name, denied(err))
	}
	defer func() { _ = s.Close() }()
	err = errors.Join(
		step("restart after a failure", s.SetRecoveryActions(restarts(), failuresForgotten)),
		step("restart after an error too", s.SetRecoveryActionsOnNonCrashFailures(true)),
		step("start late", win32.DelayStart(s.Handle)),
		step("drop privileges", win32.RequirePrivileges(s.Handle, privileges)),
		step("register with the event log", registerEvents(name)),
		step("quote the program's path", quoteProgram(s.Handle)),
	)
	if err != nil {
		return fmt.Errorf("prepare service %s: %w", name, err)
	}
	return nil
}

// step names what went wrong. A system that does not know such a thing, as Wine
// does not know some, does without it.
func step(what string, err error) error {
	if err == nil || errors.Is(err, windows.ERROR_INVALID_LEVEL) {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

// quoteProgram puts the program's path into quotes, if whoever installed the
// service did not, as Wine's installer does not: without them Windows would also
// start a C:\Program.exe.
func quoteProgram(service windows.Handle) error {
	line, err := win32.ServiceProgram(service)
	if err != nil {
		return err
	}
	path, arguments, found := strings.Cut(line, ".exe")
	if !found || strings.HasPrefix(path, `"`) || !strings.Contains(path, " ") {
		return nil
	}
	return win32.SetServiceProgram(service, `"`+path+`.exe"`+arguments)
}

const eventSources = `SYSTEM\CurrentControlSet\Services\EventLog\Application\`

// registerEvents names EventCreate.exe as the program that has the texts: it has
// one that is nothing but what it is given, for the numbers 1 to 1000.
func registerEvents(name string) error {
	k, err := registry.OpenKey(registry.LOCAL_MACHINE, eventSources+name, registry.QUERY_VALUE)
	if err == nil {
		return k.Close()
	}
	return eventlog.InstallAsEventCreate(name, eventlog.Error|eventlog.Warning|eventlog.Info)
}

// serviceState asks for no more than the right to ask: kardianos/service wants
// to start and stop too, which a user may not.
func serviceState(name string) (string, error) {
	h, err := windows.OpenSCManager(nil, nil, windows.SC_MANAGER_CONNECT)
	if err != nil {
		return "", fmt.Errorf("ask the service manager: %w", denied(err))
	}
	defer func() { _ = windows.CloseServiceHandle(h) }()
	wide, err := windows.UTF16PtrFromString(name)
	if err != nil {
		return "", err
	}
	s, err := windows.OpenService(h, wide, windows.SERVICE_QUERY_STATUS)
	if errors.Is(err, windows.ERROR_SERVICE_DOES_NOT_EXIST) {
		return "not installed", nil
	}
	if err != nil {
		return "", fmt.Errorf("ask the service manager: %w", denied(err))
	}
	defer func() { _ = windows.CloseServiceHandle(s) }()
	var st windows.SERVICE_STATUS
	if err := windows.QueryServiceStatus(s, &st); err != nil {
		return "", fmt.Errorf("ask the service manager: %w", err)
	}
	if st.CurrentState == windows.SERVICE_STOPPED || st.CurrentState == windows.SERVICE_STOP_PENDING {
		return "stopped", nil
	}
	return "running", nil
}

package service

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"smime-agent/agent/local"
)

// errHung ends a service that answers nobody any more.
var errHung = errors.New("the service did not answer itself: it ends, for the service manager to start it again")

// hangFile, in the folder of logs, says what every goroutine did when the service
// gave itself up last.
const hangFile = "hang.txt"

// selfCheck is how a service notices that it hangs: it asks for the status as
// everybody does, through the door and past every lock on the way. Whatever keeps
// that from an answer keeps people from their mail, and no service manager sees
// it: the process is there.
type selfCheck struct {
	// every is the pause after an answer, again the one after none. Patience is
	// how long one answer may take: an overloaded machine is no hang.
	every, again, patience time.Duration
	ask                    func(context.Context) error
}

func newSelfCheck(every time.Duration, address string) selfCheck {
	return selfCheck{every: every, again: min(every, time.Minute), patience: min(every, 2*time.Minute), ask: askAt(address)}
}

// askAgain is the pause before the next attempt within the patience of one question.
const askAgain = time.Second

// askAt asks the service at an address for its status until it answers or ctx
// ends: on a machine that is overloaded a connection can be refused that the next
// moment is not. A refusal is no answer, for it comes from before the locks; the
// service's own process gets none for what others do (agent/local counts it apart).
func askAt(address string) func(context.Context) error {
	return func(ctx context.Context) error {
		for {
			err := askOnce(ctx, address)
			if err == nil {
				return nil
			}
			select {
			case <-ctx.Done():
				return err
			case <-time.After(askAgain):
			}
		}
	}
}

func askOnce(ctx context.Context, address string) error {
	client, err := local.Dial(ctx, address)
	if err != nil {
		return err
	}
	_, err = client.Status(ctx)
	return errors.Join(err, client.Close())
}

// watch returns why the service is to end, or nil when ctx ends. One answer that
// did not come can have been a machine that woke up; two are a hang.
func (c selfCheck) watch(ctx context.Context) error {
	pause, failed := c.every, error(nil)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		err := c.once(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			pause, failed = c.every, nil
		case failed != nil:
			return fmt.Errorf("%w: %w", errHung, err)
		default:
			pause, failed = c.again, err
		}
	}
}

func (c selfCheck) once(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.patience)
	defer cancel()
	return c.ask(ctx)
}

// outlast waits for the end of the work, but no longer than the service is alive:
// what hangs would hold up its end too. In a hang, file tells what was going on.
func (s *Service) outlast(ctx context.Context, c selfCheck, file string, work func() error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended, hung := make(chan error, 1), make(chan error, 1)
	go func() { ended <- work() }()
	go func() {
		if err := c.watch(ctx); err != nil {
			hung <- err
		}
	}()
	select {
	case err := <-ended:
		return err
	case err := <-hung:
		s.giveUp(file, err)
		return err
	}
}

// giveUp leaves what the next engineer needs. It takes no lock of the service's.
func (s *Service) giveUp(file string, why error) {
	stacks := make([]byte, 4<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	err := os.WriteFile(file, stacks, 0o600)
	s.log.Error("service hangs", "error", why, "goroutines", file, "written", err == nil)
}

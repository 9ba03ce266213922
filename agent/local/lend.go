package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"smime-agent/agent/enroll"
	localv1 "smime-agent/proto/local/v1"
)

// Lending is what a helper lends.
type Lending struct {
	Hello Hello
	// Session does the work. Its methods are called concurrently.
	Session enroll.Session
	// Changed gets a value when the user's stores have changed; nil if nobody looks.
	Changed <-chan struct{}
	// Report is told, if not nil, when the service has taken the session (nil)
	// and, by [Dialer.AttachForever], why it has not, once for each change.
	Report func(err error)
}

// taskGrace is how long tasks may go on when their stream has ended. A store's
// library may not heed a context; then its goroutine is left behind to finish.
const taskGrace = 2 * time.Second

// Attach lends a session until ctx ends (then it returns nil) or the service
// goes. It serves each task in a goroutine of its own.
func (c *Client) Attach(ctx context.Context, l Lending) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.api.Attach(ctx)
	if err != nil {
		return fromStatus(err)
	}
	hello := &localv1.Hello{Version: l.Hello.Version, Locale: l.Hello.Locale, Upn: wellFormed(l.Hello.UPN)}
	w := &worker{session: l.Session, locale: l.Hello.Locale, stream: stream, running: map[uint64]context.CancelFunc{}}
	if err := w.send(&localv1.AttachRequest{Message: &localv1.AttachRequest_Hello{Hello: hello}}); err != nil {
		return w.why(err)
	}
	// The headers come when the service has taken the session; a stream that it
	// refuses ends without them.
	if md, err := stream.Header(); err == nil && md != nil && l.Report != nil {
		l.Report(nil)
	}
	go w.tell(ctx, l.Changed)
	err = w.serve(ctx)
	cancel()
	w.finish()
	return err
}

// worker serves the tasks of one stream.
type worker struct {
	session enroll.Session
	locale  string
	stream  localv1.AgentService_AttachClient
	sending sync.Mutex

	mu      sync.Mutex
	running map[uint64]context.CancelFunc
	tasks   sync.WaitGroup
}

func (w *worker) send(m *localv1.AttachRequest) error {
	w.sending.Lock()
	defer w.sending.Unlock()
	return w.stream.Send(m)
}

// why finds the status behind the io.EOF that a send on a dead stream gives.
func (w *worker) why(err error) error {
	if errors.Is(err, io.EOF) {
		_, err = w.stream.Recv()
	}
	return fromStatus(err)
}

// tell passes on that the stores have changed.
func (w *worker) tell(ctx context.Context, changed <-chan struct{}) {
	for {
		select {
		case <-ctx.Done():
			return
		case _, open := <-changed:
			if !open {
				return
			}
			m := &localv1.AttachRequest{Message: &localv1.AttachRequest_Changed{Changed: &localv1.Changed{}}}
			if w.send(m) != nil {
				return // serve learns why
			}
		}
	}
}

func (w *worker) serve(ctx context.Context) error {
	for {
		m, err := w.stream.Recv()
		if ended(ctx, err) {
			return nil
		}
		if errors.Is(err, io.EOF) {
			return &Error{Reason: ReasonNotRunning, Err: err}
		}
		if err != nil {
			return fromStatus(err)
		}
		switch what := m.GetMessage().(type) {
		case *localv1.AttachResponse_Task:
			w.start(ctx, what.Task)
		case *localv1.AttachResponse_Cancel:
			w.stop(what.Cancel.GetTaskId())
		}
	}
}

func (w *worker) start(ctx context.Context, t *localv1.Task) {
	ctx, cancel := context.WithCancel(ctx)
	w.mu.Lock()
	w.running[t.GetId()] = cancel
	w.mu.Unlock()
	w.tasks.Go(func() {
		defer w.stop(t.GetId())
		result := work(ctx, w.session, t, w.locale)
		if ctx.Err() != nil {
			return // nobody awaits it
		}
		if w.send(&localv1.AttachRequest{Message: &localv1.AttachRequest_Result{Result: result}}) != nil {
			return // serve learns why
		}
	})
}

func (w *worker) stop(id uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if cancel, ok := w.running[id]; ok {
		cancel()
		delete(w.running, id)
	}
}

// finish waits for the tasks, but not for one that heeds nothing.
func (w *worker) finish() {
	ended := make(chan struct{})
	go func() {
		w.tasks.Wait()
		close(ended)
	}()
	limit := time.NewTimer(taskGrace)
	defer limit.Stop()
	select {
	case <-ended:
	case <-limit.C:
	}
}

// work does one task. A panic in a store's binding ends the task, not the helper.
func work(ctx context.Context, s enroll.Session, t *localv1.Task, locale string) (r *localv1.TaskResult) {
	r = &localv1.TaskResult{TaskId: t.GetId()}
	defer func() {
		if broken := recover(); broken != nil {
			r = &localv1.TaskResult{TaskId: t.GetId(), Failure: fromError(fmt.Errorf("task broke: %v", broken))}
		}
	}()
	if err := do(ctx, s, t, r, locale); err != nil {
		return &localv1.TaskResult{TaskId: t.GetId(), Failure: fromError(err)}
	}
	return r
}

func do(ctx context.Context, s enroll.Session, t *localv1.Task, r *localv1.TaskResult, locale string) error {
	switch what := t.GetWhat().(type) {
	case *localv1.Task_Inventory:
		i, err := s.Inventory(ctx, toModules(what.Inventory.GetModules()))
		r.What = &localv1.TaskResult_Inventory{Inventory: fromInventory(i)}
		return err
	case *localv1.Task_Request:
		made, err := s.MakeRequest(ctx, toRequestWanted(what.Request))
		r.What = &localv1.TaskResult_Request{Request: &localv1.RequestResult{
			Csr: made.CSR, Algorithm: made.Algorithm, Protection: made.Protection,
		}}
		return err
	case *localv1.Task_Install:
		r.What = &localv1.TaskResult_Install{Install: &localv1.InstallResult{}}
		return s.Install(ctx, toInstallWanted(what.Install))
	case *localv1.Task_Prove:
		p, err := s.Prove(ctx, toProofWanted(what.Prove))
		r.What = &localv1.TaskResult_Prove{Prove: fromProof(p)}
		return err
	case *localv1.Task_Prepare:
		all, err := s.Prepare(ctx, toPrepareWanted(what.Prepare))
		r.What = &localv1.TaskResult_Prepare{Prepare: fromMailAccounts(all)}
		return err
	case *localv1.Task_Undo:
		w := toPrepareWanted(what.Undo)
		w.Undo = true
		all, err := s.Prepare(ctx, w)
		r.What = &localv1.TaskResult_Prepare{Prepare: fromMailAccounts(all)}
		return err
	case *localv1.Task_Discard:
		d := what.Discard
		return s.Discard(ctx, d.GetStore(), enroll.ID(d.GetEnrollmentId()), toModules(d.GetModules()))
	case *localv1.Task_Publish:
		value, err := s.Publish(ctx, toPublishWanted(what.Publish))
		r.What = &localv1.TaskResult_Publish{Publish: &localv1.PublishResult{Value: value}}
		return err
	case *localv1.Task_Partners:
		p, err := s.FilePartners(ctx, what.Partners.GetCertificates())
		r.What = &localv1.TaskResult_Partners{Partners: fromPartnersFiled(p)}
		return err
	case *localv1.Task_Ask:
		v, err := s.Ask(ctx, toQuestion(what.Ask, locale))
		r.What = &localv1.TaskResult_Ask{Ask: &localv1.AskResult{Verdict: string(v)}}
		return err
	case *localv1.Task_Code:
		code, err := s.EnterCode(ctx, toCodeQuestion(what.Code))
		r.What = &localv1.TaskResult_Code{Code: &localv1.CodeResult{Code: wellFormed(code)}}
		return err
	case *localv1.Task_Notify:
		return s.Notify(ctx, toNotice(what.Notify))
	default:
		return odd() // a newer service's task
	}
}

// How long a helper waits before it dials again: from againFirst to againLast,
// with full jitter, while the service is not there at all, so that a machine is
// not woken for nothing. A service that took the session and went is there and
// restarts: it is dialed every few seconds, however often it goes, and from
// againFirst on if the session held.
const (
	againFirst = time.Second
	againSoon  = 5 * time.Second
	againLast  = 10 * time.Minute
	heldLong   = time.Minute
)

// AttachForever lends a session whenever the service is there, until ctx ends.
// While the service is absent it dials ever more seldom, at last every few minutes; while the
// session is lent it sleeps until there is a task.
func (d Dialer) AttachForever(ctx context.Context, l Lending) {
	wait, lent, told := againFirst, time.Time{}, false
	report := l.Report
	l.Report = func(err error) {
		switch {
		case err == nil:
			lent, told = time.Now(), false
		case told:
			return
		default:
			told = true
		}
		if report != nil {
			report(err)
		}
	}
	for ctx.Err() == nil {
		lent = time.Time{}
		err := d.attachOnce(ctx, l)
		if ctx.Err() != nil {
			return
		}
		l.Report(err)
		switch {
		case lent.IsZero(): // nobody took the session
		case time.Since(lent) > heldLong:
			wait = againFirst
		default:
			wait = min(wait, againSoon)
		}
		if !pause(ctx, jitter(wait)) {
			return
		}
		wait = min(2*wait, againLast)
	}
}

func (d Dialer) attachOnce(ctx context.Context, l Lending) error {
	c, err := d.Connect(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }() // the stream's error says more
	return c.Attach(ctx, l)
}

// jitter is between a half and the whole, so that the helpers of a terminal
// server do not all come at once when the service is back.
func jitter(d time.Duration) time.Duration {
	return d/2 + rand.N(d/2+1) //nolint:gosec // spreads load, guards nothing
}

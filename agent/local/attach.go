package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"time"

	"google.golang.org/grpc"

	localv1 "smime-agent/proto/local/v1"
)

const (
	// changedPause is the shortest time between two calls of Attacher.Changed.
	changedPause = 5 * time.Second
	// What a helper may say: messages per second in the long run, and at once.
	attachRate, attachBurst = 20, 200
	attachPause             = 100 * time.Millisecond
)

type attachStream = grpc.BidiStreamingServer[localv1.AttachRequest, localv1.AttachResponse]

// Attach lends a helper's session to the service until the stream ends.
func (s *service) Attach(stream attachStream) error {
	p, ok := caller(stream.Context())
	if !ok {
		return &Error{Reason: ReasonDenied}
	}
	done, ok := s.callers.session(p.User)
	if !ok {
		return &Error{Reason: ReasonTooMany}
	}
	defer done()
	hello, err := s.hello(stream)
	if err != nil {
		return err
	}
	if err := stream.SendHeader(nil); err != nil { // tells the helper that it is taken
		return err
	}
	r := newRemote(hello.Locale)
	defer r.end()
	a := &Attachment{Peer: p, Account: s.accountOf(p.User), Hello: hello, Since: s.now(), Session: r}
	changed := make(chan struct{}, 1)
	go s.read(stream, r, changed)
	go write(stream, r)

	s.sessions.add(a)
	s.agent.Attached(*a)
	defer func() {
		r.end()
		s.sessions.remove(a)
		s.agent.Detached(*a)
	}()
	s.listen(stream.Context(), a, r, changed)
	return nil
}

// listen passes changes on, not too often, until the session ends.
func (s *service) listen(ctx context.Context, a *Attachment, r *remote, changed chan struct{}) {
	open := changed
	rest := time.NewTimer(0)
	defer rest.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.done:
			return
		case <-open:
			s.agent.Changed(*a)
			open = nil
			rest.Reset(changedPause)
		case <-rest.C:
			open = changed
		}
	}
}

// hello waits for the helper's first message.
func (s *service) hello(stream attachStream) (Hello, error) {
	type first struct {
		m   *localv1.AttachRequest
		err error
	}
	got := make(chan first, 1)
	go func() { // ends with the stream
		m, err := stream.Recv()
		got <- first{m, err}
	}()
	limit := time.NewTimer(s.limits.Handshake)
	defer limit.Stop()
	select {
	case f := <-got:
		if f.err != nil {
			return Hello{}, f.err
		}
		h := f.m.GetHello()
		if h == nil {
			return Hello{}, &Error{Reason: ReasonInvalid, Text: "The first message of a helper is its hello."}
		}
		return Hello{Version: plain(h.GetVersion()), Locale: plain(h.GetLocale()), UPN: plain(h.GetUpn())}, nil
	case <-limit.C:
		return Hello{}, &Error{Reason: ReasonInvalid, Text: "The helper said nothing."}
	}
}

// read takes what the helper says until the stream ends.
func (s *service) read(stream attachStream, r *remote, changed chan struct{}) {
	defer r.end()
	defer func() {
		if broken := recover(); broken != nil {
			s.log.Error("helper's message broke the reader", "panic", fmt.Sprint(broken), "stack", string(debug.Stack()))
		}
	}()
	b := newBucket(attachRate, attachBurst, s.now())
	for {
		m, err := stream.Recv()
		if err != nil {
			if !errors.Is(err, io.EOF) && stream.Context().Err() == nil {
				s.log.Warn("helper's stream broke", "error", err)
			}
			return
		}
		switch what := m.GetMessage().(type) {
		case *localv1.AttachRequest_Result:
			r.deliver(what.Result)
		case *localv1.AttachRequest_Changed:
			select {
			case changed <- struct{}{}:
			default: // one is waiting already
			}
		}
		for !b.take(s.now()) {
			// Not reading is what slows the other end down.
			if !pause(stream.Context(), attachPause) {
				return
			}
		}
	}
}

// write sends what is queued until the session ends.
func write(stream attachStream, r *remote) {
	defer r.end()
	for {
		select {
		case <-r.done:
			return
		case m := <-r.out:
			if stream.Send(m) != nil {
				return // the reader learns why
			}
		}
	}
}

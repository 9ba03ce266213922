// Package helper is the user's session: it makes keys in the stores of the
// logged-in user, files certificates beside them, proves that they work, and
// asks the person. It lends all this to the service as an [enroll.Session]; no
// private key and no signature of a chosen text crosses the border.
package helper

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"smime-agent/agent/enroll"
	"smime-agent/platform"
)

// Words puts into the person's language what the session shows.
type Words interface {
	// Question is the consent prompt; the session sets its timeout.
	Question(q enroll.Question) platform.Question
	// Notice tells without asking.
	Notice(n enroll.Notice) platform.Notice
	Entries
	// Hint says what is wrong and what to do: one or two sentences.
	Hint(code enroll.Code, store string) string
}

// Entries are the dialogs that want one line typed.
type Entries interface {
	// PIN asks for a store's PIN or password; retry says that the last was wrong.
	PIN(store string, retry bool) platform.Entry
	// Code asks for the code that was mailed; the session sets its timeout.
	Code(q enroll.CodeQuestion) platform.Entry
}

// Session does what only the logged-in user may do. Set its fields before the
// first use; after that it is safe for concurrent use. Work on one store is done
// one piece at a time.
type Session struct {
	// Stores finds the user's stores, as [platform.Stores] does. It should let
	// them ask for PINs by [Session.PIN].
	Stores func(ctx context.Context, modules []platform.Module) ([]platform.Store, error)
	// MailPrograms are those of the user, as [platform.MailPrograms] gives them; nil
	// for none.
	MailPrograms func() []platform.MailProgram
	Prompter     platform.Prompter
	Words        Words
	Now          func() time.Time
	Log          *slog.Logger
	// PromptTimeout closes a dialog for a PIN that nobody answers; 0 is
	// [DefaultPromptTimeout]. How long a question stays is the service's to say.
	PromptTimeout time.Duration
	// Stuck is told, if not nil, of a store that has been held for StuckAfter at a
	// stretch (0 is [DefaultStuckAfter]): a driver whose call never returns holds its
	// store for ever. Nothing but the end of the process frees it.
	Stuck      func(store string)
	StuckAfter time.Duration

	turns turns
	mu    sync.Mutex
	// modules are those of the last inventory; watching looks at the same stores.
	modules []enroll.Module
	// awaiting is what waits for mail programs to be closed.
	awaiting  map[enroll.ID]enroll.PrepareWanted
	wakeClose chan struct{}
}

var _ enroll.Session = (*Session)(nil)

// DefaultPromptTimeout is long enough for a cup of tea; afterwards the store
// counts as locked.
const DefaultPromptTimeout = 15 * time.Minute

// DefaultStuckAfter is longer than anybody waits for a task, with a dialog for a
// PIN within it.
const DefaultStuckAfter = DefaultPromptTimeout + 5*time.Minute

// turn waits for a store, or for the listing of all, and minds how long it is held.
func (s *Session) turn(ctx context.Context, store string) (release func(), err error) {
	free, err := s.turns.take(ctx, store)
	if err != nil {
		return nil, err
	}
	after := s.StuckAfter
	if after <= 0 {
		after = DefaultStuckAfter
	}
	minded := time.AfterFunc(after, func() {
		s.Log.Error("store hangs", "store", store, "held", after.String())
		if s.Stuck != nil {
			s.Stuck(store)
		}
	})
	return func() {
		minded.Stop()
		free()
	}, nil
}

func (s *Session) promptTimeout() time.Duration {
	if s.PromptTimeout > 0 {
		return s.PromptTimeout
	}
	return DefaultPromptTimeout
}

// turns lets one at a time use what has a name.
type turns struct {
	mu     sync.Mutex
	byName map[string]chan struct{}
}

// take waits for the turn, or for the end of ctx.
func (t *turns) take(ctx context.Context, name string) (release func(), err error) {
	t.mu.Lock()
	if t.byName == nil {
		t.byName = map[string]chan struct{}{}
	}
	turn, ok := t.byName[name]
	if !ok {
		turn = make(chan struct{}, 1)
		t.byName[name] = turn
	}
	t.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	select {
	case turn <- struct{}{}:
		return func() { <-turn }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// The turns of dialogs; no store has such a name.
const (
	turnOfQuestion = "dialog question"
	turnOfPIN      = "dialog pin"
	turnOfListing  = "listing"
)

// job is what a task wants of one store.
type job[T any] struct {
	store   string
	id      enroll.ID
	modules []enroll.Module
	do      func(ctx context.Context, store platform.Store) (T, error)
}

// ours refuses keys that the agent did not name, whoever asks for them.
func (s *Session) ours(store string, id enroll.ID) error {
	if strings.HasPrefix(string(id), enroll.IDPrefix) && len(id) > len(enroll.IDPrefix) {
		return nil
	}
	return s.fail(enroll.Final, enroll.CodeInternal, store, fmt.Errorf("key %q does not bear one of our names", id))
}

// run does a job when the store is free. It returns when ctx ends, even if the
// store does not: making an RSA key in a card cannot be stopped. The work then
// goes on alone and keeps its turn, and what it made is found by its name when
// the task comes again.
func run[T any](ctx context.Context, s *Session, j job[T]) (T, error) {
	var none T
	if err := s.ours(j.store, j.id); err != nil {
		return none, err
	}
	release, err := s.turn(ctx, j.store)
	if err != nil {
		return none, s.failure(aboutStore, j.store, fmt.Errorf("wait for store %s: %w", j.store, err))
	}
	type outcome struct {
		value T
		err   error
	}
	done := make(chan outcome, 1)
	go func() {
		var o outcome
		defer func() { done <- o }()
		defer release()
		defer func() {
			if r := recover(); r != nil {
				o.err = fmt.Errorf("store %s broke down: %v", j.store, r)
			}
		}()
		var store platform.Store
		if store, o.err = s.open(ctx, j.store, j.modules); o.err == nil {
			o.value, o.err = j.do(ctx, store)
		}
	}()
	select {
	case o := <-done:
		return o.value, s.failure(aboutStore, j.store, o.err)
	case <-ctx.Done():
		return none, s.failure(aboutStore, j.store, fmt.Errorf("use store %s: %w", j.store, ctx.Err()))
	}
}

package platform

import (
	"context"
	"errors"
	"fmt"
)

// What an attempt to use a store may say of its PIN.
var (
	errPINWanted = errors.New("a PIN is wanted")
	errPINWrong  = errors.New("the PIN is wrong")
)

// wrongPINs is how many wrong PINs one operation tries. Cards block for good
// after three to ten.
const wrongPINs = 2

// pinKeeper asks for a store's PIN when it is needed and remembers the right
// one, in memory only, for as long as the store is held. It never tries a PIN
// that was refused a second time, so that a wrong PIN kept somewhere cannot
// block a token by being repeated.
type pinKeeper struct {
	ask PINFunc
	// turn holds the state; who takes it may ask.
	turn chan pinState
}

type pinState struct {
	right   string
	known   bool
	refused map[string]bool
}

func newPINKeeper(ask PINFunc) *pinKeeper {
	k := &pinKeeper{ask: ask, turn: make(chan pinState, 1)}
	k.turn <- pinState{refused: map[string]bool{}}
	return k
}

// remembers says that no question is needed.
func (k *pinKeeper) remembers(ctx context.Context) bool {
	select {
	case state := <-k.turn:
		k.turn <- state
		return state.known
	case <-ctx.Done():
		return false
	}
}

// with runs once without a PIN or with the remembered one, and asks as long as
// once says that one is wanted or wrong.
func (k *pinKeeper) with(ctx context.Context, store string, once func(pin string, known bool) error) error {
	var state pinState
	select {
	case state = <-k.turn:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { k.turn <- state }()

	err := once(state.right, state.known)
	for wrong := 0; ; {
		switch {
		case errors.Is(err, errPINWrong):
			state.refused[state.right] = true
			state.right, state.known = "", false
			wrong++
		case !errors.Is(err, errPINWanted):
			return err
		}
		if wrong >= wrongPINs {
			return fmt.Errorf("%d wrong PINs: %w", wrong, lockedBy(err))
		}
		pin, e := k.enter(ctx, store, wrong > 0)
		if e != nil {
			return e
		}
		if state.refused[pin] {
			return fmt.Errorf("this PIN was refused before: %w", ErrLocked)
		}
		state.right, state.known = pin, true
		err = once(pin, true)
	}
}

func (k *pinKeeper) enter(ctx context.Context, store string, retry bool) (string, error) {
	if k.ask == nil {
		return "", fmt.Errorf("nobody can be asked for the PIN: %w", ErrLocked)
	}
	pin, err := k.ask(ctx, store, retry)
	if err != nil {
		return "", fmt.Errorf("ask for PIN: %w", lockedBy(err))
	}
	return pin, nil
}

// lockedBy makes err one that is ErrLocked.
func lockedBy(err error) error {
	if errors.Is(err, ErrLocked) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrLocked, err)
}

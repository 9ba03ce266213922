package helper_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"smime-agent/agent/enroll"
	"smime-agent/agent/helper"
	"smime-agent/platform"
)

// TestSlowKey gives up waiting for a key that a card makes at leisure, and finds
// it at the next attempt.
func TestSlowKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newStore("mem", platform.P256)
		gate := make(chan struct{})
		store.gate = gate
		w := newWorld(t, store)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := w.session.MakeRequest(ctx, wanted("p-256"))
		wantError(t, err, enroll.Transient, enroll.CodeStoreFailed)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		// The store is still at work: the next attempt waits for its turn.
		second := make(chan error, 1)
		go func() {
			_, err := w.session.MakeRequest(t.Context(), wanted("p-256"))
			second <- err
		}()
		synctest.Wait()
		select {
		case err := <-second:
			t.Fatalf("two at once in one store: %v", err)
		default:
		}
		close(gate)
		if err := <-second; err != nil {
			t.Fatal(err)
		}
		if len(store.keys) != 1 || store.crowded {
			t.Errorf("%d keys, crowded: %t", len(store.keys), store.crowded)
		}
	})
}

func TestOneAtATimeInAStore(t *testing.T) {
	store, other := newStore("mem", platform.P256), newStore("other", platform.P256)
	w := newWorld(t, store, other)
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			r := wanted("p-256")
			r.ID += enroll.ID(fmt.Sprint(i))
			if i%2 == 0 {
				r.Store = "other"
			}
			if _, err := w.session.MakeRequest(t.Context(), r); err != nil {
				t.Error(err)
			}
			if _, err := w.session.Inventory(t.Context(), nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if store.crowded || other.crowded {
		t.Error("two operations ran in one store")
	}
	if len(store.keys) != 10 || len(other.keys) != 10 {
		t.Errorf("%d and %d keys", len(store.keys), len(other.keys))
	}
}

func TestABusyStoreHoldsNoOtherUp(t *testing.T) {
	slow, quick := newStore("mem", platform.P256), newStore("quick", platform.P256)
	gate := make(chan struct{})
	defer close(gate)
	slow.gate = gate
	w := newWorld(t, slow, quick)
	go func() { _, _ = w.session.MakeRequest(t.Context(), wanted("p-256")) }()
	r := wanted("p-256")
	r.Store = "quick"
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := w.session.MakeRequest(ctx, r); err != nil {
		t.Error(err)
	}
}

func TestABrokenStoreEndsNothing(t *testing.T) {
	store := newStore("mem", platform.P256)
	store.fail = func(string) error { panic("module crashed") }
	w := newWorld(t, store)
	_, err := w.session.MakeRequest(t.Context(), wanted("p-256"))
	wantError(t, err, enroll.Transient, enroll.CodeStoreFailed)
	store.fail = nil
	if _, err := w.session.MakeRequest(t.Context(), wanted("p-256")); err != nil {
		t.Errorf("the turn was kept: %v", err)
	}
}

func TestPIN(t *testing.T) {
	store := newStore("mem", platform.P256)
	store.pin = "1234"
	w := newWorld(t, store)
	w.person.pins = []string{"1234", "1234"}
	if _, err := w.session.MakeRequest(t.Context(), wanted("p-256")); err != nil {
		t.Fatal(err)
	}
	if e := w.person.entries[0]; e.Title != "PIN of mem" || !e.Secret || e.Timeout != time.Minute {
		t.Errorf("asked %+v", e)
	}
	w.person.pins = nil // the person cancels
	_, err := w.session.MakeRequest(t.Context(), wanted("p-256"))
	wantError(t, err, enroll.Waiting, enroll.CodeStoreLocked)
	asked := len(w.person.entries)
	v, err := w.session.Inventory(t.Context(), nil)
	if err != nil || len(v.Failures) != 1 || v.Failures[0].Code != enroll.CodeStoreLocked {
		t.Errorf("inventory %+v, %v", v, err)
	}
	if len(w.person.entries) != asked {
		t.Error("an inventory asked for a PIN")
	}
}

func TestNobodyAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		start := time.Now()
		_, err := w.session.Ask(ctx, enroll.Question{ID: id})
		wantError(t, err, enroll.Waiting, enroll.CodeConsentPending)
		if waited := time.Since(start); waited != time.Hour {
			t.Errorf("waited %v", waited)
		}
	})
}

func TestOneQuestionAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for range 3 {
			go func() { _, _ = w.session.Ask(ctx, enroll.Question{ID: id}) }()
		}
		synctest.Wait()
		if n := len(w.person.asked); n != 1 {
			t.Errorf("%d dialogs at once", n)
		}
		cancel()
		synctest.Wait()
	})
}

func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newStore("mem", platform.P256)
		w := newWorld(t, store)
		ctx, cancel := context.WithCancel(t.Context())
		changes := 0
		go w.session.Watch(ctx, time.Minute, func() { changes++ })
		check := func(what string, want int) {
			t.Helper()
			time.Sleep(3*time.Minute + time.Second)
			synctest.Wait()
			if changes != want {
				t.Errorf("%s: %d changes seen, want %d", what, changes, want)
			}
		}
		check("nothing", 0)
		chain := enrolled(t, w, w.session, nil)
		check("credential installed", 1)
		_ = chain
		store.mu.Lock()
		certs := store.certs
		store.certs = nil
		store.mu.Unlock()
		check("certificate removed", 2)
		store.mu.Lock()
		store.certs = certs
		store.fail = failing("keys", platform.ErrLocked)
		store.mu.Unlock()
		check("locked", 3)
		store.mu.Lock()
		store.fail = nil
		store.mu.Unlock()
		check("unlocked", 4)
		cancel()
		synctest.Wait()
		time.Sleep(10 * time.Minute)
		if changes != 4 {
			t.Error("watching went on after its end")
		}
	})
}

// TestTheNextAcceptedKindServes: what a store lists it may not make for this use.
func TestTheNextAcceptedKindServes(t *testing.T) {
	store := newStore("mem", platform.P256, platform.RSA2048)
	store.cannotAgree = true
	w := newWorld(t, store)
	_, err := w.session.MakeRequest(t.Context(), wanted("p-256"))
	wantError(t, err, enroll.Waiting, enroll.CodeStoreUnsuitable)
	made, err := w.session.MakeRequest(t.Context(), wanted("p-256", "rsa-2048"))
	if err != nil || made.Algorithm != "rsa-2048" || len(store.keys) != 1 {
		t.Errorf("%+v, %v, %d keys", made, err, len(store.keys))
	}
	signing := wanted("p-256", "rsa-2048")
	signing.ID, signing.Encrypt = id+"-signing", false
	if made, err = w.session.MakeRequest(t.Context(), signing); err != nil || made.Algorithm != "p-256" {
		t.Errorf("for signing alone: %+v, %v", made, err)
	}
	store.fail = func(op string) error {
		if op == "create" {
			return platform.ErrDenied
		}
		return nil
	}
	other := wanted("p-256", "rsa-2048")
	other.ID = id + "-other"
	_, err = w.session.MakeRequest(t.Context(), other)
	wantError(t, err, enroll.Waiting, enroll.CodeStoreDenied)
}

// In virtual time: a call into a store that never returns is noticed, once, long
// after anybody waited for it; a slow one is not.
func TestAStoreThatNeverComesBackIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hanging, slow := newStore("hanging", platform.P256), newStore("slow", platform.P256)
		never, later := make(chan struct{}), make(chan struct{})
		defer close(never) // or the bubble does not end
		hanging.gate, slow.gate = never, later
		w := newWorld(t, hanging, slow)
		stuck := make(chan string, 8)
		w.session.Stuck = func(store string) { stuck <- store }
		for _, name := range []string{"hanging", "slow"} {
			r := wanted("p-256")
			r.Store = name
			go func() {
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
				defer cancel()
				_, err := w.session.MakeRequest(ctx, r)
				wantError(t, err, enroll.Transient, enroll.CodeStoreFailed)
			}()
		}
		time.Sleep(helper.DefaultStuckAfter - time.Minute)
		close(later)
		select {
		case name := <-stuck:
			t.Errorf("%s was given up while it might still come back", name)
		default:
		}
		time.Sleep(24 * time.Hour)
		if name := <-stuck; name != "hanging" || len(stuck) > 0 {
			t.Errorf("told of %s, and %d more", name, len(stuck))
		}
	})
}

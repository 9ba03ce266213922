package platformtest_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"smime-agent/platform"
	"smime-agent/platform/platformtest"
)

func TestSecretsInMemory(t *testing.T) {
	stores := map[*testing.T]platform.SecretStore{}
	platformtest.TestSecrets(t, func(t *testing.T) platform.SecretStore {
		if stores[t] == nil {
			stores[t] = &platformtest.Secrets{}
		}
		return stores[t]
	})
}

func TestSecretsFail(t *testing.T) {
	broken := errors.New("disk full")
	s := &platformtest.Secrets{Fail: func(op string) error {
		if op == "put" {
			return broken
		}
		return nil
	}}
	if err := s.Put(t.Context(), "a", nil); !errors.Is(err, broken) {
		t.Errorf("Put: %v", err)
	}
	if _, err := s.Get(t.Context(), "a"); !errors.Is(err, platform.ErrNotFound) {
		t.Errorf("Get: %v", err)
	}
}

func TestPrompterScript(t *testing.T) {
	p := &platformtest.Prompter{}
	p.Answer(platform.AnswerLater, platform.AnswerYes)
	p.Type("1234")
	ctx := t.Context()
	for _, want := range []platform.Answer{platform.AnswerLater, platform.AnswerYes} {
		if got, err := p.Ask(ctx, platform.Question{Title: "t"}); got != want || err != nil {
			t.Errorf("Ask: %q, %v, want %q", got, err, want)
		}
	}
	if got, err := p.Enter(ctx, platform.Entry{Secret: true}); got != "1234" || err != nil {
		t.Errorf("Enter: %q, %v", got, err)
	}
	if err := p.Notify(ctx, platform.Notice{Title: "n"}); err != nil {
		t.Error(err)
	}
	if len(p.Questions()) != 2 || len(p.Entries()) != 1 || len(p.Notices()) != 1 {
		t.Errorf("remembered %v, %v, %v", p.Questions(), p.Entries(), p.Notices())
	}
	p.Fail = func(op string) error { return errors.New(op) }
	if _, err := p.Ask(ctx, platform.Question{}); err == nil || err.Error() != "ask" {
		t.Errorf("Fail did not reach Ask: %v", err)
	}
}

func TestPrompterAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &platformtest.Prompter{}
		start := time.Now()
		got, err := p.Ask(t.Context(), platform.Question{Timeout: time.Hour})
		if got != platform.AnswerLater || err != nil || time.Since(start) != time.Hour {
			t.Errorf("Ask: %q, %v after %v", got, err, time.Since(start))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := p.Enter(ctx, platform.Entry{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Enter: %v", err)
		}
		if _, err := p.Enter(t.Context(), platform.Entry{Timeout: time.Second}); !errors.Is(err, platform.ErrDenied) {
			t.Errorf("Enter after its time: %v", err)
		}
	})
}

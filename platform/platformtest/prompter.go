package platformtest

import (
	"context"
	"fmt"
	"sync"
	"time"

	"smime-agent/platform"
)

// Prompter is a person in memory who answers from a script and remembers what
// was asked. At the end of the script the person is away: questions end with
// their own time or with ctx.
type Prompter struct {
	// Fail, if set, may refuse an operation ("ask", "enter", "notify").
	Fail func(op string) error
	// OnEnter, if set, is the person at a dialog for an entry, in place of the script.
	OnEnter func(ctx context.Context, e platform.Entry) (string, error)

	mu        sync.Mutex
	answers   []platform.Answer
	texts     []string
	questions []platform.Question
	entries   []platform.Entry
	notices   []platform.Notice
}

var _ platform.Prompter = (*Prompter)(nil)

// Answer puts answers at the end of the script.
func (p *Prompter) Answer(answers ...platform.Answer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answers = append(p.answers, answers...)
}

// Type puts texts at the end of what the person will enter.
func (p *Prompter) Type(texts ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.texts = append(p.texts, texts...)
}

// Questions are those asked so far.
func (p *Prompter) Questions() []platform.Question {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]platform.Question(nil), p.questions...)
}

// Entries are the texts that were asked for so far.
func (p *Prompter) Entries() []platform.Entry {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]platform.Entry(nil), p.entries...)
}

// Notices are those shown so far.
func (p *Prompter) Notices() []platform.Notice {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]platform.Notice(nil), p.notices...)
}

// Ask gives the next answer of the script.
func (p *Prompter) Ask(ctx context.Context, q platform.Question) (platform.Answer, error) {
	if err := p.begin(ctx, "ask"); err != nil {
		return "", err
	}
	p.mu.Lock()
	p.questions = append(p.questions, q)
	answer, there := next(&p.answers)
	p.mu.Unlock()
	if there {
		return answer, nil
	}
	if err := away(ctx, q.Timeout); err != nil {
		return "", fmt.Errorf("ask: %w", err)
	}
	return platform.AnswerLater, nil
}

// Enter gives the next text of the script.
func (p *Prompter) Enter(ctx context.Context, e platform.Entry) (string, error) {
	if err := p.begin(ctx, "enter"); err != nil {
		return "", err
	}
	p.mu.Lock()
	p.entries = append(p.entries, e)
	text, there := next(&p.texts)
	p.mu.Unlock()
	if p.OnEnter != nil {
		return p.OnEnter(ctx, e)
	}
	if there {
		return text, nil
	}
	if err := away(ctx, e.Timeout); err != nil {
		return "", fmt.Errorf("ask for an entry: %w", err)
	}
	return "", fmt.Errorf("ask for an entry: %w: nobody answered in time", platform.ErrDenied)
}

// Notify remembers the notice.
func (p *Prompter) Notify(ctx context.Context, n platform.Notice) error {
	if err := p.begin(ctx, "notify"); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.notices = append(p.notices, n)
	return nil
}

func (p *Prompter) begin(ctx context.Context, op string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if p.Fail == nil {
		return nil
	}
	return p.Fail(op)
}

func next[T any](script *[]T) (T, bool) {
	var first T
	if len(*script) == 0 {
		return first, false
	}
	first, *script = (*script)[0], (*script)[1:]
	return first, true
}

// away waits as a dialog does that nobody looks at.
func away(ctx context.Context, timeout time.Duration) error {
	if timeout <= 0 {
		<-ctx.Done()
		return ctx.Err()
	}
	t := time.NewTimer(timeout)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

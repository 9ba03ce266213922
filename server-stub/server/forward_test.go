package server

import (
	"context"
	"crypto/x509"
	"testing"
	"time"

	"smime-agent/server-stub/authority"
	"smime-agent/server-stub/ca"
	"smime-agent/server-stub/store"
)

// wrongCA issues, and never what was ordered.
type wrongCA struct{ authority.Authority }

// Collect is [authority.Authority]'s.
func (wrongCA) Collect(context.Context, authority.Order) (authority.Answer, error) {
	return authority.Answer{}, authority.ErrAnswer
}

// Chain is [authority.Authority]'s.
func (wrongCA) Chain(context.Context) ([]*x509.Certificate, error) { return nil, nil }

// TestWrongAnswersAreAskedForSeldom: to collect from an EST CA is to order anew, so
// that each answer that cannot be used may be one more certificate that nobody has.
func TestWrongAnswersAreAskedForSeldom(t *testing.T) {
	s, ctx := atWork(t, Config{Store: records(t), Externals: map[string]External{"est": {Authority: wrongCA{}}}})
	next := s.askAuthority(ctx, new(ca.Serials).Next(time.Now()), &store.Request{Authority: "est", CSR: wish(t).GetCsr()})
	if wait := next.Sub(s.now()); wait < 9*time.Minute || wait > time.Hour {
		t.Errorf("the CA is asked again in %v", wait)
	}
}

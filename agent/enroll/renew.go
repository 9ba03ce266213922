package enroll

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"time"
)

const (
	defaultRenewBefore = 60 * day
	maxSpread          = 14 * day
)

// RenewAt says when a certificate is to be renewed: before its end by before (0
// means 60 days), or by a third of a shorter life, and earlier still by a
// spread of at most 14 days or a tenth of the life until then. The spread is
// drawn from the certificate's SHA-256, so every look gives the same answer and
// a fleet does not renew at once. A suggestion of the server wins if it is
// earlier and lies after the certificate's beginning.
func RenewAt(leaf *x509.Certificate, before time.Duration, suggested time.Time) time.Time {
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	if life <= 0 {
		return leaf.NotBefore
	}
	if before <= 0 {
		before = defaultRenewBefore
	}
	before = min(before, life/3)
	hash := sha256.Sum256(leaf.Raw)
	spread := time.Duration(unit(hash[:8]) * float64(min(maxSpread, (life-before)/10)))
	at := leaf.NotAfter.Add(-before - spread).Truncate(time.Second)
	if suggested.After(leaf.NotBefore) && suggested.Before(at) {
		return suggested
	}
	return at
}

// serialOf is the serial number as policy and reports write it.
func serialOf(leaf *x509.Certificate) string { return leaf.SerialNumber.Text(16) }

// leafOf parses the certificate of an enrollment; nil if there is none.
func leafOf(e Enrollment) *x509.Certificate {
	if len(e.Chain) == 0 {
		return nil
	}
	c, err := x509.ParseCertificate(e.Chain[0])
	if err != nil {
		return nil
	}
	return c
}

// setChain files a believed leaf's facts with its enrollment.
func setChain(e *Enrollment, chain [][]byte, leaf *x509.Certificate, suggested time.Time) {
	e.Chain = chain
	e.NotAfter = leaf.NotAfter.UTC()
	e.RenewAt = RenewAt(leaf, e.Assignment.RenewBefore, suggested).UTC()
}

// Suggest takes the server's suggestions, by serial number in lower-case hex.
func (g *Engine) Suggest(suggested map[string]time.Time) error {
	g.mu.Lock()
	defer g.unlock()
	return g.suggest(suggested)
}

// suggest sets RenewAt anew where a suggestion or the rule of policy changed;
// everything else keeps what was computed once. Callers hold mu.
func (g *Engine) suggest(suggested map[string]time.Time) error {
	var changed []Enrollment
	for _, n := range g.order {
		e := n.e
		if e.State != Active {
			continue
		}
		leaf := leafOf(e)
		if leaf == nil {
			continue
		}
		s := suggested[serialOf(leaf)]
		a, assigned := g.assignmentFor(e)
		if assigned && a.RenewBefore != e.Assignment.RenewBefore {
			e.Assignment.RenewBefore = a.RenewBefore
		} else if s.IsZero() {
			continue
		}
		if at := RenewAt(leaf, e.Assignment.RenewBefore, s).UTC(); !at.Equal(e.RenewAt) {
			e.RenewAt = at
			changed = append(changed, e)
		}
	}
	return g.commit(changed)
}

// Filter picks enrollments: of one user, or of all if User is empty; by ID or by
// mailbox, or all if Target is empty.
type Filter struct {
	User   string
	Target string
}

func (f Filter) fits(e Enrollment) bool {
	if f.User != "" && f.User != e.Assignment.User {
		return false
	}
	return f.Target == "" || f.Target == string(e.ID) || foldMailbox(f.Target) == foldMailbox(e.Mailbox())
}

// Renew starts a new enrollment in each slot that the filter picks, for reason
// [ReasonPerson] or [ReasonAdministrator]; where one is in progress, that one is
// tried now. It gives the enrollments in progress. [ErrNoneFits] if there is no
// such slot in policy; an *[Error] if a slot had too many today.
func (g *Engine) Renew(f Filter, reason Reason) ([]ID, error) {
	if reason != ReasonPerson && reason != ReasonAdministrator {
		return nil, fmt.Errorf("renew: reason %q cannot be asked for", reason)
	}
	g.mu.Lock()
	defer g.unlock()
	return g.planAsked(f, reason)
}

// Revoked notes that the certificate of an enrollment is revoked. If it is in
// use, that is a reason for a new one. The key stays for old mail.
func (g *Engine) Revoked(id ID, reason string, at time.Time) error {
	g.mu.Lock()
	defer g.unlock()
	n, ok := g.byID[id]
	if !ok {
		return fmt.Errorf("revoked %s: %w", id, ErrNoneFits)
	}
	if n.e.Revoked {
		return nil
	}
	e := n.e
	e.Revoked = true
	ev := g.event(EventRevoked, e, true, "reason", reason, "revoked_at", at.UTC().Format(time.RFC3339))
	if err := g.save(e, ev); err != nil {
		return err
	}
	g.notify(e, NoticeRevoked)
	g.planNow()
	return nil
}

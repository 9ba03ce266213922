package enroll

import (
	"context"
	"time"
)

// Correspondent lets others write to the person encrypted, and the person to them.
type Correspondent interface {
	// Publish makes the value of userSMIMECertificate (RFC 2798 §2.8): a SignedData
	// without content, signed by the enrollment's key. Only the session can.
	Publish(ctx context.Context, w PublishWanted) ([]byte, error)
	// FilePartners files these certificates of others (DER) where the mail programs
	// look, and takes away those that it filed before and that are not among them.
	// What the person filed stays.
	FilePartners(ctx context.Context, certificates [][]byte) (PartnersFiled, error)
}

// PublishWanted is what [Correspondent.Publish] needs.
type PublishWanted struct {
	ID    ID
	Store string
	Chain [][]byte
	// EncryptTo is the certificate that others are told to encrypt to, with its
	// issuers; empty if it is the enrollment's own.
	EncryptTo [][]byte
	Modules   []Module
	// Now is the best known time.
	Now time.Time
}

// PartnersFiled is what [Correspondent.FilePartners] did, over all places.
type PartnersFiled struct {
	Filed, Withdrawn int
	// Failures are places that could not be read or written.
	Failures []*Error
}

// Publishable is what to ask of the session of an enrollment that is active and
// proved to sign; false if its mailbox has no certificate to encrypt to.
func (g *Engine) Publishable(id ID) (PublishWanted, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := g.byID[id]
	if n == nil || n.e.State != Active || n.e.Revoked || !n.e.Assignment.Profile.Sign || !n.e.Proof.OK() || len(n.e.Chain) == 0 {
		return PublishWanted{}, false
	}
	w := PublishWanted{ID: n.e.KeyName(), Store: n.e.Store, Chain: n.e.Chain, Modules: g.modules(n.e), Now: g.now()}
	if n.e.Assignment.Profile.Encrypt {
		return w, true
	}
	for _, o := range g.order {
		e := o.e
		if e.State == Active && !e.Revoked && e.Assignment.User == n.e.Assignment.User && e.Assignment.Profile.Encrypt &&
			foldMailbox(e.Mailbox()) == foldMailbox(n.e.Mailbox()) && e.Proof.OK() && len(e.Chain) > 0 {
			w.EncryptTo = e.Chain
		}
	}
	return w, len(w.EncryptTo) > 0
}

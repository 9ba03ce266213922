package enroll

import (
	"cmp"
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"time"
)

// Known is central management's record of one request of this machine.
type Known struct {
	ID        ID
	Reference string
	User      string
	Mailboxes []string
	Profile   string
	Store     string
	CSR       []byte
	Chain     [][]byte // empty while not issued
	Submitted time.Time
	Refused   bool
	Replaces  ID
}

// Restore merges what central management knows with the record: enrollments that
// are not on record come back, the newest of each slot to be finished and used,
// the others for old mail. It must be the complete list, asked for after
// [Engine.NeedsKnown] said so: a key without certificate that is not in it may
// be removed from its store.
func (g *Engine) Restore(known []Known) error {
	g.mu.Lock()
	defer g.unlock()
	if !g.loaded {
		return ErrNotLoaded
	}
	if !g.hasPolicy {
		return errors.New("restore: no policy yet to check certificates by")
	}
	known = slices.Clone(known)
	slices.SortFunc(known, func(a, b Known) int { return cmp.Compare(b.ID, a.ID) }) // newest first
	batch := g.rebuild(known)
	told := make([]Event, 0, len(batch))
	for _, e := range batch {
		told = append(told, g.event(EventAdopted, e, true, "state", string(e.State)))
	}
	if err := g.commit(batch, told...); err != nil {
		return err
	}
	g.Rebuilding = false
	for id, s := range g.strangers {
		if g.explains(id) {
			delete(g.strangers, id)
			continue
		}
		s.cleared = true
	}
	g.judgeAgain()
	g.planNow()
	return nil
}

// rebuild makes enrollments of what is not on record; known is newest first.
func (g *Engine) rebuild(known []Known) []Enrollment {
	taken := map[slot]bool{} // slots that have what is newest
	active := map[slot]ID{}  // an older record may come back with an older one in use
	for _, n := range g.order {
		switch {
		case n.e.inProgress():
			taken[slotOf(n.e)] = true
		case n.e.State == Active:
			active[slotOf(n.e)] = n.e.ID
		}
	}
	keys := firstKeys(known)
	var batch []Enrollment
	for _, k := range known {
		if _, ok := g.byID[k.ID]; ok || !strings.HasPrefix(string(k.ID), IDPrefix) {
			continue
		}
		e, leaf := g.enrollmentOf(k)
		if first, ok := keys[keyOf(k.CSR)]; ok && first != k.ID {
			e.Key = first
		}
		s := slotOf(e)
		taken[s] = taken[s] || active[s] > k.ID
		switch {
		case k.Refused:
			e.State = Over
			e.Problem = &Problem{Kind: Final, Code: CodeRequestRefused, Since: e.Changed,
				Hint: "The request was refused. Tell the administrator."}
		case leaf != nil && (taken[s] || !g.believed(e)):
			e.State = Kept
		case leaf != nil:
			e.State, taken[s] = Issued, true
		case k.Reference == "" || taken[s]:
			e.State = Over
		default:
			e.State, taken[s] = Submitted, true
		}
		batch = append(batch, e)
	}
	return batch
}

// firstKeys tells for each key the first enrollment that used it, which names
// it in the store; known is newest first.
func firstKeys(known []Known) map[string]ID {
	first := map[string]ID{}
	for _, k := range known {
		first[keyOf(k.CSR)] = k.ID
	}
	delete(first, "")
	return first
}

func keyOf(csr []byte) string {
	r, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return ""
	}
	return string(r.RawSubjectPublicKeyInfo)
}

func (g *Engine) believed(e Enrollment) bool {
	_, err := CheckChain(e.Chain, e.keyRule(g.rulesFor(e)))
	return err == nil
}

// enrollmentOf is central's record as an enrollment, with what policy says of
// it now; leaf is nil without a certificate that can be read.
func (g *Engine) enrollmentOf(k Known) (Enrollment, *x509.Certificate) {
	now := g.now()
	e := Enrollment{
		ID: k.ID, Store: k.Store, Reason: ReasonAdopted, Replaces: k.Replaces, Reference: k.Reference, CSR: k.CSR,
		Created: k.Submitted, Changed: now, NextProof: now, Consent: Consent{NotNeeded: true, At: now},
		Assignment: Assignment{User: k.User, Mailboxes: k.Mailboxes, Profile: Profile{Name: k.Profile}},
	}
	if a, ok := g.assignmentFor(e); ok {
		e.Assignment = a
	} else {
		e.Unwanted = true
	}
	if len(k.Chain) == 0 {
		return e, nil
	}
	leaf, err := x509.ParseCertificate(k.Chain[0])
	if err != nil {
		return e, nil
	}
	if e.Unwanted { // what policy no longer says, the certificate does
		p := assignmentFromLeaf(k.User, leaf).Profile
		e.Assignment.Profile.Sign, e.Assignment.Profile.Encrypt = p.Sign, p.Encrypt
	}
	setChain(&e, k.Chain, leaf, time.Time{})
	return e, leaf
}

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
// are not on record, or not as far as central knows them, come back, the newest
// of each slot to be finished and used, the others for old mail. It must be the complete list, asked for after
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

// rebuild makes enrollments of what is not on record, and lifts those that are
// on record as they once were: an older copy of the record may have been put
// back, or an older version of one enrollment been saved from a damaged file.
func (g *Engine) rebuild(known []Known) []Enrollment {
	newest := map[slot]ID{} // who has a slot, or is on the way to it
	for _, n := range g.order {
		if s := slotOf(n.e); n.e.inProgress() || n.e.State == Active {
			newest[s] = max(newest[s], n.e.ID)
		}
	}
	keys := firstKeys(known)
	var batch []Enrollment
	heard := map[ID]bool{}
	for _, k := range known { // newest first
		heard[k.ID] = true
		n, onRecord := g.byID[k.ID]
		if onRecord && !n.e.inProgress() || !strings.HasPrefix(string(k.ID), IDPrefix) {
			continue
		}
		e, leaf := g.enrollmentOf(k)
		if first, ok := keys[keyOf(k.CSR)]; ok && first != k.ID {
			e.Key = first
		}
		s := slotOf(e)
		g.settle(&e, k, leaf, newest[s] > k.ID)
		if onRecord {
			if e.State.rank() <= n.e.State.rank() {
				continue // the record says as much, or more
			}
			e.Reason, e.Created, e.Assignment = n.e.Reason, n.e.Created, n.e.Assignment
		}
		if e.inProgress() {
			newest[s] = max(newest[s], k.ID)
		}
		batch = append(batch, e)
	}
	return append(batch, g.outrun(newest, heard)...)
}

// settle says how far an enrollment is by central's record of it; outrun, if a
// newer one has its place.
func (g *Engine) settle(e *Enrollment, k Known, leaf *x509.Certificate, outrun bool) {
	switch {
	case k.Refused:
		e.State = Over
		e.Problem = &Problem{Kind: Final, Code: CodeRequestRefused, Since: e.Changed,
			Hint: "The request was refused. Tell the administrator."}
	case leaf != nil && (outrun || !g.believed(*e)):
		e.State = Kept
	case leaf != nil:
		e.State = Issued
	case k.Reference == "" || outrun:
		e.State = Over
	default:
		e.State = Submitted
	}
}

// outrun ends what is on record from before a newer one took its place, and
// never reached central.
func (g *Engine) outrun(newest map[slot]ID, heard map[ID]bool) []Enrollment {
	var batch []Enrollment
	for _, n := range g.order {
		e := n.e
		if e.inProgress() && e.State.rank() < Submitted.rank() && !heard[e.ID] && newest[slotOf(e)] > e.ID {
			e.State, e.Unwanted, e.Changed, e.Problem = Over, true, g.now(), nil
			batch = append(batch, e)
		}
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

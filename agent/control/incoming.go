package control

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"smime-agent/agent/enroll"
	controlv1 "smime-agent/proto/control/v1"
)

// Bounds on what we take. A policy over them is refused as a whole, and the one
// in force stays: to drop a part would take credentials away from people.
const (
	maxAssignments = 4096
	maxProfiles    = 256
	maxAnchors     = 32
	maxCertificate = 16 << 10
	maxMailboxes   = 32
	maxList        = 64
	maxOrders      = 1024
	maxKnown       = 4096
	maxReferences  = 4096
	maxNote        = 4 << 10
)

const (
	defaultSync       = 15 * time.Minute
	minSync           = time.Second
	maxSync           = 7 * 24 * time.Hour
	maxRetryAfter     = 24 * time.Hour
	defaultRetryAfter = 15 * time.Minute
	maxPeriod         = 100 * 365 * 24 * time.Hour
	// defaultPostponements is the contract's meaning of 0.
	defaultPostponements = 5
)

func between(d, low, high time.Duration) time.Duration { return max(low, min(d, high)) }

// period reads a duration within bounds; absent gives 0.
func period(d *durationpb.Duration, high time.Duration) time.Duration {
	if !d.IsValid() {
		return 0
	}
	return between(d.AsDuration(), 0, high)
}

func timeIn(t *timestamppb.Timestamp) time.Time {
	if !t.IsValid() {
		return time.Time{}
	}
	return t.AsTime()
}

func syncResult(resp *controlv1.SyncResponse, revision string) (SyncResult, error) {
	if len(resp.GetOrders()) > maxOrders || len(resp.GetKnown()) > maxKnown || len(resp.GetReady()) > maxReferences {
		return SyncResult{}, fmt.Errorf("%w: %d orders, %d known, %d ready", errAnswer,
			len(resp.GetOrders()), len(resp.GetKnown()), len(resp.GetReady()))
	}
	out := SyncResult{NextSync: defaultSync, Ready: resp.GetReady()}
	if d := period(resp.GetNextSync(), maxSync); d > 0 {
		out.NextSync = max(d, minSync)
	}
	if resp.GetPolicyChanged() && (resp.GetPolicyRevision() != revision || revision == "") {
		policy, err := policyIn(resp.GetPolicy(), resp.GetPolicyRevision())
		if err != nil {
			out.PolicyProblem = &enroll.Error{Kind: enroll.Transient, Code: CodePolicyUnusable,
				Hint: "The policy of central management cannot be used here; the last good one stays in force." + askAdmin, Err: err}
		} else {
			out.Policy = policy
		}
	}
	for _, o := range resp.GetOrders() {
		if order, ok := orderIn(o); ok {
			out.Orders = append(out.Orders, order)
		}
	}
	for _, k := range resp.GetKnown() {
		out.Known = append(out.Known, knownIn(k))
	}
	return out, nil
}

func policyIn(p *controlv1.Policy, revision string) (*enroll.Policy, error) {
	if p == nil || revision == "" {
		return nil, fmt.Errorf("%w: policy or its revision is missing", errAnswer)
	}
	if len(p.GetAssignments()) > maxAssignments || len(p.GetProfiles()) > maxProfiles || len(p.GetAnchors()) > maxAnchors {
		return nil, fmt.Errorf("%w: policy of %d assignments, %d profiles, %d anchors", errAnswer,
			len(p.GetAssignments()), len(p.GetProfiles()), len(p.GetAnchors()))
	}
	out := &enroll.Policy{
		Revision: text(revision), Organization: text(p.GetOrganization()), Contact: text(p.GetContact()),
		Anchors: p.GetAnchors(), InstallAnchors: p.GetInstallAnchors(), SuggestedRenewal: map[string]time.Time{},
	}
	for i, der := range p.GetAnchors() {
		if err := checkCertificate(der); err != nil {
			return nil, fmt.Errorf("%w: anchor %d: %w", errAnswer, i, err)
		}
	}
	profiles := map[string]enroll.Profile{}
	for _, q := range p.GetProfiles() {
		profiles[q.GetName()] = profileIn(q)
	}
	for i, a := range p.GetAssignments() {
		profile, ok := profiles[a.GetProfile()]
		if !ok {
			return nil, fmt.Errorf("%w: assignment %d has profile %.40q, which the policy lacks", errAnswer, i, a.GetProfile())
		}
		assignment, err := assignmentIn(a, profile)
		if err != nil {
			return nil, fmt.Errorf("%w: assignment %d: %w", errAnswer, i, err)
		}
		out.Assignments = append(out.Assignments, assignment)
		for number, at := range a.GetRenewal().GetSuggested() {
			if t := timeIn(at); !t.IsZero() && len(out.SuggestedRenewal) < maxAssignments {
				out.SuggestedRenewal[strings.ToLower(number)] = t
			}
		}
	}
	return out, nil
}

func profileIn(p *controlv1.Profile) enroll.Profile {
	return enroll.Profile{
		Name: p.GetName(), Keys: texts(p.GetKeys(), maxList), Sign: p.GetSign(), Encrypt: p.GetEncrypt(),
		MaxValidity: period(p.GetMaxValidity(), maxPeriod), Generation: text(p.GetGeneration()),
		MinProtection: text(p.GetMinProtection()),
	}
}

func assignmentIn(a *controlv1.Assignment, profile enroll.Profile) (enroll.Assignment, error) {
	if a.GetUser() == "" || len(a.GetUser()) > maxText {
		return enroll.Assignment{}, fmt.Errorf("user of %d bytes", len(a.GetUser()))
	}
	boxes := a.GetMailboxes()
	if len(boxes) == 0 || len(boxes) > maxMailboxes {
		return enroll.Assignment{}, fmt.Errorf("%d mailboxes", len(boxes))
	}
	for _, m := range boxes {
		if !strings.Contains(m, "@") || len(m) > 320 || strings.ContainsFunc(m, unicode.IsControl) {
			return enroll.Assignment{}, fmt.Errorf("mailbox %.40q", m)
		}
	}
	if len(a.GetStores()) > maxList || len(a.GetModules()) > maxList || len(a.GetNote()) > maxList {
		return enroll.Assignment{}, fmt.Errorf("%d stores, %d modules, %d notes", len(a.GetStores()), len(a.GetModules()), len(a.GetNote()))
	}
	out := enroll.Assignment{
		User: a.GetUser(), Mailboxes: boxes, DisplayName: text(a.GetDisplayName()), Profile: profile,
		Consent: consentIn(a.GetConsent()), MaxPostponements: postponements(a.GetMaxPostponements()),
		Stores: texts(a.GetStores(), maxList), RenewBefore: period(a.GetRenewal().GetBefore(), maxPeriod),
		Rotation: rotationIn(a.GetRenewal().GetRotation()),
	}
	if a.GetMail() != nil {
		out.Mail = mailIn(a.GetMail())
	}
	for _, m := range a.GetModules() {
		out.Modules = append(out.Modules, enroll.Module{Path: m.GetPath(), TokenLabel: text(m.GetTokenLabel())})
	}
	for tag, note := range a.GetNote() {
		if out.Note == nil {
			out.Note = map[string]string{}
		}
		out.Note[text(tag)] = printable(note, maxNote)
	}
	return out, nil
}

// consentIn asks the person where the server says something unknown.
func consentIn(c controlv1.Consent) enroll.ConsentMode {
	switch c {
	case controlv1.Consent_CONSENT_NOTIFY:
		return enroll.ConsentNotify
	case controlv1.Consent_CONSENT_SILENT:
		return enroll.ConsentSilent
	case controlv1.Consent_CONSENT_ASK, controlv1.Consent_CONSENT_UNSPECIFIED:
	}
	return enroll.ConsentAsk
}

// mailIn leaves to the person, or to the program, what the server says unknown.
func mailIn(m *controlv1.MailRule) enroll.MailRule {
	word := func(s string) enroll.MailWord {
		switch w := enroll.MailWord(s); w {
		case enroll.MailAlways, enroll.MailNever:
			return w
		default:
			return enroll.MailUser
		}
	}
	one := func(s string, of ...string) string {
		if slices.Contains(of, s) {
			return s
		}
		return ""
	}
	return enroll.MailRule{
		Programs: texts(m.GetPrograms(), maxList), Sign: word(m.GetSign()), Encrypt: word(m.GetEncrypt()), ClearSign: word(m.GetClearSign()),
		Hash:   one(m.GetHash(), "sha-256", "sha-384", "sha-512"),
		Cipher: one(m.GetCipher(), "aes-128", "aes-192", "aes-256"),
	}
}

// rotationIn takes a new key where the server says something unknown; empty
// leaves it to the store.
func rotationIn(s string) enroll.Rotation {
	switch r := enroll.Rotation(s); r {
	case "", enroll.SameKey:
		return r
	default:
		return enroll.NewKey
	}
}

func postponements(n uint32) int {
	if n == 0 {
		return defaultPostponements
	}
	return int(min(n, 1000))
}

func orderIn(o *controlv1.Order) (Order, bool) {
	out := Order{ID: text(o.GetId())}
	switch what := o.GetWhat().(type) {
	case *controlv1.Order_Renew:
		out.Kind, out.Enrollment = OrderRenew, enroll.ID(text(what.Renew.GetEnrollmentId()))
	case *controlv1.Order_Revoked:
		r := what.Revoked
		out.Kind, out.Enrollment = OrderRevoked, enroll.ID(text(r.GetEnrollmentId()))
		out.Reason, out.At = text(r.GetReason()), timeIn(r.GetAt())
	case *controlv1.Order_Prove:
		out.Kind = OrderProve
	default:
		return Order{}, false
	}
	return out, true
}

// knownIn takes what can be taken; a chain that cannot be read is left out, so
// that it is collected anew.
func knownIn(k *controlv1.KnownEnrollment) Known {
	out := Known{
		ID: enroll.ID(text(k.GetEnrollmentId())), Reference: k.GetReference(), User: text(k.GetUser()),
		Mailboxes: texts(k.GetMailboxes(), maxMailboxes), Profile: text(k.GetProfile()), Store: text(k.GetStore()),
		CSR: k.GetCsr(), Submitted: timeIn(k.GetSubmittedAt()), Refused: k.GetRefused(),
		Replaces: enroll.ID(text(k.GetReplaces())),
	}
	if len(k.GetChain()) > 0 && checkChain(k.GetChain()) == nil {
		out.Chain = k.GetChain()
	}
	return out
}

func collectionIn(resp *controlv1.CollectResponse) (enroll.Collection, error) {
	switch o := resp.GetOutcome().(type) {
	case *controlv1.CollectResponse_Issued:
		if err := checkChain(o.Issued.GetChain()); err != nil {
			return enroll.Collection{}, err
		}
		return enroll.Collection{Chain: o.Issued.GetChain(), SuggestedRenewal: timeIn(o.Issued.GetSuggestedRenewal())}, nil
	case *controlv1.CollectResponse_Pending:
		waits := o.Pending.GetWaitsFor()
		if waits != "administrator" {
			waits = "authority"
		}
		return enroll.Collection{RetryAfter: retryAfter(o.Pending.GetRetryAfter()), WaitsFor: waits}, nil
	case *controlv1.CollectResponse_Challenge:
		return enroll.Collection{RetryAfter: defaultRetryAfter, WaitsFor: "mailbox"}, nil
	case *controlv1.CollectResponse_Refused:
		hint := printable(o.Refused.GetText(), 300)
		if hint == "" {
			hint = "The request was refused." + askAdmin
		}
		return enroll.Collection{}, &enroll.Error{Kind: enroll.Final, Code: enroll.CodeRequestRefused, Hint: hint,
			Err: fmt.Errorf("refused: %s", printable(o.Refused.GetCode(), 64))}
	}
	// An outcome that only a later agent knows: harmless, and asked for again.
	return enroll.Collection{RetryAfter: defaultRetryAfter, WaitsFor: "authority"}, nil
}

func retryAfter(d *durationpb.Duration) time.Duration {
	if p := period(d, maxRetryAfter); p > 0 {
		return max(p, time.Second)
	}
	return defaultRetryAfter
}

// checkChain holds bounds and form; whether the chain is to be believed is for
// package enroll.
func checkChain(chain [][]byte) error {
	if len(chain) == 0 || len(chain) > maxChain {
		return fmt.Errorf("%w: chain of %d certificates", errAnswer, len(chain))
	}
	for i, der := range chain {
		if err := checkCertificate(der); err != nil {
			return fmt.Errorf("%w: certificate %d of the chain: %w", errAnswer, i, err)
		}
	}
	return nil
}

func checkCertificate(der []byte) error {
	if len(der) > maxCertificate {
		return fmt.Errorf("%d bytes", len(der))
	}
	_, err := x509.ParseCertificate(der)
	return err
}

// printable takes text that people will see: no control characters, no
// direction tricks, one line.
func printable(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case unicode.IsControl(r) || unicode.Is(unicode.Cf, r):
			return -1
		}
		return r
	}, s)
	return strings.TrimSpace(clean(s, limit))
}

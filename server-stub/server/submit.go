package server

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/ca"
	"smime-agent/server-stub/challenge"
	"smime-agent/server-stub/compile"
	"smime-agent/server-stub/ledger"
	"smime-agent/server-stub/orders"
	"smime-agent/server-stub/policy"
	"smime-agent/server-stub/report"
	"smime-agent/server-stub/store"
)

const maxEnrollmentID = 128

// Submit takes a CSR in and, unless an administrator has to decide, answers
// with the certificate at once.
func (s *Server) Submit(ctx context.Context, req *controlv1.SubmitRequest) (*controlv1.SubmitResponse, error) {
	if err := boundedSubmit(req); err != nil {
		return nil, err
	}
	f := &filing{device: deviceOf(ctx), req: req, now: s.now()}
	f.hash = sha256.Sum256(req.GetCsr())
	if err := s.store.View(f.findEarlier); err != nil {
		return nil, err
	}
	if f.record == nil {
		if err := s.prepare(ctx, f); err != nil {
			return nil, err
		}
		if err := s.store.Update(ctx, f.commit); err != nil {
			return nil, err
		}
	}
	outcome, err := s.outcomeNow(ctx, f.serial, f.record)
	if err != nil {
		return nil, err
	}
	return &controlv1.SubmitResponse{Reference: f.serial.String(), ServerTime: timestamppb.New(f.now), Outcome: outcome}, nil
}

func boundedSubmit(req *controlv1.SubmitRequest) error {
	id := req.GetEnrollmentId()
	if id == "" || len(id) > maxEnrollmentID {
		return refuse(controlv1.Reason_REASON_MALFORMED, "The enrollment ID is empty or longer than %d bytes.", maxEnrollmentID)
	}
	if len(req.GetMailboxes()) == 0 || len(req.GetMailboxes()) > report.MaxUsers {
		return refuse(controlv1.Reason_REASON_MALFORMED, "The request names no mailbox, or too many.")
	}
	return boundedText(append([]string{
		req.GetUser(), req.GetProfile(), req.GetStore(), req.GetProtection(), req.GetReplaces(), req.GetReason(),
	}, req.GetMailboxes()...)...)
}

// filing is one call of Submit on its way.
type filing struct {
	device string
	req    *controlv1.SubmitRequest
	hash   [32]byte
	now    time.Time

	csr    *x509.CertificateRequest
	rule   policy.Rule
	fresh  *store.Request
	number ca.Serial // of fresh
	// open are the mailboxes that are to be confirmed first.
	open []string

	// serial and record are what the call answers with.
	serial ca.Serial
	record *store.Request
}

// findEarlier sets the record of an earlier call with the same CSR. Another CSR
// for the same enrollment is refused.
func (f *filing) findEarlier(tx store.Tx) error {
	serial, record, err := ledger.Enrolled(tx, f.device, f.req.GetEnrollmentId())
	if err != nil {
		return err
	}
	if record != nil && !bytes.Equal(record.CSRHash, f.hash[:]) {
		return refuse(controlv1.Reason_REASON_CSR_CHANGED, "This enrollment was submitted with another CSR before.")
	}
	f.serial, f.record = serial, record
	return nil
}

// prepare judges the request, and issues unless an administrator has to decide.
func (s *Server) prepare(ctx context.Context, f *filing) error {
	profile, ok := ca.ProfileByName(f.req.GetProfile())
	if !ok {
		return refuse(controlv1.Reason_REASON_PROFILE_UNKNOWN, "This server has no profile %q.", f.req.GetProfile())
	}
	force, grant, err := s.grantFor(f)
	if err != nil {
		return err
	}
	if err := f.checkKey(profile, force.Profiles[profile.Name]); err != nil {
		return err
	}
	f.rule = grant.Rule
	if err := s.store.View(f.keyFree); err != nil {
		return err
	}
	f.number = s.issuer.Serials.Next(f.now)
	f.fresh = &store.Request{
		Device: f.device, Enrollment: f.req.GetEnrollmentId(), CSRHash: f.hash[:], Profile: profile.Name,
		User: f.req.GetUser(), Store: f.req.GetStore(), Protection: f.req.GetProtection(),
		Replaces: f.req.GetReplaces(), Reason: f.req.GetReason(), Department: grant.Person.Department, Submitted: f.now,
	}
	if grant.Rule.MailboxCheck {
		if f.open, err = s.codes.Unconfirmed(f.device, f.fresh.User, grant.Person.Mailboxes, f.now); err != nil {
			return err
		}
	}
	external := force.Profiles[profile.Name].CA
	if f.fresh.State = firstState(len(f.open) > 0, grant.Rule.Approval, external); f.fresh.State != store.RequestIssued {
		f.fresh.CSR, f.fresh.Mailboxes, f.fresh.Account = f.req.GetCsr(), grant.Person.Mailboxes, grant.Person.Account
		if f.fresh.State == store.RequestForwarded {
			f.fresh.Authority = external
		}
		return nil
	}
	f.fresh.Certificate, err = s.issuer.Issue(ctx, ca.Wanted{
		Serial: f.number, Profile: profile, Subject: subjectFor(force, grant), Key: f.csr.PublicKey, Now: f.now,
	})
	return err
}

// firstState says for what a request waits first: mailboxes, an administrator, another CA, or nothing.
func firstState(open bool, approval policy.Approval, external string) string {
	switch {
	case open:
		return store.RequestChallenge
	case approval == policy.Administrator:
		return store.RequestPending
	case external != "":
		return store.RequestForwarded
	default:
		return store.RequestIssued
	}
}

func subjectFor(p *policy.Policy, grant policy.Grant) ca.Subject {
	return ca.Subject{
		Organization: p.Organization.Name, OrganizationID: p.Organization.Identifier, Country: p.Organization.Country,
		GivenName: grant.Person.GivenName, Surname: grant.Person.Surname, CommonName: grant.Person.CommonName(),
		Mailboxes: grant.Person.Mailboxes,
	}
}

// grantFor finds what policy gives this user of this device. Who the user is
// was said by the device's own last report.
func (s *Server) grantFor(f *filing) (*policy.Policy, policy.Grant, error) {
	refused := refuse(controlv1.Reason_REASON_NOT_ASSIGNED,
		"Policy gives the mailbox %q with profile %q to nobody named %q on this device.",
		f.req.GetMailboxes()[0], f.req.GetProfile(), f.req.GetUser())
	m, err := s.member(f.device)
	if err != nil {
		return nil, policy.Grant{}, err
	}
	force := s.current.Load()
	if force == nil || m == nil {
		return nil, policy.Grant{}, refused
	}
	m.mu.Lock()
	users := m.report.GetUsers()
	m.mu.Unlock()
	for _, user := range users {
		if user.GetUser() != f.req.GetUser() {
			continue
		}
		for _, grant := range force.policy.Grants(user.GetAccount(), user.GetUpn()) {
			if grant.Profile == f.req.GetProfile() && sameMailboxes(grant.Person.Mailboxes, f.req.GetMailboxes()) {
				return force.policy, grant, nil
			}
		}
	}
	return nil, policy.Grant{}, refused
}

// sameMailboxes compares without regard to case and order.
func sameMailboxes(a, b []string) bool {
	fold := func(list []string) []string {
		out := make([]string, 0, len(list))
		for _, m := range list {
			out = append(out, strings.ToLower(m))
		}
		slices.Sort(out)
		return out
	}
	return slices.Equal(fold(a), fold(b))
}

func (f *filing) checkKey(profile ca.Profile, choice policy.ProfileChoice) error {
	csr, err := ca.ParseCSR(f.req.GetCsr())
	if err != nil {
		return refuse(controlv1.Reason_REASON_CSR_INVALID, "The certificate request cannot be used: %v.", err)
	}
	kind, err := ca.KeyKind(csr.PublicKey)
	if err != nil {
		return refuse(controlv1.Reason_REASON_KEY_UNSUITABLE, "The %v.", err)
	}
	if accepted := compile.AcceptedKeys(profile, choice); !slices.Contains(accepted, kind) {
		return refuse(controlv1.Reason_REASON_KEY_UNSUITABLE, "Profile %s takes %s, and no %s.",
			profile.Name, strings.Join(accepted, ", "), kind)
	}
	if choice.MinProtection != "" && strength(f.req.GetProtection()) < strength(choice.MinProtection) {
		return refuse(controlv1.Reason_REASON_KEY_UNSUITABLE, "Profile %s wants a key that is %s, and this one is %q.",
			profile.Name, choice.MinProtection, f.req.GetProtection())
	}
	f.csr = csr
	return nil
}

// strength orders what stores claim of their keys.
func strength(protection string) int {
	return slices.Index([]string{"software", "non-exportable", "hardware"}, protection)
}

// keyFree refuses a key that has a certificate, unless this is the renewal with
// the same key that policy allows or leaves to the agent.
func (f *filing) keyFree(tx store.Tx) error {
	_, holder, err := ledger.HolderOf(tx, f.csr.RawSubjectPublicKeyInfo)
	if err != nil || holder == nil {
		return err
	}
	// The same call beside this one was quicker, since [filing.findEarlier] looked: commit finds what it filed.
	again := holder.Device == f.device && holder.Enrollment == f.req.GetEnrollmentId()
	renewal := f.rule.Rotation != policy.RotationNewKey && holder.Device == f.device &&
		holder.Enrollment == f.req.GetReplaces() && holder.User == f.req.GetUser() &&
		holder.Profile == f.req.GetProfile() && holder.Store == f.req.GetStore()
	if renewal || again {
		return nil
	}
	return refuse(controlv1.Reason_REASON_KEY_REUSED, "The key already belongs to another enrollment.")
}

// commit files the request, with its certificate if it has one, and everything
// that finds it again, in one transaction.
func (f *filing) commit(tx store.Tx) error {
	store.Prefetch(tx,
		store.Ref{Bucket: store.Enrollments, Key: ledger.EnrollmentKey(f.device, f.fresh.Enrollment)},
		store.Ref{Bucket: store.Devices, Key: []byte(f.device)},
		store.Ref{Bucket: store.Keys, Key: ledger.PublicKeyKey(f.csr.RawSubjectPublicKeyInfo)},
		store.Ref{Bucket: store.Certificates, Key: f.number[:]})
	if err := f.findEarlier(tx); err != nil || f.record != nil {
		return err
	}
	if err := stillAdmitted(tx, f.device); err != nil {
		return err
	}
	if err := f.keyFree(tx); err != nil {
		return err
	}
	if tx.Get(store.Certificates, f.number[:]) != nil {
		return fmt.Errorf("serial number %s exists", f.number)
	}
	f.serial, f.record = f.number, f.fresh
	if err := tx.Put(store.Certificates, f.number[:], f.fresh.Encode()); err != nil {
		return err
	}
	if err := tx.Put(store.Enrollments, ledger.EnrollmentKey(f.device, f.fresh.Enrollment), f.number[:]); err != nil {
		return err
	}
	if err := tx.Put(store.Keys, ledger.PublicKeyKey(f.csr.RawSubjectPublicKeyInfo), f.number[:]); err != nil {
		return err
	}
	switch f.fresh.State {
	case store.RequestPending:
		return tx.Put(store.Pending, f.number[:], []byte{1})
	case store.RequestChallenge:
		return challenge.Put(tx, f.number, f.open)
	case store.RequestForwarded:
		return nil
	}
	return supersede(tx, f.number, f.fresh)
}

func stillAdmitted(tx store.Tx, id string) error {
	var device store.Standing
	found, err := store.GetJSON(tx, store.Devices, []byte(id), &device)
	if err != nil {
		return err
	}
	if !found {
		return judgeState(store.Removed)
	}
	return judgeState(device.State)
}

// supersede marks what the certificate replaces, and takes out the order that asked for it.
func supersede(tx store.Tx, serial ca.Serial, r *store.Request) error {
	if r.Replaces == "" {
		return nil
	}
	old, record, err := ledger.Enrolled(tx, r.Device, r.Replaces)
	if err != nil || record == nil {
		return err
	}
	var mark store.Mark
	if _, err := store.GetJSON(tx, store.Marks, old[:], &mark); err != nil {
		return err
	}
	mark.ReplacedBy = serial.String()
	if err := store.PutJSON(tx, store.Marks, old[:], mark); err != nil {
		return err
	}
	return orders.Drop(tx, r.Device, func(o *controlv1.Order, _ time.Time) bool {
		return o.GetRenew().GetEnrollmentId() == r.Replaces || o.GetRevoked().GetEnrollmentId() == r.Replaces
	})
}

// Collect tells what became of a request.
func (s *Server) Collect(ctx context.Context, req *controlv1.CollectRequest) (*controlv1.CollectResponse, error) {
	unknown := refuse(controlv1.Reason_REASON_REFERENCE_UNKNOWN, "This server has no such reference of this device.")
	serial, err := ca.ParseSerial(req.GetReference())
	if err != nil {
		return nil, unknown
	}
	device := deviceOf(ctx)
	readyKey := append([]byte(device), serial[:]...)
	var record *store.Request
	announced := false
	err = s.store.View(func(tx store.Tx) error {
		var err error
		record, err = ledger.RequestOf(tx, serial)
		announced = tx.Get(store.Ready, readyKey) != nil
		return err
	})
	if err != nil {
		return nil, err
	}
	if record == nil || record.Device != device {
		return nil, unknown
	}
	if announced {
		if err := s.store.Update(ctx, func(tx store.Tx) error { return tx.Delete(store.Ready, readyKey) }); err != nil {
			return nil, err
		}
	}
	return s.outcomeNow(ctx, serial, record)
}

// outcomeNow is outcome, after a challenge was driven on where it can be.
func (s *Server) outcomeNow(ctx context.Context, serial ca.Serial, r *store.Request) (*controlv1.CollectResponse, error) {
	if r.State == store.RequestForwarded {
		return s.forward(serial, r), nil
	}
	if r.State != store.RequestChallenge {
		return s.outcome(r), nil
	}
	settled, open, err := s.drive(ctx, serial, r)
	if err != nil {
		return nil, err
	}
	if settled.State != store.RequestChallenge {
		return s.outcomeNow(ctx, serial, settled)
	}
	return &controlv1.CollectResponse{
		ServerTime: timestamppb.New(s.now()), Outcome: &controlv1.CollectResponse_Challenge{Challenge: challenge.Wire(open)},
	}, nil
}

func (s *Server) outcome(r *store.Request) *controlv1.CollectResponse {
	resp := &controlv1.CollectResponse{ServerTime: timestamppb.New(s.now())}
	switch r.State {
	case store.RequestIssued:
		resp.Outcome = &controlv1.CollectResponse_Issued{Issued: &controlv1.Issued{
			Chain: s.chainOf(r), SuggestedRenewal: s.suggestedRenewal(r),
		}}
	case store.RequestRefused:
		resp.Outcome = &controlv1.CollectResponse_Refused{Refused: &controlv1.Refused{
			Code: "REFUSED_BY_ADMINISTRATOR", Text: r.Refusal,
		}}
	default:
		resp.Outcome = &controlv1.CollectResponse_Pending{Pending: &controlv1.Pending{
			RetryAfter: durationpb.New(s.settings.PendingInterval), WaitsFor: "administrator",
		}}
	}
	return resp
}

// chainOf gives the leaf and the issuing CA; the anchor travels in the policy.
func (s *Server) chainOf(r *store.Request) [][]byte {
	if r.Authority != "" {
		return append([][]byte{r.Certificate}, r.Issuers...)
	}
	issuers := s.issuer.Chain()
	return append([][]byte{r.Certificate}, issuers[:max(len(issuers)-1, 1)]...)
}

// suggestedRenewal is nil where policy leaves it to the agent.
func (s *Server) suggestedRenewal(r *store.Request) *timestamppb.Timestamp {
	force := s.current.Load()
	if force == nil {
		return nil
	}
	rule, ok := force.policy.RuleFor(r.Department)
	if !ok || rule.RenewSpread <= 0 {
		return nil
	}
	cert, err := x509.ParseCertificate(r.Certificate)
	if err != nil {
		return nil
	}
	return timestamppb.New(rule.SuggestedRenewal(cert))
}

package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/ca"
	"smime-agent/server-stub/compile"
	"smime-agent/server-stub/policy"
	"smime-agent/server-stub/report"
	"smime-agent/server-stub/store"
)

// ApplyPolicy checks people and rules, and puts them in force unless dry_run.
func (a *admin) ApplyPolicy(ctx context.Context, req *controlv1.ApplyPolicyRequest) (*controlv1.ApplyPolicyResponse, error) {
	if err := malformed(report.Text(req.GetPolicyName(), req.GetPeopleName())); err != nil {
		return nil, err
	}
	resp, err := a.applyPolicy(ctx, proposal{
		rules:    policy.Source{Name: cmp.Or(req.GetPolicyName(), metaRules), Data: req.GetPolicyYaml()},
		people:   policy.Source{Name: cmp.Or(req.GetPeopleName(), metaPeople), Data: req.GetPeopleCsv()},
		partners: compile.Partners(req), at: a.now(),
	}, req.GetDryRun(), false)
	if bad, ok := errors.AsType[*policy.Error](err); ok {
		return nil, status.Error(codes.InvalidArgument, bad.Error())
	}
	return resp, err
}

// UploadPolicy puts the parts together and applies them.
func (a *admin) UploadPolicy(stream grpc.ClientStreamingServer[controlv1.UploadPolicyRequest, controlv1.UploadPolicyResponse]) error {
	whole := &controlv1.ApplyPolicyRequest{DryRun: true}
	for size := 0; ; {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		part := req.GetPart()
		whole.PolicyYaml, whole.PeopleCsv = append(whole.GetPolicyYaml(), part.GetPolicyYaml()...), append(whole.GetPeopleCsv(), part.GetPeopleCsv()...)
		whole.Partners, whole.DryRun = append(whole.GetPartners(), part.GetPartners()...), part.GetDryRun()
		whole.PolicyName, whole.PeopleName = cmp.Or(part.GetPolicyName(), whole.GetPolicyName()), cmp.Or(part.GetPeopleName(), whole.GetPeopleName())
		if size += proto.Size(req); size > 2*policy.MaxFile {
			return status.Error(codes.InvalidArgument, "The files are too large.")
		}
	}
	result, err := a.ApplyPolicy(stream.Context(), whole)
	a.note(stream.Context(), "ApplyPolicy", whole, result, err)
	if err != nil {
		return err
	}
	return stream.SendAndClose(&controlv1.UploadPolicyResponse{Result: result})
}

// The keys of the policy in the store.
const (
	metaRules  = "policy.yaml"
	metaPeople = "people.csv"
	// metaPartners is the files of partners' certificates, as JSON.
	metaPartners = "partners"
	// metaApplied is when it was applied, as JSON.
	metaApplied = "policy.applied"
	// metaRevision tells other servers that the two have changed.
	metaRevision = "policy.revision"
)

func (s *Server) catalog() policy.Catalog {
	c := policy.Catalog{CAs: slices.Sorted(maps.Keys(s.externals)), Keys: []string{ca.RSA2048, ca.RSA3072, ca.RSA4096, ca.P256, ca.P384}}
	for _, profile := range ca.Profiles() {
		c.Profiles = append(c.Profiles, profile.Name)
	}
	return c
}

// proposal is a policy that may come into force: its files, by the names that
// messages have for them.
type proposal struct {
	rules, people policy.Source
	partners      []policy.PartnerFile
	// at is the time that partners' certificates are judged by: that of applying, so
	// that all servers have the same set, whenever they were started.
	at time.Time
}

func unnamed(rules, people []byte, partners []policy.PartnerFile, at time.Time) proposal {
	return proposal{policy.Source{Name: metaRules, Data: rules}, policy.Source{Name: metaPeople, Data: people}, partners, at}
}

func (s *Server) parsePolicy(p proposal, applied bool) (*policy.Policy, error) {
	catalog := s.catalog()
	catalog.Partners, catalog.Now, catalog.Applied = p.partners, p.at, applied
	return policy.Parse(p.rules, p.people, catalog)
}

// loadPolicy puts in force what was applied last.
func (s *Server) loadPolicy() error {
	s.loading.Lock()
	defer s.loading.Unlock()
	return s.readPolicy()
}

// followPolicy puts in force what another server applied, if this is not it.
func (s *Server) followPolicy(revision string) error {
	same := func() bool {
		force := s.current.Load()
		return force == nil && revision == "" || force != nil && force.revision == revision
	}
	if same() {
		return nil
	}
	s.loading.Lock()
	defer s.loading.Unlock()
	if same() {
		return nil
	}
	return s.readPolicy()
}

// enforce puts a policy in force; the caller holds loading.
func (s *Server) enforce(revision string, p *policy.Policy) {
	generation := uint64(1)
	if force := s.current.Load(); force != nil {
		generation = force.generation + 1
	}
	s.current.Store(&inForce{generation: generation, revision: revision, policy: p})
}

func (s *Server) readPolicy() error {
	var rules, people []byte
	var partners []policy.PartnerFile
	var revision string
	at := s.now() // where an older server applied it
	err := s.store.View(func(tx store.Tx) error {
		rules = append(rules, tx.Get(store.Meta, []byte(metaRules))...)
		people = append(people, tx.Get(store.Meta, []byte(metaPeople))...)
		revision = string(tx.Get(store.Meta, []byte(metaRevision)))
		_, err := store.GetJSON(tx, store.Meta, []byte(metaPartners), &partners)
		if err != nil {
			return err
		}
		_, err = store.GetJSON(tx, store.Meta, []byte(metaApplied), &at)
		return err
	})
	if err != nil || rules == nil {
		return err
	}
	parsed, err := s.parsePolicy(unnamed(rules, people, partners, at), true)
	if err != nil {
		return fmt.Errorf("policy in the records: %w", err)
	}
	s.enforce(revision, parsed)
	return nil
}

// HasPolicy says whether a policy was ever applied.
func (s *Server) HasPolicy() bool { return s.current.Load() != nil }

// errApplied: another server was faster.
var errApplied = errors.New("a policy is in force already")

// FirstPolicy checks the files and puts them in force together where none ever
// were; else it changes nothing. What is wrong is a [policy.Error].
func (s *Server) FirstPolicy(ctx context.Context, rules, people []byte, partners ...policy.PartnerFile) error {
	_, err := s.applyPolicy(ctx, unnamed(rules, people, partners, s.now()), false, true)
	if errors.Is(err, errApplied) {
		return s.loadPolicy()
	}
	return err
}

// applyPolicy changes nothing where it fails, with a [policy.Error] for what is wrong in the files.
func (s *Server) applyPolicy(ctx context.Context, p proposal, dryRun, first bool) (*controlv1.ApplyPolicyResponse, error) {
	parsed, err := s.parsePolicy(p, false)
	if err != nil {
		return nil, err
	}
	if s.mail.Mailer == nil && slices.ContainsFunc(parsed.Rules, func(r policy.Rule) bool { return r.MailboxCheck }) {
		return nil, &policy.Error{Problems: []policy.Problem{{
			File: p.rules.Name, Line: 1, What: "A rule wants mailboxes checked by mail, and the server has no mail server.",
			Cure: "Set mail in server.yaml and start the server again, or take mailbox_check out.",
		}}}
	}
	var before *policy.Policy
	if force := s.current.Load(); force != nil {
		before = force.policy
	}
	resp := &controlv1.ApplyPolicyResponse{
		Revision: compile.ContentRevision(p.rules.Data, p.people.Data, parsed.Partners),
		People:   uint32(len(parsed.People)),
	}
	for _, w := range parsed.Warnings {
		resp.Changes = append(resp.GetChanges(), "warning: "+w.String())
	}
	if resp.Changes = append(resp.GetChanges(), before.Changes(parsed)...); len(resp.GetChanges()) > compile.MaxEffects {
		more := fmt.Sprintf("and %d more", len(resp.GetChanges())-compile.MaxEffects)
		resp.Changes = append(resp.GetChanges()[:compile.MaxEffects:compile.MaxEffects], more)
	}
	resp.Effects, resp.EffectsCut = compile.Effects(before.Effects(parsed))
	if dryRun {
		return resp, nil
	}
	s.loading.Lock()
	defer s.loading.Unlock()
	err = s.store.Update(ctx, func(tx store.Tx) error {
		if first && tx.Get(store.Meta, []byte(metaRules)) != nil {
			return errApplied
		}
		tellChanged(tx, "")
		return errors.Join(
			tx.Put(store.Meta, []byte(metaRules), p.rules.Data), tx.Put(store.Meta, []byte(metaPeople), p.people.Data),
			store.PutJSON(tx, store.Meta, []byte(metaPartners), p.partners), store.PutJSON(tx, store.Meta, []byte(metaApplied), p.at),
			tx.Put(store.Meta, []byte(metaRevision), []byte(resp.GetRevision())))
	})
	if err != nil {
		return nil, err
	}
	s.enforce(resp.GetRevision(), parsed)
	s.fleet.wakeAll()
	return resp, nil
}

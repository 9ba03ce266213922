package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/ca"
	"smime-agent/server-stub/policy"
	"smime-agent/server-stub/store"
)

// ApplyPolicy checks people and rules, and puts them in force unless dry_run.
func (a *admin) ApplyPolicy(ctx context.Context, req *controlv1.ApplyPolicyRequest) (*controlv1.ApplyPolicyResponse, error) {
	resp, err := a.Server.ApplyPolicy(ctx, req.GetPolicyYaml(), req.GetPeopleCsv(), req.GetDryRun())
	if bad, ok := errors.AsType[*policy.Error](err); ok {
		return nil, status.Error(codes.InvalidArgument, bad.Error())
	}
	return resp, err
}

func contentRevision(rules, people []byte) string {
	h := sha256.New()
	h.Write(rules)
	h.Write([]byte{0})
	h.Write(people)
	return hex.EncodeToString(h.Sum(nil)[:12])
}

// UploadPolicy puts the parts together and applies them.
func (a *admin) UploadPolicy(stream grpc.ClientStreamingServer[controlv1.UploadPolicyRequest, controlv1.UploadPolicyResponse]) error {
	var rules, people []byte
	dryRun := true
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		rules, people = append(rules, req.GetPart().GetPolicyYaml()...), append(people, req.GetPart().GetPeopleCsv()...)
		dryRun = req.GetPart().GetDryRun()
		if len(rules)+len(people) > 2*policy.MaxFile {
			return status.Error(codes.InvalidArgument, "The files are too large.")
		}
	}
	whole := &controlv1.ApplyPolicyRequest{PolicyYaml: rules, PeopleCsv: people, DryRun: dryRun}
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

func (s *Server) parsePolicy(rules, people []byte) (*policy.Policy, error) {
	return policy.Parse(policy.Source{Name: metaRules, Data: rules}, policy.Source{Name: metaPeople, Data: people}, s.catalog())
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
	var revision string
	err := s.store.View(func(tx store.Tx) error {
		rules = append(rules, tx.Get(store.Meta, []byte(metaRules))...)
		people = append(people, tx.Get(store.Meta, []byte(metaPeople))...)
		revision = string(tx.Get(store.Meta, []byte(metaRevision)))
		return nil
	})
	if err != nil || rules == nil {
		return err
	}
	parsed, err := s.parsePolicy(rules, people)
	if err != nil {
		return fmt.Errorf("policy in the records: %w", err)
	}
	s.enforce(revision, parsed)
	return nil
}

// maxEffects bounds what an answer says of a change.
const maxEffects = 10_000

func wireEffects(effects []policy.Effect) (out []*controlv1.PolicyEffect, cut bool) {
	cut = len(effects) > maxEffects
	for _, e := range effects[:min(len(effects), maxEffects)] {
		out = append(out, &controlv1.PolicyEffect{
			Kind: e.Kind, Account: e.Account, Mailboxes: e.Mailboxes, Profile: e.Profile, Detail: e.Detail,
		})
	}
	return out, cut
}

// HasPolicy says whether a policy was ever applied.
func (s *Server) HasPolicy() bool { return s.current.Load() != nil }

// ApplyPolicy checks both files and puts them in force together. What is wrong
// is a [policy.Error], and changes nothing.
func (s *Server) ApplyPolicy(ctx context.Context, rules, people []byte, dryRun bool) (*controlv1.ApplyPolicyResponse, error) {
	return s.applyPolicy(ctx, rules, people, dryRun, false)
}

// errApplied: another server was faster.
var errApplied = errors.New("a policy is in force already")

// FirstPolicy is ApplyPolicy where none was ever applied; else it changes nothing.
func (s *Server) FirstPolicy(ctx context.Context, rules, people []byte) error {
	_, err := s.applyPolicy(ctx, rules, people, false, true)
	if errors.Is(err, errApplied) {
		return s.loadPolicy()
	}
	return err
}

func (s *Server) applyPolicy(ctx context.Context, rules, people []byte, dryRun, first bool) (*controlv1.ApplyPolicyResponse, error) {
	parsed, err := s.parsePolicy(rules, people)
	if err != nil {
		return nil, err
	}
	if s.mail.Mailer == nil && slices.ContainsFunc(parsed.Rules, func(r policy.Rule) bool { return r.MailboxCheck }) {
		return nil, &policy.Error{Problems: []policy.Problem{{
			File: metaRules, Line: 1, What: "A rule wants mailboxes checked by mail, and the server has no mail server.",
			Cure: "Set mail in server.yaml and start the server again, or take mailbox_check out.",
		}}}
	}
	var before *policy.Policy
	if force := s.current.Load(); force != nil {
		before = force.policy
	}
	resp := &controlv1.ApplyPolicyResponse{
		Revision: contentRevision(rules, people),
		People:   uint32(len(parsed.People)),
	}
	if resp.Changes = before.Changes(parsed); len(resp.GetChanges()) > maxEffects {
		more := fmt.Sprintf("and %d more", len(resp.GetChanges())-maxEffects)
		resp.Changes = append(resp.GetChanges()[:maxEffects:maxEffects], more)
	}
	resp.Effects, resp.EffectsCut = wireEffects(before.Effects(parsed))
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
			tx.Put(store.Meta, []byte(metaRules), rules), tx.Put(store.Meta, []byte(metaPeople), people),
			tx.Put(store.Meta, []byte(metaRevision), []byte(resp.GetRevision())))
	})
	if err != nil {
		return nil, err
	}
	s.enforce(resp.GetRevision(), parsed)
	s.fleet.wakeAll()
	return resp, nil
}

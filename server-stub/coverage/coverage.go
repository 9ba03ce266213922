// Package coverage compares what policy gives people with what is issued to
// them and proved to work.
package coverage

import (
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/policy"
)

// The states of a wish, worst first.
const (
	wishMissing  = "missing"
	wishRefused  = "refused"
	wishWaiting  = "waiting"
	wishUnproved = "unproved"
	wishProved   = "proved"
)

const (
	defaultSilent = 7 * day
	defaultEnding = 60 * day
	maxWishes     = 200_000
	maxSilent     = 1000
	weeks         = 13
)

const day = 24 * time.Hour

// The words of a device's state and of a certificate's that count here.
const (
	admitted = "admitted"
	valid    = "valid"
)

// Source is the record.
type Source interface {
	// Certificates visits all that were ever issued, each with its device's state
	// and last report.
	Certificates(visit func(e *controlv1.LedgerEntry, state string, report *controlv1.SyncRequest)) error
	// Machines visits all devices that ever joined, each with its last report.
	Machines(visit func(d *controlv1.Device, report *controlv1.SyncRequest)) error
}

// count gathers one report.
type count struct {
	now    time.Time
	silent time.Duration
	ending time.Duration
	// wishes are by mailbox and profile; several people may share a mailbox.
	wishes map[string][]*controlv1.CoverageWish
	all    []*controlv1.CoverageWish
	seen   map[string]bool // accounts that some device reports
	out    *controlv1.GetCoverageResponse
}

// Report says who should have a certificate, and who has one that is proved to
// work. p may be nil: then nobody should.
func Report(p *policy.Policy, source Source, req *controlv1.GetCoverageRequest, now time.Time) (*controlv1.GetCoverageResponse, error) {
	c := &count{
		now: now, silent: defaultSilent, ending: defaultEnding,
		wishes: map[string][]*controlv1.CoverageWish{}, seen: map[string]bool{},
		out: &controlv1.GetCoverageResponse{At: timestamppb.New(now), EndingByWeek: make([]uint32, weeks)},
	}
	if d := req.GetSilentFor().AsDuration(); d > 0 {
		c.silent = d
	}
	if d := req.GetEndingWithin().AsDuration(); d > 0 {
		c.ending = d
	}
	if p != nil {
		c.wish(p)
	}
	if err := source.Certificates(c.certificate); err != nil {
		return nil, err
	}
	if err := source.Machines(c.device); err != nil {
		return nil, err
	}
	c.sum()
	for _, w := range c.all {
		if (req.GetAll() || w.GetState() != wishProved) && len(c.out.GetWishes()) < maxWishes {
			c.out.Wishes = append(c.out.Wishes, w)
		}
	}
	return c.out, nil
}

func coverageKey(mailbox, profile string) string { return strings.ToLower(mailbox) + "\x00" + profile }

// wish lists what policy wants.
func (c *count) wish(p *policy.Policy) {
	for _, grant := range p.AllGrants() {
		w := &controlv1.CoverageWish{
			Department: grant.Person.Department, Account: grant.Person.Account, Name: grant.Person.CommonName(),
			Mailbox: grant.Person.Mailboxes[0], Profile: grant.Profile, State: wishMissing,
		}
		key := coverageKey(w.GetMailbox(), w.GetProfile())
		c.wishes[key] = append(c.wishes[key], w)
		c.all = append(c.all, w)
	}
}

// of gives the wishes that a credential of a user fulfills: whoever had a mailbox
// before fulfills nothing for its new holder. Where the user is not known any more,
// the mailbox alone decides.
func (c *count) of(mailbox, profile string, user *controlv1.UserPresence) []*controlv1.CoverageWish {
	list := c.wishes[coverageKey(mailbox, profile)]
	if user.GetAccount() == "" && user.GetUpn() == "" {
		return list
	}
	var out []*controlv1.CoverageWish
	for _, w := range list {
		if policy.SameAccount(w.GetAccount(), user.GetAccount(), user.GetUpn()) {
			out = append(out, w)
		}
	}
	return out
}

func userOf(report *controlv1.SyncRequest, id string) *controlv1.UserPresence {
	i := slices.IndexFunc(report.GetUsers(), func(u *controlv1.UserPresence) bool { return u.GetUser() == id })
	if i < 0 {
		return nil
	}
	return report.GetUsers()[i]
}

// certificate counts one that is in force.
func (c *count) certificate(e *controlv1.LedgerEntry, device string, report *controlv1.SyncRequest) {
	if e.GetStatus() != valid {
		return
	}
	state, cause := wishUnproved, "no-proof"
	switch {
	case device != admitted:
		cause = "device-" + device
	case e.GetProof().GetOk():
		state, cause = wishProved, ""
	case e.GetProof() != nil:
		cause = "proof-failed"
	}
	for _, w := range c.of(e.GetMailbox(), e.GetType(), userOf(report, e.GetUser())) {
		if rank(state) < rank(w.GetState()) || rank(state) == rank(w.GetState()) && !e.GetNotAfter().AsTime().After(w.GetEnds().AsTime()) {
			continue
		}
		w.State, w.Cause, w.DeviceId, w.Hostname, w.Serial, w.Ends = state, cause, e.GetDeviceId(), e.GetHostname(), e.GetSerial(), e.GetNotAfter()
		w.ProvedAt = nil
		if state == wishProved {
			w.ProvedAt = e.GetProof().GetAt()
		}
	}
}

func rank(state string) int {
	return slices.Index([]string{wishMissing, wishRefused, wishWaiting, wishUnproved, wishProved}, state)
}

// device looks at what a machine reports beside certificates, and for how long it has not.
func (c *count) device(d *controlv1.Device, report *controlv1.SyncRequest) {
	if d.GetState() != admitted {
		return
	}
	c.out.Devices++
	if c.now.Sub(LastHeard(d)) >= c.silent {
		c.out.SilentCount++
		c.out.Silent = append(c.out.Silent, d)
	}
	for _, user := range report.GetUsers() {
		for _, name := range policy.AccountNames(user.GetAccount(), user.GetUpn()) {
			c.seen[name] = true
		}
	}
	for _, cr := range report.GetCredentials() {
		state, cause := wishWaiting, cr.GetState()
		if problem := cr.GetProblem().GetCode(); problem != "" {
			cause = problem
		}
		switch {
		case cr.GetState() == "kept":
			continue
		case cr.GetConsent() == "declined":
			state, cause = wishRefused, "declined"
		case cause == "request-refused" || cause == "consent-declined":
			state = wishRefused
		case cr.GetState() == "over":
			continue
		case cr.GetState() == "active":
			cause = "not-in-record"
		}
		for _, w := range c.of(cr.GetMailbox(), cr.GetProfile(), userOf(report, cr.GetUser())) {
			if rank(state) > rank(w.GetState()) {
				w.State, w.Cause, w.DeviceId, w.Hostname = state, cause, d.GetId(), d.GetFacts().GetHostname()
			}
		}
	}
}

// sum makes the rows of the departments.
func (c *count) sum() {
	c.out.Total = &controlv1.CoverageRow{}
	rows := map[string]*controlv1.CoverageRow{}
	people := map[string]bool{}
	for _, w := range c.all {
		row := rows[strings.ToLower(w.GetDepartment())]
		if row == nil {
			row = &controlv1.CoverageRow{Department: w.GetDepartment()}
			rows[strings.ToLower(w.GetDepartment())] = row
			c.out.Departments = append(c.out.Departments, row)
		}
		if w.GetState() == wishMissing {
			w.Cause = "no-device"
			if c.seen[policy.AccountNames(w.GetAccount(), "")[0]] {
				w.Cause = "nothing-yet"
			}
		}
		for _, r := range []*controlv1.CoverageRow{row, c.out.GetTotal()} {
			add(r, w)
			if ends := w.GetEnds(); ends != nil && ends.AsTime().Sub(c.now) <= c.ending {
				r.Ending++
			}
			if who := r.GetDepartment() + "\x00" + strings.ToLower(w.GetAccount()); !people[who] {
				people[who] = true
				r.People++
			}
		}
		if ends := w.GetEnds(); ends != nil {
			if week := int(ends.AsTime().Sub(c.now) / (7 * day)); week >= 0 && week < weeks {
				c.out.EndingByWeek[week]++
			}
		}
	}
	slices.SortFunc(c.out.GetDepartments(), func(a, b *controlv1.CoverageRow) int { return strings.Compare(a.GetDepartment(), b.GetDepartment()) })
	slices.SortFunc(c.out.GetSilent(), func(a, b *controlv1.Device) int { return LastHeard(a).Compare(LastHeard(b)) })
	c.out.Silent = c.out.GetSilent()[:min(len(c.out.GetSilent()), maxSilent)]
}

func add(r *controlv1.CoverageRow, w *controlv1.CoverageWish) {
	r.Wanted++
	switch w.GetState() {
	case wishProved:
		r.Proved++
	case wishUnproved:
		r.Unproved++
	case wishWaiting:
		r.Waiting++
	case wishRefused:
		r.Refused++
	default:
		r.Missing++
	}
}

// LastHeard is a device's last contact, or its joining where there was none.
func LastHeard(d *controlv1.Device) time.Time {
	if d.GetLastContact() != nil {
		return d.GetLastContact().AsTime()
	}
	return d.GetJoined().AsTime()
}

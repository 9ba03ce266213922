// Package challenge confirms mailboxes by codes that are mailed to them: it makes
// and mails them when they are due, and judges what the person brings back.
package challenge

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/ca"
	"smime-agent/server-stub/store"
)

// The rules of a code: S/MIME BR 3.2.2.2 (in 1.0.10): at least 112 bits, its own
// for each mail, sent to the mailbox alone, 24 hours, and 30 days of reuse.
const (
	// length is in characters of 5 bits: 120 bits.
	length = 24
	group  = 4
	// life is how long a code holds, reuse how long what it confirmed does.
	life  = 24 * time.Hour
	reuse = 30 * 24 * time.Hour
	// method is what the record says of how a mailbox was confirmed.
	method = "S/MIME BR 1.0.10, 3.2.2.2"
	// maxLength bounds what is looked at.
	maxLength = 64
	// maxWrong voids a code; another is mailed then.
	maxWrong = 20
	// maxMails is how many codes a mailbox gets before the request is refused.
	maxMails = 7
	// mailAgain is how long a mail that was not sent is left alone.
	mailAgain = time.Minute
	// sendTime bounds sending the codes of one request.
	sendTime = time.Minute
)

var (
	// ErrUnknown: the device has no such request.
	ErrUnknown = errors.New("no such request of this device")
	// ErrLength: what was brought is empty, or too long to be looked at.
	ErrLength = errors.New("empty or too long")
	// ErrWrong: it is not the code that was mailed last.
	ErrWrong = errors.New("wrong code")
	// ErrExpired: the code's time is over.
	ErrExpired = errors.New("expired code")
)

// newCode gives a code as a person reads it.
func newCode() string {
	text := rand.Text()[:length]
	var groups []string
	for part := range slices.Chunk([]byte(text), group) {
		groups = append(groups, string(part))
	}
	return strings.Join(groups, "-")
}

// hashOf is what is kept of a code: it is bound to the request, and blind to case,
// spaces and hyphens.
func hashOf(serial ca.Serial, code string) []byte {
	code = strings.Map(func(r rune) rune {
		if r == '-' || r == ' ' || r == '\u00a0' || r == '\t' {
			return -1
		}
		return r
	}, strings.ToUpper(code))
	sum := sha256.Sum256(append(serial[:], code...))
	return sum[:]
}

// Put files the mailboxes that a request waits for.
func Put(tx store.Tx, serial ca.Serial, open []string) error {
	c := store.Challenge{}
	for _, mailbox := range open {
		c.Mailboxes = append(c.Mailboxes, store.MailboxCode{Mailbox: mailbox})
	}
	return store.PutJSON(tx, store.Challenges, serial[:], c)
}

// Wire gives what an agent is told of a challenge.
func Wire(c *store.Challenge) *controlv1.Challenge {
	out := &controlv1.Challenge{Kind: "mail-code"}
	var open []string
	for _, m := range c.Mailboxes {
		if !m.Confirmed.IsZero() {
			continue
		}
		open = append(open, m.Mailbox)
		if !m.Expires.IsZero() && (out.GetExpires() == nil || m.Expires.Before(out.GetExpires().AsTime())) {
			out.Expires = timestamppb.New(m.Expires)
		}
	}
	out.SentTo = strings.Join(open, ", ")
	return out
}

// Checks tells an administrator how far the confirmation of each mailbox has come.
func Checks(tx store.Tx, serial ca.Serial) ([]*controlv1.MailboxCheck, error) {
	var c store.Challenge
	if _, err := store.GetJSON(tx, store.Challenges, serial[:], &c); err != nil {
		return nil, err
	}
	var out []*controlv1.MailboxCheck
	for _, m := range c.Mailboxes {
		out = append(out, &controlv1.MailboxCheck{
			Mailbox: m.Mailbox, Mails: uint32(m.Mails), MaxMails: maxMails, //nolint:gosec // at most maxMails
			Mailed: moment(m.Sent), Expires: moment(m.Expires), Confirmed: moment(m.Confirmed),
		})
	}
	return out, nil
}

func moment(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// judge marks the mailbox whose code it is. A code that was taken before is
// good again, so that a lost answer costs nothing; it confirms nothing more.
func judge(c *store.Challenge, hash []byte, now time.Time) error {
	for i := range c.Mailboxes {
		m := &c.Mailboxes[i]
		if m.Hash == nil || subtle.ConstantTimeCompare(m.Hash, hash) != 1 {
			continue
		}
		if m.Confirmed.IsZero() && now.After(m.Expires) {
			return ErrExpired
		}
		if m.Confirmed.IsZero() {
			m.Confirmed = now
		}
		return nil
	}
	for i := range c.Mailboxes {
		m := &c.Mailboxes[i]
		if !m.Confirmed.IsZero() {
			continue
		}
		if m.Wrong++; m.Wrong >= maxWrong {
			m.Hash, m.Expires = nil, time.Time{}
		}
	}
	return ErrWrong
}

// exhausted says that a mailbox has had all its codes.
func exhausted(m store.MailboxCode, now time.Time) bool {
	return m.Confirmed.IsZero() && m.Mails >= maxMails && now.After(m.Expires)
}

// due says that a mailbox has no code in force, or none that was sent.
func due(m store.MailboxCode, now time.Time) bool {
	if !m.Confirmed.IsZero() || m.Mails >= maxMails || now.Sub(m.Tried) < mailAgain {
		return false
	}
	return m.Hash == nil || now.After(m.Expires) || m.Sent.IsZero() && now.Sub(m.Tried) > sendTime
}

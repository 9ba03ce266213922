// Package challenge holds the rules of codes that confirm a mailbox: how they
// are made, judged, and when another is due.
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
	// Life is how long a code holds, Reuse how long what it confirmed does.
	Life  = 24 * time.Hour
	Reuse = 30 * 24 * time.Hour
	// Method is what the record says of how a mailbox was confirmed.
	Method = "S/MIME BR 1.0.10, 3.2.2.2"
	// MaxLength bounds what is looked at.
	MaxLength = 64
	// maxWrong voids a code; another is mailed then.
	maxWrong = 20
	// maxMails is how many codes a mailbox gets before the request is refused.
	maxMails = 7
	// mailAgain is how long a mail that was not sent is left alone.
	mailAgain = time.Minute
	// SendTime bounds sending the codes of one request.
	SendTime = time.Minute
)

var (
	// ErrWrong: it is not the code that was mailed last.
	ErrWrong = errors.New("wrong code")
	// ErrExpired: the code's time is over.
	ErrExpired = errors.New("expired code")
)

// New gives a code as a person reads it.
func New() string {
	text := rand.Text()[:length]
	var groups []string
	for part := range slices.Chunk([]byte(text), group) {
		groups = append(groups, string(part))
	}
	return strings.Join(groups, "-")
}

// Hash is what is kept of a code: it is bound to the request, and blind to case,
// spaces and hyphens.
func Hash(serial ca.Serial, code string) []byte {
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

// Judge marks the mailbox whose code it is. A code that was taken before is
// good again, so that a lost answer costs nothing; it confirms nothing more.
func Judge(c *store.Challenge, hash []byte, now time.Time) error {
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

// Exhausted says that a mailbox has had all its codes.
func Exhausted(m store.MailboxCode, now time.Time) bool {
	return m.Confirmed.IsZero() && m.Mails >= maxMails && now.After(m.Expires)
}

// Due says that a mailbox has no code in force, or none that was sent.
func Due(m store.MailboxCode, now time.Time) bool {
	if !m.Confirmed.IsZero() || m.Mails >= maxMails || now.Sub(m.Tried) < mailAgain {
		return false
	}
	return m.Hash == nil || now.After(m.Expires) || m.Sent.IsZero() && now.Sub(m.Tried) > SendTime
}

package status

import (
	"fmt"
	"slices"
	"strings"

	"smime-agent/agent/enroll"
)

// neededBy counts the messages that need an enrollment's key.
func (b *builder) neededBy(e enroll.Enrollment) int {
	n := 0
	for _, c := range b.facts.Mail {
		for _, k := range c.Keys {
			if k.Enrollment == e.ID && c.User == e.Assignment.User {
				n += k.Messages
			}
		}
	}
	return n
}

// judgeMail finds what old mail needs and does not have. Keys that the agent made
// are judged one by one; those that it never knew of may be other people's, and
// make one note for each person.
func (b *builder) judgeMail() {
	unknown := map[string]*needs{}
	gone := map[enroll.ID]*needs{}
	for _, c := range b.facts.Mail {
		for _, k := range c.Keys {
			switch e, ours := b.byID[k.Enrollment]; {
			case k.Presence == enroll.KeyGone && ours && e.Assignment.User == c.User:
				needed(gone, e.ID).add(c, k)
			case k.Presence == enroll.KeyUnknown || k.Presence == enroll.KeyGone:
				needed(unknown, c.User).add(c, k)
			}
		}
	}
	for id, n := range gone {
		e := b.byID[id]
		b.raise(Raised{Code: OldMailUnreadable, User: e.Assignment.User, Mailbox: e.Mailbox(), Enrollment: id, Detail: n.sentence()})
	}
	for user, n := range unknown {
		b.raise(Raised{Code: OldMailOtherKey, User: user, Detail: n.sentence()})
	}
}

// needs is what is missing, put together from several looks.
type needs struct {
	messages int
	names    []string
	paths    []string
}

func needed[K comparable](all map[K]*needs, key K) *needs {
	if all[key] == nil {
		all[key] = &needs{}
	}
	return all[key]
}

func (n *needs) add(c enroll.MailCheck, k enroll.MailKey) {
	n.messages += k.Messages
	n.names = appendNew(n.names, NameOfKey(k))
	n.paths = appendNew(n.paths, c.Path)
}

func appendNew(all []string, s string) []string {
	if slices.Contains(all, s) {
		return all
	}
	return append(all, s)
}

// namesShown is how many certificates a condition names.
const namesShown = 3

func (n *needs) sentence() string {
	names := strings.Join(n.names[:min(len(n.names), namesShown)], "; ")
	if more := len(n.names) - namesShown; more > 0 {
		names += fmt.Sprintf("; and %d more", more)
	}
	return fmt.Sprintf("messages: %d, certificate: %s, in: %s", n.messages, names, strings.Join(n.paths, ", "))
}

// NameOfKey is what a key is called where people read it: as the messages call
// its certificate.
func NameOfKey(k enroll.MailKey) string {
	if k.Serial == "" {
		return "key identifier " + k.KeyID
	}
	return "serial number " + k.Serial + " of " + k.Issuer
}

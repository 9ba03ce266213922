package enroll

import "time"

// MailCheck is what one look through a person's old mail found of the keys that
// it needs: counts only. The person has it made by the doctor and hands it in.
type MailCheck struct {
	User string `json:"user"`
	// Path is the folder or file that was looked through.
	Path string    `json:"path"`
	At   time.Time `json:"at"`
	// Messages are all, Encrypted those that are encrypted, Opened those of them
	// that a key which is here opens, Obscure those that do not say for whom.
	Messages  int `json:"messages"`
	Encrypted int `json:"encrypted"`
	Opened    int `json:"opened"`
	Obscure   int `json:"obscure,omitempty"`
	// Keys are those that messages need.
	Keys []MailKey `json:"keys,omitempty"`
}

// MailKey is a key that some messages need.
type MailKey struct {
	// Enrollment is empty for a key that the agent did not make.
	Enrollment ID `json:"enrollment,omitempty"`
	// Issuer (RFC 4514) and Serial (lower-case hex), or KeyID (lower-case hex),
	// are how the messages name its certificate.
	Issuer   string      `json:"issuer,omitempty"`
	Serial   string      `json:"serial,omitempty"`
	KeyID    string      `json:"key_id,omitempty"`
	Presence KeyPresence `json:"presence"`
	Messages int         `json:"messages"`
}

// KeyPresence is what is known of a key that messages need.
type KeyPresence string

// The kinds of presence.
const (
	KeyHere KeyPresence = "here"
	// KeyGone: the agent made it, and it is no longer in its store.
	KeyGone KeyPresence = "gone"
	// KeyUnseen: its store could not be looked into.
	KeyUnseen KeyPresence = "unseen"
	// KeyUnknown: the agent knows of no such key here.
	KeyUnknown KeyPresence = "unknown"
)

// Seen brings a check up to date with a listing of the person's stores that is
// newer: a key that came back is here again. es are all enrollments.
func (c MailCheck) Seen(found Inventory, es []Enrollment) MailCheck {
	if !found.At.After(c.At) {
		return c
	}
	keys := make([]MailKey, len(c.Keys))
	for i, k := range c.Keys {
		keys[i] = k
		for _, e := range es {
			if e.ID == k.Enrollment && e.Assignment.User == c.User {
				keys[i].Presence = found.presence(e)
			}
		}
	}
	c.Keys = keys
	return c
}

func (v Inventory) presence(e Enrollment) KeyPresence {
	if _, there := keyIn(v, e); there {
		return KeyHere
	}
	for _, s := range v.Stores {
		if s.Name == e.Store {
			return KeyGone
		}
	}
	return KeyUnseen
}

package challenge

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"time"

	"smime-agent/server-stub/ca"
	"smime-agent/server-stub/mail"
	"smime-agent/server-stub/store"
)

// renew makes a new code for each mailbox that is due, files their hashes, and mails
// them without holding up the call.
func (c *Codes) renew(ctx context.Context, serial ca.Serial, r *store.Request) (*store.Challenge, error) {
	var codes map[string]string
	var open store.Challenge
	now := c.Now()
	err := c.Store.Update(ctx, func(tx store.Tx) error {
		codes, open = map[string]string{}, store.Challenge{}
		if _, err := store.GetJSON(tx, store.Challenges, serial[:], &open); err != nil {
			return err
		}
		for i := range open.Mailboxes {
			m := &open.Mailboxes[i]
			if !due(*m, now) {
				continue
			}
			code := newCode()
			codes[m.Mailbox] = code
			m.Hash, m.Expires, m.Tried, m.Sent, m.Wrong = hashOf(serial, code), now.Add(life), now, time.Time{}, 0
		}
		return store.PutJSON(tx, store.Challenges, serial[:], open)
	})
	if err != nil {
		return nil, err
	}
	if len(codes) > 0 {
		c.Beside(func(ctx context.Context) { c.send(ctx, serial, r, codes, open) })
	}
	return &open, nil
}

// send mails each code to its mailbox alone, and notes what the mail server took.
func (c *Codes) send(ctx context.Context, serial ca.Serial, r *store.Request, codes map[string]string, open store.Challenge) {
	ctx, cancel := context.WithTimeout(ctx, sendTime)
	defer cancel()
	messages, err := c.messages(serial, r, codes, open)
	if err != nil {
		c.Log.Error("mailbox code cannot be written", "reference", serial.String(), "error", err)
		return
	}
	if len(messages) == 0 {
		c.Log.Error("mailbox codes cannot be mailed: no mail server is set", "reference", serial.String())
		return
	}
	var sent, lost []string
	for i, err := range c.Mail.Mailer.Send(ctx, messages) {
		switch {
		case err == nil:
			sent = append(sent, messages[i].To)
			continue
		case mail.Permanent(err):
			lost = append(lost, messages[i].To)
		}
		c.Log.Error("mailbox code cannot be mailed", "reference", serial.String(), "mailbox", messages[i].To, "error", err)
	}
	if err := c.noteMailed(context.WithoutCancel(ctx), serial, sent, lost); err != nil {
		c.Log.Error("mailed code cannot be noted", "reference", serial.String(), "error", err)
	}
	c.Sent(len(sent), len(messages)-len(sent))
}

// messages writes the mails; none where nothing can be mailed.
func (c *Codes) messages(serial ca.Serial, r *store.Request, codes map[string]string, open store.Challenge) ([]mail.Message, error) {
	name, contact, ok := c.Company()
	if !ok || c.Mail.Mailer == nil {
		return nil, nil
	}
	host, locale := c.Session(r)
	var messages []mail.Message
	for _, m := range open.Mailboxes {
		if codes[m.Mailbox] == "" {
			continue
		}
		id := fmt.Sprintf("code.%s.%d.%s", serial, m.Mails+1, rand.Text()[:8])
		message, err := mail.Code(c.Mail.Sender(name, contact), m.Mailbox, codes[m.Mailbox], host, locale, id, m.Expires, c.Now())
		if err != nil {
			return nil, err
		}
		messages = append(messages, message)
	}
	return messages, nil
}

// noteMailed counts the codes that were mailed, or that the mail server will never
// take. One that it cannot take at the moment costs the mailbox none of its codes.
func (c *Codes) noteMailed(ctx context.Context, serial ca.Serial, sent, lost []string) error {
	return c.Store.Update(ctx, func(tx store.Tx) error {
		var open store.Challenge
		if _, err := store.GetJSON(tx, store.Challenges, serial[:], &open); err != nil {
			return err
		}
		for i := range open.Mailboxes {
			m := &open.Mailboxes[i]
			took := slices.Contains(sent, m.Mailbox)
			if took {
				m.Sent = c.Now()
			}
			if took || slices.Contains(lost, m.Mailbox) {
				m.Mails++
			}
		}
		return store.PutJSON(tx, store.Challenges, serial[:], open)
	})
}

package main

import (
	"context"
	"crypto/x509"
	"errors"
	"path/filepath"
	"slices"

	"smime-agent/agent/enroll"
	"smime-agent/agent/local"
	"smime-agent/agent/oldmail"
	"smime-agent/agent/status"
	"smime-agent/platform"
)

// Held are the keys with certificates in the stores that could be looked into.
type Held struct {
	Stores []string
	Keys   []HeldKey
}

// HeldKey is a certificate in a store that has its key. ID is empty for one that the
// agent did not make.
type HeldKey struct {
	Store       string
	ID          platform.KeyID
	Certificate *x509.Certificate
}

func (h Held) has(store string, id enroll.ID) bool {
	for _, k := range h.Keys {
		if k.Store == store && enroll.ID(k.ID) == id {
			return true
		}
	}
	return false
}

func (h Held) looked(store string) bool {
	return slices.Contains(h.Stores, store)
}

// heldKeys looks into the stores of whoever runs this. A store that fails is left
// out: what is in it counts as unseen, never as gone.
func heldKeys(ctx context.Context) (Held, error) {
	stores, err := platform.Stores(ctx, platform.StoreOptions{})
	var h Held
	for _, s := range stores {
		keys, failed := heldIn(ctx, s)
		if failed != nil {
			err = errors.Join(err, failed)
			continue
		}
		h.Stores = append(h.Stores, s.Info().Name)
		h.Keys = append(h.Keys, keys...)
	}
	return h, err
}

func heldIn(ctx context.Context, s platform.Store) ([]HeldKey, error) {
	infos, err := s.Keys(ctx)
	if err != nil {
		return nil, err
	}
	var keys []HeldKey
	for _, info := range infos {
		if !info.Certified || info.Public == nil {
			continue
		}
		chain, err := s.Find(ctx, info.ID)
		if errors.Is(err, platform.ErrNotFound) {
			continue // taken away since the keys were listed
		}
		if err != nil {
			return nil, err
		}
		keys = append(keys, HeldKey{Store: s.Info().Name, ID: info.ID, Certificate: chain[0]})
	}
	h, ok := s.(platform.Holder)
	if !ok {
		return keys, nil
	}
	all, err := h.Held(ctx)
	for _, c := range all {
		keys = append(keys, HeldKey{Store: s.Info().Name, Certificate: c})
	}
	return keys, err
}

// oldMail looks through the mail at a path, for the doctor.
func (a *app) oldMail(ctx context.Context, path string, asJSON bool) error {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return complaint{key: "mailpath", data: map[string]any{"Path": oneLine(path), "Detail": oneLine(err.Error())}, code: exitFailed}
	}
	census, err := oldmail.Scan(ctx, absolute)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, oldmail.ErrNoMail):
		return complaint{key: "nomail", data: map[string]any{"Path": oneLine(absolute)}, code: exitFailed}
	case err != nil:
		return complaint{key: "mailpath", data: map[string]any{"Path": oneLine(absolute), "Detail": oneLine(plainCause(err))}, code: exitFailed}
	}
	held, _ := a.Keys(ctx) // stores that fail count as unseen
	own := a.ownCredentials(ctx)
	found := foundIn(absolute, census, census.Account(knownKeys(held, own)), own)
	found.Kept = a.call(ctx, func(c *local.Client) error { return c.ReportMail(ctx, checkOf(found)) }) == nil
	if asJSON {
		err = a.json(found, "  ")
	} else {
		err = found.Text(a.Stdout, a.options())
	}
	if err != nil {
		return err
	}
	if code := found.ExitCode(); code != exitOK {
		return exit{code: code}
	}
	return nil
}

// plainCause is the system's own words, without the path that is said anyway.
func plainCause(err error) string {
	for inner := errors.Unwrap(err); inner != nil; inner = errors.Unwrap(inner) {
		err = inner
	}
	return err.Error()
}

// ownCredentials asks the service; without it the keys in the stores must do.
func (a *app) ownCredentials(ctx context.Context) []status.Credential {
	me, err := a.User()
	if err != nil {
		return nil
	}
	var own []status.Credential
	_ = a.call(ctx, func(c *local.Client) error {
		r, err := c.Status(ctx)
		for _, credential := range r.Credentials {
			if credential.User == me.ID && credential.Serial != "" {
				own = append(own, credential)
			}
		}
		return err
	})
	return own
}

// knownKeys are the certificates on record, and those in the stores that the
// record does not have. One key may have had several certificates.
func knownKeys(h Held, own []status.Credential) []oldmail.Key {
	var keys []oldmail.Key
	known := map[oldmail.Identity]bool{}
	for _, c := range own {
		k := oldmail.Key{
			Identity: oldmail.Identity{Issuer: c.Issuer, Serial: c.Serial, KeyID: c.KeyID}, Name: string(c.ID), Presence: oldmail.Gone,
		}
		switch {
		case h.has(c.Store, c.Key):
			k.Presence = oldmail.Here
		case !h.looked(c.Store) && c.Proof != nil && c.Proof.Decrypts && c.Problem == nil:
			k.Presence = oldmail.Here // proved by the helper, whom policy shows more stores
		case !h.looked(c.Store):
			k.Presence = oldmail.Unseen
		}
		known[k.Identity] = true
		keys = append(keys, k)
	}
	for _, held := range h.Keys {
		if id := oldmail.Of(held.Certificate); !known[id] {
			known[id] = true
			keys = append(keys, oldmail.Key{Identity: id, Presence: oldmail.Here})
		}
	}
	return keys
}

func foundIn(path string, c *oldmail.Census, a oldmail.Account, own []status.Credential) status.OldMail {
	m := status.OldMail{
		Path: path, Files: c.Files, Messages: c.Messages, Encrypted: c.Encrypted, Opened: a.Opened, Unseen: a.Unseen,
		Obscure: c.Obscure, Closed: a.Closed, Unnamed: a.Unnamed, ClosedFiles: c.Closed, FailedFiles: c.Failed, Keys: []status.OldMailKey{},
	}
	for _, u := range a.Uses {
		k := status.OldMailKey{MailKey: enroll.MailKey{
			Enrollment: enroll.ID(u.Name), Issuer: u.Issuer, Serial: u.Serial, KeyID: u.KeyID,
			Presence: enroll.KeyPresence(u.Presence), Messages: u.Messages,
		}, Folders: []status.OldMailFolder{}}
		for _, credential := range own {
			if string(credential.ID) == u.Name {
				k.Mailbox = credential.Mailbox
			}
		}
		for _, f := range u.Folders {
			k.Folders = append(k.Folders, status.OldMailFolder{Path: f.Path, Messages: f.Messages})
		}
		m.Keys = append(m.Keys, k)
	}
	return m
}

// checkOf is what the service keeps: without folders.
func checkOf(m status.OldMail) enroll.MailCheck {
	c := enroll.MailCheck{Path: m.Path, Messages: m.Messages, Encrypted: m.Encrypted, Opened: m.Opened, Obscure: m.Obscure}
	for _, k := range m.Keys {
		c.Keys = append(c.Keys, k.MailKey)
	}
	return c
}

// Package administrator keeps a register of administrators' certificates: which were
// used, and which are taken no more.
package administrator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"smime-agent/server-stub/ca"
	"smime-agent/server-stub/store"
)

var (
	// ErrRevoked: the certificate is taken no more.
	ErrRevoked = errors.New("the administrator's certificate was revoked")
	// ErrUnknown: no certificate of that number was ever used under that name.
	ErrUnknown = errors.New("no such certificate of this administrator was ever used")
)

// Register is kept in the store, so that all servers over one have the same.
type Register struct {
	Store store.Store
	Now   func() time.Time
	Log   *slog.Logger
}

// The keys begin with what they are about: one certificate, or all of a name's.
const (
	oneCertificate = "c"
	wholeName      = "n"
)

func certificateKey(serial ca.Serial) []byte { return append([]byte(oneCertificate), serial[:]...) }

func nameKey(name string) []byte { return append([]byte(wholeName), name...) }

// Check says whether a certificate is taken: [ErrRevoked] if not. What is used for the
// first time is noted, where anything can be: who has to see why nothing can, may.
func (r *Register) Check(ctx context.Context, id ca.Identity) error {
	var seen, name store.Administrator
	var known bool
	err := store.Glance(r.Store, []store.Ref{
		{Bucket: store.Administrators, Key: certificateKey(id.Serial)}, {Bucket: store.Administrators, Key: nameKey(id.Name)},
	}, nil, func(tx store.Tx) (err error) {
		if known, err = store.GetJSON(tx, store.Administrators, certificateKey(id.Serial), &seen); err != nil {
			return err
		}
		_, err = store.GetJSON(tx, store.Administrators, nameKey(id.Name), &name)
		return err
	})
	switch {
	case err != nil:
		return err
	case !seen.Revoked.IsZero() || revokes(name, id.Serial):
		return ErrRevoked
	case known:
		return nil
	}
	err = r.Store.Update(ctx, func(tx store.Tx) error {
		if tx.Get(store.Administrators, certificateKey(id.Serial)) != nil {
			return nil
		}
		return store.PutJSON(tx, store.Administrators, certificateKey(id.Serial),
			store.Administrator{Name: id.Name, Serial: id.Serial.String(), Ends: id.Ends, Seen: r.Now()})
	})
	if err != nil {
		r.Log.Error("administrator's certificate cannot be noted", "name", id.Name, "error", err)
	}
	return nil
}

// revokes says that all certificates of a name were revoked after this one was made.
func revokes(name store.Administrator, serial ca.Serial) bool {
	return !name.Revoked.IsZero() && !serial.Made().After(name.Revoked)
}

// List gives all that were used, and names whose certificates were all revoked, which
// have no serial number.
func (r *Register) List() (out []store.Administrator, err error) {
	err = r.Store.View(func(tx store.Tx) error {
		out = nil
		names := map[string]store.Administrator{}
		err := store.EachJSON(tx, store.Administrators, nil, func(key []byte, a store.Administrator) bool {
			if bytes.HasPrefix(key, []byte(wholeName)) {
				names[a.Name] = a
			}
			out = append(out, a)
			return true
		})
		for i, a := range out {
			serial, bad := ca.ParseSerial(a.Serial)
			if by := names[a.Name]; bad == nil && a.Revoked.IsZero() && revokes(by, serial) {
				out[i].Revoked, out[i].By, out[i].Reason = by.Revoked, by.By, by.Reason
			}
		}
		return err
	})
	return out, err
}

// Revoke takes back one certificate, or, where serial is empty, all that were made for
// the name until now, used or not. Again is no error. [ErrUnknown] if the one was
// never used under the name.
func (r *Register) Revoke(ctx context.Context, name, serial, by, reason string) error {
	key := nameKey(name)
	if serial != "" {
		number, err := ca.ParseSerial(serial)
		if err != nil {
			return fmt.Errorf("%w: %q", ErrUnknown, serial)
		}
		key = certificateKey(number)
	}
	return r.Store.Update(ctx, func(tx store.Tx) error {
		entry := store.Administrator{Name: name}
		found, err := store.GetJSON(tx, store.Administrators, key, &entry)
		if err != nil {
			return err
		}
		if serial != "" && (!found || entry.Name != name) {
			return ErrUnknown
		}
		if serial != "" && !entry.Revoked.IsZero() {
			return nil
		}
		entry.Revoked, entry.By, entry.Reason = r.Now(), by, reason
		return store.PutJSON(tx, store.Administrators, key, entry)
	})
}

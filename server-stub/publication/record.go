package publication

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/ca"
	"smime-agent/server-stub/store"
)

// value is a device's signed value, filed under the serial number of its signer.
type value struct {
	Value []byte `json:"value"`
	// EncryptTo is the reference of the certificate that it names.
	EncryptTo string `json:"encrypt_to"`
}

// Lookup finds records; package server fills it.
type Lookup struct {
	// Enrolled finds the record of an enrollment, Holder that of a public key; nil
	// if there is none.
	Enrolled func(tx store.Tx, device, enrollment string) (ca.Serial, *store.Request, error)
	Holder   func(tx store.Tx, spki []byte) (ca.Serial, *store.Request, error)
}

// Take files a value. [ErrValue] if it is not one that the device's enrollment can
// have made.
func (d *Desk) Take(ctx context.Context, device string, req *controlv1.PublishRequest) (*controlv1.PublishResponse, error) {
	invalid := func(why string) error { return fmt.Errorf("%w: %s", ErrValue, why) }
	err := d.Store.Update(ctx, func(tx store.Tx) error {
		serial, record, err := d.Lookup.Enrolled(tx, device, req.GetEnrollmentId())
		if err != nil {
			return err
		}
		signer := certificateOf(record)
		if signer == nil {
			return invalid("this device has no certificate for the enrollment")
		}
		preferred, err := Check(req.GetValue(), signer)
		if err != nil {
			return err
		}
		target, holder, err := d.Lookup.Holder(tx, preferred.RawSubjectPublicKeyInfo)
		if err != nil {
			return err
		}
		if other := certificateOf(holder); other == nil || !bytes.Equal(other.Raw, preferred.Raw) || holder.Device != device ||
			holder.User != record.User || !sharesMailbox(other, signer) {
			return invalid("the certificate to encrypt to is not one of the same mailbox and person on this device")
		}
		if !encrypts(holder.Profile) {
			return invalid("the certificate to encrypt to is for signing only")
		}
		return store.PutJSON(tx, store.Publications, serial[:], value{Value: req.GetValue(), EncryptTo: target.String()})
	})
	if err != nil {
		return nil, err
	}
	d.Poke()
	return &controlv1.PublishResponse{}, nil
}

func certificateOf(r *store.Request) *x509.Certificate {
	if r == nil || r.State != store.RequestIssued {
		return nil
	}
	c, err := x509.ParseCertificate(r.Certificate)
	if err != nil {
		return nil
	}
	return c
}

func sharesMailbox(a, b *x509.Certificate) bool {
	return slices.ContainsFunc(a.EmailAddresses, func(m string) bool {
		return slices.ContainsFunc(b.EmailAddresses, func(o string) bool { return strings.EqualFold(m, o) })
	})
}

func encrypts(profile string) bool {
	p, ok := ca.ProfileByName(profile)
	return ok && p.Encrypt
}

// maxAsked bounds how many values one answer asks for.
const maxAsked = 16

// Missing lists the enrollments of a report whose value is to be handed in: the
// device has one that is not the one that is filed.
func (d *Desk) Missing(tx store.Tx, device string, report *controlv1.SyncRequest) ([]string, error) {
	var out []string
	for _, c := range report.GetCredentials() {
		sum := c.GetPublicationSha256()
		if len(sum) != sha256.Size || len(out) == maxAsked {
			continue
		}
		serial, record, err := d.Lookup.Enrolled(tx, device, c.GetEnrollmentId())
		if err != nil {
			return nil, err
		}
		if record == nil || record.State != store.RequestIssued {
			continue
		}
		var filed value
		if _, err := store.GetJSON(tx, store.Publications, serial[:], &filed); err != nil {
			return nil, err
		}
		if has := sha256.Sum256(filed.Value); !bytes.Equal(has[:], sum) {
			out = append(out, c.GetEnrollmentId())
		}
	}
	return out, nil
}

// values gives all that are filed, by the reference of the certificate that they
// name, and with that of their signer.
func values(tx store.Tx) (map[string]signedBy, error) {
	out := map[string]signedBy{}
	var failed error
	tx.Range(store.Publications, nil, nil, func(key, data []byte) bool {
		var serial ca.Serial
		if copy(serial[:], key) != ca.SerialSize {
			failed = fmt.Errorf("publications: a key of %d octets", len(key))
			return false
		}
		var v value
		if failed = json.Unmarshal(data, &v); failed != nil {
			return false
		}
		out[v.EncryptTo] = signedBy{signer: serial.String(), value: v.Value}
		return true
	})
	return out, failed
}

type signedBy struct {
	signer string
	value  []byte
}

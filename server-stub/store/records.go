package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// Token is a join token. Its text is kept nowhere: the key of the record is its SHA-256.
type Token struct {
	ID            string    `json:"id"`
	Label         string    `json:"label,omitempty"`
	MaxUses       uint32    `json:"max_uses"`
	Uses          uint32    `json:"uses"`
	Created       time.Time `json:"created"`
	Expires       time.Time `json:"expires"`
	Revoked       bool      `json:"revoked,omitempty"`
	NeedsApproval bool      `json:"needs_approval,omitempty"`
}

// The states of a device.
const (
	Admitted = "admitted"
	Waiting  = "pending"
	Removed  = "removed"
)

// Device is a machine that joined.
type Device struct {
	ID           string    `json:"id"`
	State        string    `json:"state"`
	Joined       time.Time `json:"joined"`
	Hostname     string    `json:"hostname,omitempty"`
	OS           string    `json:"os,omitempty"`
	OSVersion    string    `json:"os_version,omitempty"`
	AgentVersion string    `json:"agent_version,omitempty"`
	MachineID    string    `json:"machine_id,omitempty"`
	TokenID      string    `json:"token_id,omitempty"`
	// Identity is the certificate of the join (DER), for a repeated call.
	Identity     []byte    `json:"identity"`
	IdentityEnds time.Time `json:"identity_ends"`
}

// Standing is all that a call needs to know of a [Device]: it is read with each of
// them, and the rest is not decoded.
type Standing struct {
	State string `json:"state"`
}

// Mark is what became of a certificate after its issue.
type Mark struct {
	RevokedAt  time.Time `json:"revoked_at,omitzero"`
	Reason     string    `json:"reason,omitempty"`
	ReplacedBy string    `json:"replaced_by,omitempty"`
	// NotAfter tells the revocation list when the entry may go.
	NotAfter time.Time `json:"not_after,omitzero"`
}

// Reminder is what was sent of one reminder on one certificate.
type Reminder struct {
	// Owner and Administrator are when the mail server took the mail.
	Owner         time.Time `json:"owner,omitzero"`
	Administrator time.Time `json:"administrator,omitzero"`
	// OwnerFailed is why it never will.
	OwnerFailed string `json:"owner_failed,omitempty"`
}

// Settled says that nobody is left to tell.
func (r Reminder) Settled(administrator bool) bool {
	return !r.Owner.IsZero() && (!administrator || !r.Administrator.IsZero())
}

// PutJSON files a record.
func PutJSON(tx Tx, bucket Bucket, key []byte, record any) error {
	data, err := json.Marshal(record)
	if err != nil {
		return fmt.Errorf("encode record of %s: %w", bucket, err)
	}
	return tx.Put(bucket, key, data)
}

// GetJSON reads a record; found is false if it is not there.
func GetJSON(tx Tx, bucket Bucket, key []byte, record any) (found bool, err error) {
	data := tx.Get(bucket, key)
	if data == nil {
		return false, nil
	}
	if err := json.Unmarshal(data, record); err != nil {
		return true, fmt.Errorf("decode record of %s: %w", bucket, err)
	}
	return true, nil
}

// The states of a request.
const (
	RequestPending = "pending"
	RequestIssued  = "issued"
	RequestRefused = "refused"
	// RequestChallenge waits for codes that were mailed.
	RequestChallenge = "challenge"
	// RequestForwarded waits for another CA.
	RequestForwarded = "forwarded"
)

// Challenge is what a request waits for: a code for each mailbox.
type Challenge struct {
	Mailboxes []MailboxCode `json:"mailboxes"`
}

// MailboxCode is the code of one mailbox. Codes themselves are kept nowhere.
type MailboxCode struct {
	Mailbox string `json:"mailbox"`
	// Hash is the SHA-256 of the last code; nil if there is none in force.
	Hash    []byte    `json:"hash,omitempty"`
	Expires time.Time `json:"expires,omitzero"`
	// Tried is when the last code was made, Sent when the mail server took it.
	Tried time.Time `json:"tried,omitzero"`
	Sent  time.Time `json:"sent,omitzero"`
	// Mails counts codes that were mailed, or never will be since the mail server
	// refuses the address; Wrong counts wrong attempts at the last.
	Mails     int       `json:"mails,omitempty"`
	Wrong     int       `json:"wrong,omitempty"`
	Confirmed time.Time `json:"confirmed,omitzero"`
}

// Administrator is a certificate of an administrator that was used, or, without a
// serial number, all of a name's that were made before they were revoked.
type Administrator struct {
	Name   string `json:"name"`
	Serial string `json:"serial,omitempty"`
	// Ends is when the certificate does, Seen when it was used first.
	Ends time.Time `json:"ends,omitzero"`
	Seen time.Time `json:"seen,omitzero"`
	// Revoked is since when it is taken no more, By who said so.
	Revoked time.Time `json:"revoked,omitzero"`
	By      string    `json:"by,omitempty"`
	Reason  string    `json:"reason,omitempty"`
}

// Confirmation is how and when a mailbox was confirmed.
type Confirmation struct {
	At time.Time `json:"at"`
	// Method is the section of the Baseline Requirements, and their version.
	Method string `json:"method"`
	Serial string `json:"serial"`
}

// Request is a submitted CSR and, once issued, its certificate. It is by far
// the most frequent record, so it has a compact form: only what the
// certificate does not say itself.
type Request struct {
	Device     string
	Enrollment string
	CSRHash    []byte
	Profile    string
	User       string
	Store      string
	Protection string
	Replaces   string
	Reason     string
	Department string
	State      string
	Submitted  time.Time
	// Refusal is the administrator's sentence.
	Refusal string
	// Certificate (DER) is there once issued; CSR and Mailboxes only until settled.
	Certificate []byte
	CSR         []byte
	Mailboxes   []string
	// Account is that of the people file that was matched, until settled.
	Account string
	// Authority names the CA that issues it; empty is the server's own. Issuers
	// (DER) are what such a CA sent with the certificate.
	Authority string
	Issuers   [][]byte
}

// fields maps the numbers of the stored form to the strings of the record. A
// number is never used again for something else.
func (r *Request) fields() map[protowire.Number]*string {
	return map[protowire.Number]*string{
		1: &r.Device, 2: &r.Enrollment, 4: &r.Profile, 5: &r.User, 6: &r.Store, 7: &r.Protection,
		8: &r.Replaces, 9: &r.Reason, 10: &r.Department, 11: &r.State, 13: &r.Refusal, 17: &r.Account,
		18: &r.Authority,
	}
}

const (
	fieldCSRHash     = 3
	fieldSubmitted   = 12
	fieldCertificate = 14
	fieldCSR         = 15
	fieldMailbox     = 16
	lastStringField  = 18
	fieldIssuer      = 19
)

// Encode gives the stored form: protobuf's wire format.
func (r *Request) Encode() []byte {
	out := make([]byte, 0, 256+len(r.Certificate)+len(r.CSR))
	fields := r.fields()
	for number := protowire.Number(1); number <= lastStringField; number++ {
		if text := fields[number]; text != nil && *text != "" {
			out = protowire.AppendTag(out, number, protowire.BytesType)
			out = protowire.AppendString(out, *text)
		}
	}
	out = appendBytes(out, fieldCSRHash, r.CSRHash)
	out = protowire.AppendTag(out, fieldSubmitted, protowire.VarintType)
	out = protowire.AppendVarint(out, uint64(max(r.Submitted.UnixMilli(), 0)))
	out = appendBytes(out, fieldCertificate, r.Certificate)
	out = appendBytes(out, fieldCSR, r.CSR)
	for _, issuer := range r.Issuers {
		out = appendBytes(out, fieldIssuer, issuer)
	}
	for _, mailbox := range r.Mailboxes {
		out = appendBytes(out, fieldMailbox, []byte(mailbox))
	}
	return out
}

func appendBytes(out []byte, number protowire.Number, value []byte) []byte {
	if len(value) == 0 {
		return out
	}
	return protowire.AppendBytes(protowire.AppendTag(out, number, protowire.BytesType), value)
}

var errRecord = errors.New("decode request: the record is damaged")

// DecodeRequest reads the stored form; unknown fields are skipped.
func DecodeRequest(data []byte) (*Request, error) {
	r := &Request{}
	fields := r.fields()
	for len(data) > 0 {
		number, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return nil, errRecord
		}
		data = data[n:]
		if kind != protowire.BytesType {
			value, n := protowire.ConsumeVarint(data)
			if kind != protowire.VarintType || n < 0 {
				return nil, errRecord
			}
			if number == fieldSubmitted {
				r.Submitted = time.UnixMilli(int64(value)).UTC()
			}
			data = data[n:]
			continue
		}
		value, n := protowire.ConsumeBytes(data)
		if n < 0 {
			return nil, errRecord
		}
		data = data[n:]
		if text := fields[number]; text != nil {
			*text = string(value)
			continue
		}
		r.setBytes(number, append([]byte(nil), value...))
	}
	return r, nil
}

func (r *Request) setBytes(number protowire.Number, value []byte) {
	switch number {
	case fieldCSRHash:
		r.CSRHash = value
	case fieldCertificate:
		r.Certificate = value
	case fieldCSR:
		r.CSR = value
	case fieldIssuer:
		r.Issuers = append(r.Issuers, value)
	case fieldMailbox:
		r.Mailboxes = append(r.Mailboxes, string(value))
	default: // of a newer version
	}
}

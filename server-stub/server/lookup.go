package server

import (
	"crypto/sha256"
	"fmt"

	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/ca"
	"smime-agent/server-stub/store"
)

// indexHash is how much of a SHA-256 an index key has: enough that no two of a
// company's enrollments or keys ever meet, at half the space.
const indexHash = 16

func enrollmentKey(device, enrollment string) []byte {
	sum := sha256.Sum256([]byte(enrollment))
	return append([]byte(device), sum[:indexHash]...)
}

func publicKeyKey(spki []byte) []byte {
	sum := sha256.Sum256(spki)
	return sum[:indexHash]
}

// requestOf reads the record of a serial number; nil if there is none.
func requestOf(tx store.Tx, serial ca.Serial) (*store.Request, error) {
	data := tx.Get(store.Certificates, serial[:])
	if data == nil {
		return nil, nil
	}
	return store.DecodeRequest(data)
}

// enrolled finds the record of an enrollment; nil if there is none.
func enrolled(tx store.Tx, device, enrollment string) (ca.Serial, *store.Request, error) {
	return indexed(tx, store.Enrollments, enrollmentKey(device, enrollment))
}

// holderOf finds the record of a public key; nil if there is none.
func holderOf(tx store.Tx, spki []byte) (ca.Serial, *store.Request, error) {
	return indexed(tx, store.Keys, publicKeyKey(spki))
}

func indexed(tx store.Tx, bucket store.Bucket, key []byte) (ca.Serial, *store.Request, error) {
	var serial ca.Serial
	raw := tx.Get(bucket, key)
	if raw == nil {
		return serial, nil, nil
	}
	if copy(serial[:], raw) != ca.SerialSize {
		return serial, nil, fmt.Errorf("index %s is damaged", bucket)
	}
	request, err := requestOf(tx, serial)
	if err == nil && request == nil {
		err = fmt.Errorf("index %s points nowhere", bucket)
	}
	return serial, request, err
}

// readyOf lists what was settled and not yet collected.
func readyOf(tx store.Tx, device string) []string {
	var out []string
	prefix := []byte(device)
	tx.Range(store.Ready, prefix, nil, func(key, _ []byte) bool {
		var serial ca.Serial
		if copy(serial[:], key[len(prefix):]) == ca.SerialSize {
			out = append(out, serial.String())
		}
		return len(out) < maxReferences
	})
	return out
}

// maxKnown bounds a rebuild, which a message must hold.
const maxKnown = 512

// knownOf gives what central has of a device, for an agent that lost its record:
// all, or the newest, whose IDs come last.
func (s *Server) knownOf(tx store.Tx, device string) []*controlv1.KnownEnrollment {
	var out []*controlv1.KnownEnrollment
	tx.Range(store.Enrollments, []byte(device), nil, func(_, value []byte) bool {
		var serial ca.Serial
		copy(serial[:], value)
		request, err := requestOf(tx, serial)
		if err == nil && request != nil {
			out = append(out, s.known(serial, request))
		}
		if len(out) > maxKnown {
			out = out[1:]
		}
		return true
	})
	return out
}

func (s *Server) known(serial ca.Serial, r *store.Request) *controlv1.KnownEnrollment {
	k := &controlv1.KnownEnrollment{
		EnrollmentId: r.Enrollment, Reference: serial.String(), User: r.User, Mailboxes: r.Mailboxes,
		Profile: r.Profile, Store: r.Store, Csr: r.CSR, SubmittedAt: timestamppb.New(r.Submitted),
		Refused: r.State == store.RequestRefused, Replaces: r.Replaces,
	}
	if r.State == store.RequestIssued {
		k.Chain = s.chainOf(r)
		if cert, err := parseLeaf(r.Certificate); err == nil {
			k.Mailboxes = cert.EmailAddresses
		}
	}
	return k
}

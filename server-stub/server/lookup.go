package server

import (
	"crypto/x509"

	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/ca"
	"smime-agent/server-stub/ledger"
	"smime-agent/server-stub/store"
)

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
		request, err := ledger.RequestOf(tx, serial)
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
		if cert, err := x509.ParseCertificate(r.Certificate); err == nil {
			k.Mailboxes = cert.EmailAddresses
		}
	}
	return k
}

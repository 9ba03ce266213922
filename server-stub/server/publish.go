package server

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/lease"
	"smime-agent/server-stub/ledger"
	"smime-agent/server-stub/publication"
	"smime-agent/server-stub/store"
)

// directoryHold is how long a server that died keeps the others from the directory.
const directoryHold = 10 * time.Minute

func (s *Server) newDesk(dial func(context.Context) (publication.Session, error)) *publication.Desk {
	turn := lease.New(s.store, "directory.lease", directoryHold, s.now)
	return &publication.Desk{
		Store: s.store, Lookup: publication.Lookup{Enrolled: ledger.Enrolled, Holder: ledger.HolderOf}, Issuers: s.issuersOf,
		Entries: func(visit func(store.Tx, *controlv1.LedgerEntry) bool) error {
			return ledger.Each(s.store, s.now(), func(tx store.Tx, e *controlv1.LedgerEntry, _ *ledger.View) bool { return visit(tx, e) })
		},
		Hold: holding(turn), Release: turn.Release, Dial: dial, Now: s.now, Log: s.log,
		Changed: func(c publication.Change) {
			s.audit.Info("DirectoryChanged", "role", "server", "mailbox", c.Mailbox, "state", c.State, "serial", c.Serial, "signed", c.Signed)
		},
	}
}

func (s *Server) issuersOf(r *store.Request) [][]byte { return s.chainOf(r)[1:] }

// Publish takes what only a device can sign.
func (s *Server) Publish(ctx context.Context, req *controlv1.PublishRequest) (*controlv1.PublishResponse, error) {
	resp, err := s.desk.Take(ctx, deviceOf(ctx), req)
	if errors.Is(err, publication.ErrValue) {
		return nil, refuse(controlv1.Reason_REASON_PUBLICATION_INVALID, "The value is refused: %v.", err)
	}
	return resp, err
}

// ListPublications says what others find of each mailbox.
func (a *admin) ListPublications(req *controlv1.ListPublicationsRequest, stream grpc.ServerStreamingServer[controlv1.ListPublicationsResponse]) error {
	err := a.desk.List(stream.Context(), req, stream.Send)
	switch {
	case errors.Is(err, publication.ErrNoDirectory):
		return status.Error(codes.FailedPrecondition, "This server has no directory; set directory in server.yaml and start it again.")
	case errors.Is(err, publication.ErrTurn):
		return status.Error(codes.FailedPrecondition, "Another server writes to the directory just now; ask again in a minute.")
	case errors.Is(err, publication.ErrDirectory):
		return status.Errorf(codes.FailedPrecondition, "%v; it is tried again by itself.", err)
	}
	return err
}

// isSettled says that the values for the directory are all filed of this report:
// most reports bring nothing new.
func (m *member) isSettled() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.settled == m.hash
}

// missing gives the values for the directory that only the device can sign.
func (s *Server) missing(tx store.Tx, id string, m *member, req *controlv1.SyncRequest) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	out, err := s.desk.Missing(tx, id, req)
	if err == nil && len(out) == 0 {
		m.settled = m.hash
	}
	return out, err
}

// addPartners gives the set to a device that has another one.
func (s *Server) addPartners(resp *controlv1.SyncResponse, has string) {
	force := s.current.Load()
	if force == nil || has == "" || has == force.policy.Partners.Digest {
		return
	}
	resp.Partners = &controlv1.PartnerSet{Digest: force.policy.Partners.Digest, Certificates: force.policy.Partners.Raw()}
}

package server

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/directory"
	"smime-agent/server-stub/publication"
	"smime-agent/server-stub/refusal"
	"smime-agent/server-stub/store"
)

// book is a directory that says what it is told of alice.
type book chan bool

// Publish is [publication.Session]'s.
func (b book) Publish(w directory.Wanted) (directory.Outcome, error) {
	there := len(w.Certificate) > 0
	b <- there
	if there {
		return directory.Outcome{State: directory.Published}, nil
	}
	return directory.Outcome{State: directory.Withdrawn}, nil
}

// Close is [publication.Session]'s.
func (book) Close() error { return nil }

func (b book) wait(t *testing.T, there bool) {
	t.Helper()
	for timeout := time.After(20 * time.Second); ; {
		select {
		case got := <-b:
			if got == there {
				return
			}
		case <-timeout:
			t.Fatalf("the directory is never told that there is a certificate: %v", there)
		}
	}
}

func records(t *testing.T) store.Store {
	t.Helper()
	db, err := store.OpenBolt(filepath.Join(t.TempDir(), "records.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// TestRevokedLeaveTheDirectory: however a certificate is revoked, and at whichever
// server, the directory is told at once, and not at its next daily look.
func TestRevokedLeaveTheDirectory(t *testing.T) {
	for name, revoke := range map[string]func(ctx context.Context, a *admin, device, serial string) error{
		"one": func(ctx context.Context, a *admin, _, serial string) error {
			_, err := a.Revoke(ctx, &controlv1.RevokeRequest{Serial: serial, Reason: "superseded"})
			return err
		},
		"with its device": func(ctx context.Context, a *admin, device, _ string) error {
			_, err := a.DecideDevice(ctx, &controlv1.DecideDeviceRequest{Id: device, RevokeReason: "superseded"})
			return err
		},
		"with its person": func(ctx context.Context, a *admin, _, _ string) error {
			_, err := a.ApplyPolicy(ctx, &controlv1.ApplyPolicyRequest{
				PolicyYaml: []byte(twicePolicy), PeopleCsv: []byte("account,mailbox,given_name,surname,department\nbob,bob@example.com,Bob,Example,Sales\n"),
			})
			if err != nil {
				return err
			}
			resp, err := a.ListLeavers(ctx, &controlv1.ListLeaversRequest{RevokeReason: "affiliationChanged", Expected: 1})
			if err == nil && !resp.GetRevoked() {
				err = errors.New("nothing was revoked")
			}
			return err
		},
		"elsewhere": func(ctx context.Context, a *admin, device, serial string) error {
			other := &admin{Server: &Server{store: a.store, now: a.now, fleet: newFleet(), desk: &publication.Desk{}}}
			if _, err := other.Revoke(ctx, &controlv1.RevokeRequest{Serial: serial}); err != nil {
				return err
			}
			a.hear(`{"kind": "changed", "device": "` + device + `"}`) // what PostgreSQL carries
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			told := make(book, 100)
			s, ctx := atWork(t, Config{
				Store: records(t), Directory: func(context.Context) (publication.Session, error) { return told, nil },
			})
			req := wish(t)
			resp, err := s.Submit(ctx, req)
			if err != nil {
				t.Fatal(err)
			}
			_, err = s.Sync(ctx, &controlv1.SyncRequest{
				Users: []*controlv1.UserPresence{{User: "uid:1000", Account: "alice"}},
				Credentials: []*controlv1.CredentialReport{{
					EnrollmentId: req.GetEnrollmentId(), User: "uid:1000", Mailbox: "alice@example.com", State: "active",
					Proof: &controlv1.ProofReport{Ok: true, Decrypts: true, At: timestamppb.Now()},
				}},
			})
			if err != nil {
				t.Fatal(err)
			}
			told.wait(t, true)
			time.Sleep(4 * time.Second) // else the look that the report has asked for may find it too, and the test sees nothing
			if err := revoke(ctx, &admin{Server: s}, deviceOf(ctx), resp.GetReference()); err != nil {
				t.Fatal(err)
			}
			told.wait(t, false)
		})
	}
}

// streamOf is the stream of a call that sends nothing.
type streamOf struct {
	grpc.ServerStream
	ctx context.Context
}

func (s streamOf) Context() context.Context                       { return s.ctx }
func (s streamOf) Send(*controlv1.ListPublicationsResponse) error { return nil }

// TestDirectoryNow: who wants the directory looked at hears why that cannot be.
func TestDirectoryNow(t *testing.T) {
	for want, dial := range map[string]func(context.Context) (publication.Session, error){
		"set directory in server.yaml": nil,
		"no way to ldap.example.com": func(context.Context) (publication.Session, error) {
			return nil, errors.New("no way to ldap.example.com")
		},
	} {
		s, ctx := atWork(t, Config{Store: records(t), Directory: dial})
		if _, err := s.Submit(ctx, wish(t)); err != nil {
			t.Fatal(err)
		}
		err := (&admin{Server: s}).ListPublications(&controlv1.ListPublicationsRequest{Now: true}, streamOf{ctx: t.Context()})
		if err, _ = refusal.Status(err); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

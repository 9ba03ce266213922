package server

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/ca"
	"smime-agent/server-stub/lint"
	"smime-agent/server-stub/roster"
	"smime-agent/server-stub/store"
	"smime-agent/server-stub/store/pgtest"
	"smime-agent/server-stub/store/postgres"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

const twicePolicy = `organization: {name: Example GmbH, country: DE, identifier: NTRDE-DER3306.HRB12345}
approval: auto
rules:
  - departments: ["*"]
    profiles: [employee-dual]
    renewal: {rotation: new-key}
`

// paused is a store that holds up one call between two of its looks.
type paused struct {
	store.Store

	mu   sync.Mutex
	left int
	then func()
}

// pauseAfter has the view with this number, from now on, followed by then.
func (p *paused) pauseAfter(views int, then func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left, p.then = views, then
}

func (p *paused) View(read func(store.Tx) error) error {
	err := p.Store.View(read)
	p.mu.Lock()
	p.left--
	var then func()
	if p.left == 0 {
		then = p.then
	}
	p.mu.Unlock()
	if then != nil {
		then()
	}
	return err
}

// overStore makes a server with one admitted device, at which alice is logged in,
// and with nothing that runs beside the calls.
func overStore(t *testing.T, db store.Store) (s *Server, ctx context.Context) {
	t.Helper()
	s, ctx = atWork(t, Config{Store: db})
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	return s, ctx
}

// atWork makes a server with a CA of its own, and the device.
func atWork(t *testing.T, c Config) (s *Server, ctx context.Context) {
	t.Helper()
	settings := ca.Settings{CRLURL: "http://pki.example.com/crl", IssuerURL: "http://pki.example.com/ca", Reserved: true}
	hierarchy, err := ca.Found(ca.Founding{
		Organization: "Example GmbH", Country: "DE", Settings: settings, Now: time.Now(),
		RootCRLURL: "http://pki.example.com/root.crl", RootURL: "http://pki.example.com/root",
	})
	if err != nil {
		t.Fatal(err)
	}
	linter, err := lint.New()
	if err != nil {
		t.Fatal(err)
	}
	issuer, err := ca.NewIssuer([]*x509.Certificate{hierarchy.Issuing.Cert, hierarchy.Root.Cert}, hierarchy.Issuing.Key, linter, settings)
	if err != nil {
		t.Fatal(err)
	}
	if c.Transport, err = ca.FoundTransport("Example GmbH", time.Now()); err != nil {
		t.Fatal(err)
	}
	c.Issuer, c.RootCRL = issuer, func() ([]byte, error) { return nil, nil }
	if s, err = New(c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Stop() })
	people := "account,mailbox,given_name,surname,display_name,department\nalice,alice@example.com,Alice,Example,,Sales\n"
	if err := s.FirstPolicy(t.Context(), []byte(twicePolicy), []byte(people)); err != nil {
		t.Fatal(err)
	}
	device := store.Device{ID: "0123456789abcdef01234567", State: store.Admitted, Joined: time.Now()}
	report, err := proto.Marshal(&controlv1.SyncRequest{Users: []*controlv1.UserPresence{{User: "uid:1000", Account: "alice"}}})
	if err != nil {
		t.Fatal(err)
	}
	err = c.Store.Update(t.Context(), func(tx store.Tx) error {
		if err := roster.PutDevice(tx, device); err != nil {
			return err
		}
		return roster.PutReport(tx, device, report, time.Now())
	})
	if err != nil {
		t.Fatal(err)
	}
	return s, asDevice(t, device.ID)
}

// asDevice is a call of a device.
func asDevice(t *testing.T, id string) context.Context {
	return context.WithValue(t.Context(), deviceKey{}, id)
}

// TestSubmitTwice: of the same submission sent twice at once, as a device does
// that gave up on an answer, one is held up at each of its looks into the record
// until the other is through. There is one certificate, and both answers have it.
func TestSubmitTwice(t *testing.T) {
	for name, open := range map[string]func(*testing.T) store.Store{
		"file": func(t *testing.T) store.Store {
			db, err := store.OpenBolt(filepath.Join(t.TempDir(), "records.db"))
			if err != nil {
				t.Fatal(err)
			}
			return db
		},
		"postgres": func(t *testing.T) store.Store {
			db, err := postgres.Open(t.Context(), postgres.Config{DSN: pgtest.Shared(t).Database(t)})
			if err != nil {
				t.Fatal(err)
			}
			return db
		},
	} {
		t.Run(name, func(t *testing.T) { submitTwice(t, open(t)) })
	}
}

func submitTwice(t *testing.T, db store.Store) {
	t.Cleanup(func() { _ = db.Close() })
	slow := &paused{Store: db}
	s, ctx := overStore(t, slow)
	if _, err := s.member(deviceOf(ctx)); err != nil { // so that it is in memory, and all views are the calls' own
		t.Fatal(err)
	}
	for views := 1; ; views++ {
		req := wish(t)
		var quick *controlv1.SubmitResponse
		slow.pauseAfter(views, func() {
			var err error
			if quick, err = s.Submit(ctx, proto.CloneOf(req)); err != nil {
				t.Errorf("beside a call that was held up after look %d: %v", views, err)
			}
		})
		late, err := s.Submit(ctx, proto.CloneOf(req))
		if err != nil {
			t.Errorf("held up after look %d: %v", views, err)
		}
		if n := countOf(t, db, store.Certificates); n != views {
			t.Errorf("%d certificates after %d pairs of calls", n, views)
		}
		if quick == nil { // the call has no more looks
			if views < 3 {
				t.Errorf("a call has %d looks: the test holds up nothing between two", views-1)
			}
			return
		}
		if quick.GetReference() != late.GetReference() || !proto.Equal(quick.GetOutcome().GetIssued(), late.GetOutcome().GetIssued()) ||
			late.GetOutcome().GetIssued() == nil {
			t.Errorf("held up after look %d the answers differ: %v and %v", views, quick, late)
		}
	}
}

// wish is a submission for alice that nobody has sent yet.
func wish(t *testing.T) *controlv1.SubmitRequest {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return &controlv1.SubmitRequest{
		EnrollmentId: "smime-" + rand.Text(), Csr: der, Profile: "employee-dual", User: "uid:1000",
		Mailboxes: []string{"alice@example.com"}, Store: "nss:default", Protection: "software", Reason: "first",
	}
}

func countOf(t *testing.T, db store.Store, bucket store.Bucket) (n int) {
	t.Helper()
	err := db.View(func(tx store.Tx) error {
		n = 0
		tx.Range(bucket, nil, nil, func([]byte, []byte) bool { n++; return true })
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}
